"""A trainee small enough to reason about: a linear map that learns from numbers drawn by their sample's number."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gptcli.artifacts.manifest import Inputs, Manifest
from gptcli.artifacts.project import Project
from gptcli.job import Job
from gptcli.models.weights import read_tensors, write_tensors
from gptcli.progress import Silent
from gptcli.training.batches import Batch
from gptcli.training.checkpoints import Checkpoints
from gptcli.training.loop import train
from gptcli.training.optimizer import adamw_optimizers
from gptcli.training.saving import copied
from gptcli.training.setup import Setup
from gptcli.training.spec import TrainingSpec

SAMPLES, WIDTH = 4, 8


class Heard(Silent):
    """Progress that is remembered."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def warn(self, line: str) -> None:
        self.lines.append(line)


class Toy:
    """`planted`: what the loss of a sample is multiplied with; `seen`: the samples computed, in order; `before`:
    called before each micro-batch."""

    arena = None
    flops_per_token = 1.0
    samples = SAMPLES

    def __init__(self, spec: TrainingSpec) -> None:
        self.module = nn.Linear(WIDTH, WIDTH)
        with torch.no_grad():
            for parameter in self.module.parameters():
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view(parameter.shape))
        named = dict(self.module.named_parameters())
        self.optimizers = adamw_optimizers(named, spec.lr, 0.0, (0.8, 0.95))
        self.planted: dict[int, float] = {}
        self.seen: list[int] = []
        self.before: Callable[[Batch], None] = lambda batch: None
        self.writing: Callable[[Path], None] = lambda directory: None
        self.validating: Callable[[Callable[[], None]], None] = lambda check: None

    def batches(self, first_sample: int, micro_batch_size: int) -> list[Batch]:
        numbers = torch.arange(first_sample, first_sample + SAMPLES)
        parts = numbers.split(micro_batch_size)
        return [Batch(part[:, None], part[:, None], len(part), len(part)) for part in parts]

    def begin(self, rank: int) -> None:
        self.module.train()

    def backward(self, batch: Batch) -> Tensor:
        self.before(batch)
        losses = []
        for number in batch.input_ids[:, 0].tolist():
            self.seen.append(number)
            x = torch.randn(WIDTH, generator=torch.Generator().manual_seed(number))
            losses.append((self.module(x) - x).square().mean() * self.planted.get(number, 1.0))
        total = torch.stack(losses).sum()
        total.backward()
        return total.detach()

    def updated(self, names: list[str]) -> None:
        pass

    def shown(self) -> AbstractContextManager[None]:
        return nullcontext()

    def measure(self, rank: int, ranks: int, check: Callable[[], None]) -> float:
        self.validating(check)
        check()
        return self.module.weight.detach().square().mean().item()

    def validate(self, measured: list[float]) -> dict[str, Any]:
        return {"val_loss": round(measured[0], 6)}

    def snapshot(self) -> Callable[[Path], None]:
        weights = copied(self.module.state_dict())

        def write(directory: Path) -> None:
            self.writing(directory)
            write_tensors(directory / "model.safetensors", weights)

        return write

    def read_model(self, directory: Path) -> None:
        self.module.load_state_dict(read_tensors(directory / "model.safetensors"))


@dataclass
class Training:
    """Runs of one spec in one place; `train` goes on where the one before ended."""

    root: Path
    spec: TrainingSpec
    heard: Heard = field(default_factory=Heard)

    @property
    def place(self) -> Path:
        return self.root / "runs" / "base"

    def train(self, prepare: Callable[[Toy, Job], None] = lambda toy, job: None) -> Toy:
        self.root.mkdir(exist_ok=True)
        job = Job(Project.open(self.root), "base", self.place, Inputs(), self.heard)
        setup = Setup(torch.device("cpu"), torch.float32, 1, SAMPLES)
        checkpoints = Checkpoints(job, self.spec.content(), self.spec.keep, self.spec.keep_every)
        checkpoints.adopt(setup)
        toy = Toy(self.spec)
        prepare(toy, job)
        checkpoints.begin()
        self.manifest: Manifest = train(toy, self.spec, setup, job, checkpoints, {})
        return toy


@pytest.fixture(scope="session")
def toy_training() -> type[Training]:
    return Training
