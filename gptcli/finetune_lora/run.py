"""Fine-tuning: a frozen base, low-rank updates, chats, and the same loop as pretraining."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from gptcli.artifacts.durable import write_text
from gptcli.artifacts.locations import resolve_model
from gptcli.artifacts.manifest import Manifest
from gptcli.errors import SpecError
from gptcli.finetune_lora.batches import ChatBatches
from gptcli.finetune_lora.spec import FinetuneSpec
from gptcli.job import Job
from gptcli.models.load import load_model, save_adapter_state
from gptcli.models.lora import LoraConfig, adapter_state_dict, apply_lora, load_adapter_state_dict, trainable_parameters
from gptcli.models.weights import read_tensors
from gptcli.records.chats import Chats
from gptcli.scoring.chats import score_chats
from gptcli.scoring.language_modelling import TokenScore
from gptcli.scoring.rendering import render_chats
from gptcli.templates import TEMPLATE_FILE, chat_template
from gptcli.tokenizer import Tokenizer
from gptcli.training.batches import Batch
from gptcli.training.budget import plan_steps
from gptcli.training.checkpoints import Checkpoints
from gptcli.training.loop import train
from gptcli.training.loss import masked_cross_entropy
from gptcli.training.optimizer import adamw_optimizers
from gptcli.training.saving import copied
from gptcli.training.setup import Setup
from gptcli.training.throughput import flops_per_token


def run(spec: FinetuneSpec, job: Job) -> Manifest:
    """Train the adapter runs/NAME to its last step; goes on where an earlier process stopped.

    Raises SpecError when the chats leave nothing to learn from, and as training.loop.train does.
    """
    setup = Setup.of(spec, job.device, spec.sequences)
    checkpoints = Checkpoints(job, spec.content(), spec.keep, spec.keep_every)
    checkpoints.adopt(setup)
    tuning = Tuning(spec, job, setup)
    checkpoints.begin()
    steps = plan_steps(
        spec,
        job,
        samples=len(tuning.chats.train),
        sequences=spec.sequences,
        tokens_per_step=round(spec.sequences * tuning.data.mean_tokens),
        setup=setup,
        trial=lambda: Tuning(spec, job, setup),
    )
    trainable = trainable_parameters(tuning.module)
    facts = {
        "parameters": sum(parameter.numel() for parameter in tuning.module.parameters()),
        "trainable_parameters": sum(parameter.numel() for parameter in trainable.values()),
        "train_chats": len(tuning.chats.train),
        "val_chats": len(tuning.chats.held_out),
        "left_out": tuning.left_out,
    }
    return train(tuning, spec.with_steps(steps), setup, job, checkpoints, facts)


class Tuning:
    """A low-rank update of a base model learning to answer."""

    def __init__(self, spec: FinetuneSpec, job: Job, setup: Setup) -> None:
        self.spec, self.job, self.setup = spec, job, setup
        self.base = resolve_model(job.project, spec.base).directory
        self.tokenizer = Tokenizer.load(self.base)
        chats = Chats(spec.chats, job.project.root, job.inputs)
        self.chats = render_chats(chats, self.tokenizer, spec.seq_len, spec.val_share)
        self.left_out = {**chats.left_out, **self.chats.left_out}
        for name, fault in chats.faults.items():
            job.progress.warn(f"{name}: {fault}; what could be read of it is used")
        if not self.chats.train:
            raise SpecError(
                f"no chat in {', '.join(spec.chats)} is left to learn from", "use more chats or a longer seq_len"
            )
        self.data = ChatBatches(self.chats.train, spec.sequences, spec.seed)
        self.module = load_model(self.base, device=setup.device)
        if spec.seq_len > self.module.config.max_position_embeddings:
            raise SpecError(
                f"seq_len={spec.seq_len} is longer than the base's context of "
                f"{self.module.config.max_position_embeddings} tokens",
                f"--set seq_len={self.module.config.max_position_embeddings}",
            )
        rows = tuple(sorted(self.tokenizer.marker_ids.values())) if spec.train_markers else ()
        inputs_first = self.module.config.model_type == "gpt2"
        self.lora = LoraConfig(spec.rank, spec.alpha, spec.dropout, tuple(spec.target_modules), rows, inputs_first)
        apply_lora(self.module, self.lora, torch.Generator().manual_seed(spec.seed))
        _keep_base_in(self.module, setup.dtype)
        self.optimizers = adamw_optimizers(
            trainable_parameters(self.module), spec.lr, spec.weight_decay, (spec.beta1, spec.beta2)
        )

    arena = None  # adapters are small: their gradients lie in the parameters

    @property
    def flops_per_token(self) -> float:
        """4 a frozen parameter (its own gradient is not computed), and all of a full step for attention."""
        parameters = sum(parameter.numel() for parameter in self.module.parameters())
        return flops_per_token(self.module.config, parameters, self.spec.seq_len) - 2 * parameters

    @property
    def samples(self) -> int:
        return self.spec.sequences

    def batches(self, first_sample: int, micro_batch_size: int) -> list[Batch]:
        return self.data.step(first_sample // self.spec.sequences, micro_batch_size)

    def begin(self, rank: int) -> None:
        self.module.train()

    def backward(self, batch: Batch) -> Tensor:
        with self.setup.autocast():
            hidden = self.module.hidden(batch.input_ids)
            nats = masked_cross_entropy(hidden, self.module.head, batch.targets)
        nats.backward()  # type: ignore[no-untyped-call]
        return nats.detach()

    def updated(self, names: list[str]) -> None:
        """The module computes with its own weights: there are no copies to renew."""

    def shown(self) -> AbstractContextManager[None]:
        """The weights that learn are those that are validated and kept."""
        return nullcontext()

    def measure(self, rank: int, ranks: int, check: Callable[[], None]) -> TokenScore:
        return score_chats(
            self.module,
            self.chats.held_out,
            batch_tokens=self.setup.micro_batch_size * self.spec.seq_len,
            device=self.setup.device,
            dtype=self.setup.dtype,
            check=check,
        )

    def validate(self, measured: list[TokenScore]) -> dict[str, float]:
        score = measured[0]
        return {"val_loss": round(score.loss, 6), "val_accuracy": round(score.accuracy, 6)} if score.tokens else {}

    def snapshot(self) -> Callable[[Path], None]:
        state, base = copied(adapter_state_dict(self.module)), self.job.project.relative(self.base)

        def write(directory: Path) -> None:
            save_adapter_state(state, self.lora, self.module.config, base, directory)
            self.tokenizer.copy_to(directory, model_max_length=self.spec.seq_len)
            # The base's own template, or none, would have other programs ask in a way that was never learnt.
            write_text(directory / TEMPLATE_FILE, chat_template(self.tokenizer))

        return write

    def read_model(self, directory: Path) -> None:
        load_adapter_state_dict(self.module, read_tensors(directory / "adapter_model.safetensors"))


def _keep_base_in(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """Hold the frozen matrices in the compute dtype: half the memory, and no cast in every step."""
    for parameter in module.parameters():
        if not parameter.requires_grad and parameter.ndim == 2:
            parameter.data = parameter.data.to(dtype)
