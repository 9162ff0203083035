"""The training loop: forward, loss, backprop, update, in a run that can be stopped at any moment.

A run is a function of its spec and inputs: batches and random draws depend on (seed, step) alone, so a run that was
killed and taken up again from a checkpoint writes the same bytes as one that was never disturbed.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gptcli.artifacts.manifest import Manifest
from gptcli.console import human_bytes
from gptcli.errors import DivergedError, StoppedError
from gptcli.job import Job
from gptcli.progress import Bar
from gptcli.runtime.device import peak_device_bytes
from gptcli.training.batches import Batch
from gptcli.training.checkpoints import Checkpoints, load_state
from gptcli.training.ending import end_run
from gptcli.training.metrics import Metrics
from gptcli.training.optimizer import Optimizers
from gptcli.training.schedule import warmup_stable_decay
from gptcli.training.setup import Setup
from gptcli.training.spec import TrainingSpec

METRICS_EVERY = 10  # steps whose losses wait on the device before they are read and written


class Trainee(Protocol):
    """What is trained, and how its loss and validation are computed."""

    @property
    def optimizers(self) -> Optimizers: ...

    @property
    def module(self) -> nn.Module: ...

    def batches(self, step: int, micro_batch_size: int) -> list[Batch]:
        """The micro-batches of one step, counted from 0."""

    def loss(self, batch: Batch) -> Tensor:
        """The summed loss of a batch in nats, an fp32 scalar."""

    def validate(self) -> dict[str, float]:
        """`val_loss` in nats a token and whatever else is measured on unseen data; may raise StoppedError."""

    def write_model(self, directory: Path) -> None:
        """The model's files, as others open them."""

    def read_model(self, directory: Path) -> None:
        """Take the weights up from what write_model wrote."""


@dataclass
class Run:
    """A run in progress."""

    trainee: Trainee
    spec: TrainingSpec
    setup: Setup
    job: Job
    checkpoints: Checkpoints
    metrics: Metrics
    step: int = 0  # finished steps
    tokens: int = 0  # targets that carried loss so far
    saved: int = 0  # the step of the latest checkpoint
    waiting: list[tuple[int, Tensor, Tensor | None, float]] = field(default_factory=list)
    since: float = 0.0  # when the rate's window began
    read: int = 0  # input tokens, padding left out, in the window

    def restart_clock(self) -> None:
        self.since, self.read = time.monotonic(), 0


def train(
    trainee: Trainee, spec: TrainingSpec, setup: Setup, job: Job, checkpoints: Checkpoints, facts: dict[str, Any]
) -> Manifest:
    """Train to `spec.steps`, going on from the latest checkpoint; the finished run's manifest.

    `facts` are figures of the stage that the run's stats carry along. Raises StoppedError once a signal came and the
    state is saved, DivergedError when a loss is no longer finite, ArtifactError when a checkpoint is damaged.
    """
    run = Run(trainee, spec, setup, job, checkpoints, Metrics(job.place))
    _take_up(run)
    trainee.module.train()
    with job.progress.bar(job.name, spec.steps, "steps") as bar:
        bar.start_at(run.step)
        if run.step or spec.val_first:  # a kill between a checkpoint and its validation leaves the validation to do
            _look(run, bar)
        run.restart_clock()
        while run.step < spec.steps:
            _step(run)
            bar.advance()
            saving = spec.is_due(spec.save_every, run.step) or job.stop.requested
            if saving or run.step % METRICS_EVERY == 0 or spec.is_due(spec.val_every, run.step):
                _flush(run, bar)
            if saving:
                _save(run)
            if job.stop.requested and run.step < spec.steps:
                raise _stopped(run)
            _look(run, bar)
    return end_run(job, checkpoints, run.metrics, run.step, {**facts, "tokens": run.tokens}, setup.facts())


def _stopped(run: Run) -> StoppedError:
    return StoppedError(
        f"stopped at step {run.step} of {run.spec.steps}, everything saved", "run the same command to go on"
    )


def _take_up(run: Run) -> None:
    """Start at step 0, or go on from the latest checkpoint."""
    latest = run.checkpoints.latest()
    if latest is not None:
        run.step, directory = latest
        run.saved = run.step
        run.trainee.read_model(directory)
        state = load_state(directory, run.trainee.optimizers)
        run.tokens = state["tokens"]
        for remark in run.setup.take_up(state["setup"]):
            run.job.progress.warn(remark)
        run.job.progress.say(f"{run.job.name}: goes on from step {run.step} of {run.spec.steps}")
    run.metrics.cut(run.step)


