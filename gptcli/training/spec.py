"""The keys that pretrain and finetune-lora share."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gptcli.spec import Spec, run_field
from gptcli.training.schedule import factor

# What a run may go on with otherwise than it began: none of it changes what was learnt so far.
HARMLESS = frozenset(
    {
        "val_first",
        "val_every",
        "save_every",
        "keep",
        "keep_every",
        "on_anomaly",
        "spike_threshold",
        "sample_tokens",
    }
)
BUDGETS = ("steps", "epochs", "budget_tokens", "seconds")


class TrainingSpec(Spec):
    """How long, how fast and how often to save and to look; the rest is the stage's own."""

    default_steps: ClassVar[int] = 300

    steps: int = Field(0, ge=0, description="budget in optimizer steps; 0: by another budget, or 300")
    epochs: float = Field(0, ge=0, description="budget in passes over the data; 0: by another budget")
    budget_tokens: int = Field(0, ge=0, description="budget in tokens read; 0: by another budget")
    seconds: float = Field(
        0, ge=0, description="budget in seconds of steps, turned into steps once, at the start; 0: by another budget"
    )
    seq_len: int = Field(256, ge=8, description="tokens a sequence")
    seed: int = Field(0, ge=0, lt=2**32, description="decides the initial weights and the order of the data")
    lr: float = Field(0.02, gt=0, description="peak learning rate of the matrices")
    schedule: Literal["wsd", "cosine"] = Field("wsd", description="plateau and linear cooldown, or half a cosine")
    warmup_steps: int = Field(0, ge=0, description="steps of linear warmup")
    cooldown: float = Field(0.6, ge=0, le=1, description="wsd: share of the steps that cool down linearly to zero")
    weight_decay: float = Field(0.05, ge=0, description="decoupled weight decay of the matrices")
    beta1: float = Field(0.8, ge=0, lt=1, description="AdamW's first-moment decay")
    beta2: float = Field(0.95, ge=0, lt=1, description="AdamW's second-moment decay")
    grad_clip: float = Field(0.0, ge=0, description="largest gradient norm; 0: none")
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="precision of the matrix products")
    micro_batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="sequences in memory at once"
    )
    val_first: bool = Field(False, description="validate before the first step too")
    val_every: int = Field(100, ge=0, description="steps between validations; 0: at the end only")
    save_every: int = Field(100, ge=0, description="steps between checkpoints; 0: at the end only")
    keep: int = Field(2, ge=1, description="checkpoints kept besides the best: the latest so many")
    keep_every: int = Field(0, ge=0, description="steps between checkpoints that are kept for good; 0: none are")
    on_anomaly: Literal["skip", "rollback", "stop"] = Field(
        "skip", description="what to do about a loss or gradient that is not finite, or a spike of the loss"
    )
    spike_threshold: float = Field(
        8.0, ge=0, description="standard deviations above the smoothed loss that make a spike; 0: none is looked for"
    )
    deterministic: bool = run_field(
        False, "only CUDA kernels that give the same bits every time; slower. A CPU's always do"
    )
    threads: int = run_field(
        0,
        "CPU threads of the one process that then computes; 0: one for each rank",
        ge=0,
    )

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        given = [name for name in BUDGETS if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are both a budget: set one of them, and the other to 0")
        return self

    def with_steps(self, steps: int) -> Self:
        """This spec with its budget told in steps."""
        return self.model_copy(update={"steps": steps, "epochs": 0, "budget_tokens": 0, "seconds": 0})

    def is_due(self, every: int, step: int) -> bool:
        """Whether something that happens every so many steps, and at the end, falls on this step."""
        return step == self.steps or (every > 0 and step % every == 0)

    def saves_at(self, step: int) -> bool:
        """Whether the schedule of checkpoints has one at this step."""
        return self.is_due(self.save_every, step) or (self.keep_every > 0 and step % self.keep_every == 0)

    @property
    def checkpoints_at_once(self) -> int:
        """How many may be on disk together: those kept, the best one, one being written, those kept for good."""
        for_good = (self.steps or self.default_steps) // self.keep_every if self.keep_every else 0
        return self.keep + 2 + for_good

    def may_change(self, key: str, made: dict[str, Any], step: int) -> bool:
        """Whether a run begun with the spec `made`, and stopped after so many steps, goes on with this one's `key`.

        Another number of steps where every rate so far would have been the same: in the warmup and on the plateau.
        """
        if key != "steps":
            return key in HARMLESS
        try:
            before = type(self).model_validate(made)
        except ValueError:  # another stage's spec, or another version's
            return False
        counts = [0 if spec._has_other_budget() else spec.steps or spec.default_steps for spec in (before, self)]
        if min(counts) < max(step, 1):
            return False
        return all(before._factor(counts[0], at) == self._factor(counts[1], at) for at in range(step))

    def _has_other_budget(self) -> bool:
        return any(getattr(self, name) for name in BUDGETS if name != "steps")

    def _factor(self, steps: int, step: int) -> float:
        return factor(self.schedule, step, steps, self.warmup_steps, self.cooldown)
