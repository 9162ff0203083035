"""The keys that pretrain and finetune-lora share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gptcli.spec import Spec, run_field


class TrainingSpec(Spec):
    """How long, how fast and how often to save and to look; the rest is the stage's own."""

    steps: int = Field(300, ge=1, description="optimizer steps")
    seq_len: int = Field(256, ge=8, description="tokens a sequence")
    seed: int = Field(0, ge=0, description="decides the initial weights and the order of the data")
    lr: float = Field(0.02, gt=0, description="peak learning rate of the matrices")
    warmup_steps: int = Field(0, ge=0, description="steps of linear warmup")
    cooldown: float = Field(0.6, ge=0, le=1, description="share of the steps that cool down linearly to zero")
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
    threads: int = run_field(0, "CPU threads; 0: OMP_NUM_THREADS, or one a core", ge=0)

    def is_due(self, every: int, step: int) -> bool:
        """Whether something that happens every so many steps, and at the end, falls on this step."""
        return step == self.steps or (every > 0 and step % every == 0)