def _step(run: Run) -> None:
    spec, trainee = run.spec, run.trainee
    torch.manual_seed(spec.seed * 1_000_003 + run.step)  # dropout draws from (seed, step): no generator state to keep
    trainee.optimizers.set_factor(warmup_stable_decay(run.step, spec.steps, spec.warmup_steps, spec.cooldown))
    batches = trainee.batches(run.step, run.setup.micro_batch_size)
    valid = max(sum(batch.valid for batch in batches), 1)
    total = torch.zeros((), device=run.setup.device)
    for batch in batches:
        with run.setup.autocast():
            loss = trainee.loss(batch.to(run.setup.device)) / valid
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    norm = _clip(trainee.module, spec.grad_clip)
    trainee.optimizers.step()
    trainee.optimizers.zero_grad()
    run.step += 1
    run.tokens += valid
    run.read += sum(batch.tokens for batch in batches)
    run.waiting.append((run.step, total, norm, trainee.optimizers.lr))


def _clip(module: nn.Module, largest: float) -> Tensor | None:
    if largest <= 0:
        return None
    return torch.nn.utils.clip_grad_norm_([p for p in module.parameters() if p.grad is not None], largest)


def _flush(run: Run, bar: Bar) -> None:
    """Read the waiting losses from the device, write their rows, show the rate."""
    rows = []
    for step, loss, norm, lr in run.waiting:
        row: dict[str, Any] = {"step": step, "train_loss": round(loss.item(), 6), "lr": float(f"{lr:.6g}")}
        if norm is not None:
            row["grad_norm"] = round(norm.item(), 6)
        if not math.isfinite(row["train_loss"]):
            raise DivergedError(
                f"training diverged: the loss at step {step} is {row['train_loss']}; "
                f"the checkpoint at step {run.saved} stands",
                "start under a new --name with a lower lr, or with --set grad_clip=1.0",
            )
        rows.append(row)
    run.waiting.clear()
    run.metrics.add(rows)
    rate = run.read / max(time.monotonic() - run.since, 1e-9)
    run.restart_clock()
    if rows:
        _show(run, bar, rows[-1]["train_loss"], rate)


def _show(run: Run, bar: Bar, loss: float, rate: float) -> None:
    memory = peak_device_bytes(run.setup.device)
    run.metrics.time(step=run.step, tokens_per_second=round(rate, 1), **({"device_bytes": memory[0]} if memory else {}))
    bar.show(loss=f"{loss:.3f}", **{"tokens/s": f"{rate:,.0f}"})
    if memory:
        bar.show(memory=f"{human_bytes(memory[0])} of {human_bytes(memory[1])}")
        if memory[0] > 0.9 * memory[1]:
            run.job.progress.warn("the device's memory is over 90 % full; a smaller micro_batch_size helps")


def _save(run: Run) -> None:
    if run.saved == run.step:
        return
    losses = [row["train_loss"] for row in run.metrics.rows if "train_loss" in row]
    stats = {"tokens": run.tokens, "train_loss": losses[-1]}
    state = {"tokens": run.tokens, "setup": run.setup.facts()}
    run.metrics.sync()
    run.checkpoints.save(run.step, stats, state, run.trainee.optimizers, run.trainee.write_model)
    run.saved = run.step
    run.restart_clock()


def _look(run: Run, bar: Bar) -> None:
    """Validate if it is time to, then let go of checkpoints that need not be kept."""
    spec = run.spec
    due = spec.val_first if run.step == 0 else spec.is_due(spec.val_every, run.step)
    if due and run.step not in run.metrics.validation():
        started = time.monotonic()
        run.trainee.module.eval()
        try:
            figures = run.trainee.validate()
        except StoppedError:
            _save(run)  # the validation is done again on resume, the steps are not
            raise _stopped(run) from None
        run.trainee.module.train()
        run.metrics.add([{"step": run.step, **figures}] if figures else [])
        run.metrics.time(step=run.step, validation_seconds=round(time.monotonic() - started, 3))
        shown = "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
        run.job.progress.say(f"{run.job.name}: step {run.step}  {shown}")
        if figures:
            bar.show(val=f"{figures['val_loss']:.3f}")
        run.restart_clock()
    if run.step and run.saved == run.step:
        run.checkpoints.prune()
