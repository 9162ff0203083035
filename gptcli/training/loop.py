"""The training loop, in a run that can be stopped at any moment.

A run is a function of its spec and inputs: a step depends on (seed, step) and the weights it finds, so a run that was
killed and taken up again from a checkpoint writes the same bytes as one that was never disturbed.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch

from gptcli.artifacts.manifest import Manifest
from gptcli.console import human_bytes, human_count
from gptcli.errors import DivergedError, StoppedError
from gptcli.job import Job
from gptcli.progress import Bar
from gptcli.runtime.device import peak_device_bytes, peak_memory_bytes
from gptcli.training.checkpoints import Checkpoints, load_state
from gptcli.training.curve import draw, smooth
from gptcli.training.ending import end_run
from gptcli.training.metrics import Metrics
from gptcli.training.setup import Setup
from gptcli.training.spec import TrainingSpec
from gptcli.training.step import Taken, Trainee, take_step
from gptcli.training.throughput import peak_flops

METRICS_EVERY = 10  # steps whose losses wait on the device before they are read and written
SMOOTHED = 100  # rows that still count in the smoothed loss
FULL = 0.9  # share of a device's memory above which a warning is due


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
    waiting: list[tuple[int, Taken]] = field(default_factory=list)
    since: float = 0.0  # when the rate's window began
    warned: bool = False  # of the device's memory

    def restart_clock(self) -> None:
        self.since = time.monotonic()


def train(
    trainee: Trainee, spec: TrainingSpec, setup: Setup, job: Job, checkpoints: Checkpoints, facts: dict[str, Any]
) -> Manifest:
    """Train to `spec.steps`, going on from the latest checkpoint; the finished run's manifest.

    `facts` are figures of the stage that the run's stats carry along. Raises StoppedError once a signal came and the
    state is saved, DivergedError when a loss, a gradient or a weight is no longer finite, ArtifactError when a
    checkpoint is damaged.
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
            taken = take_step(trainee, spec, setup, run.step)
            run.step += 1
            run.tokens += taken.valid
            run.waiting.append((run.step, taken))
            bar.advance()
            saving = spec.is_due(spec.save_every, run.step) or job.stop.requested
            if saving or run.step % METRICS_EVERY == 0 or spec.is_due(spec.val_every, run.step):
                _flush(run, bar)
            if saving:
                _save(run)
            if job.stop.requested and run.step < spec.steps:
                raise _stopped(run)
            _look(run, bar)
    job.progress.say(draw(run.metrics.rows))
    return end_run(job, checkpoints, run.metrics, run.step, {**facts, "tokens": run.tokens}, setup.facts())


def _stopped(run: Run) -> StoppedError:
    return StoppedError(
        f"stopped at step {run.step} of {run.spec.steps}, everything saved", "run the same command to go on"
    )


def _diverged(run: Run, what: str) -> DivergedError:
    stands = f"; the checkpoint at step {run.saved} stands" if run.saved else ""
    return DivergedError(
        f"training diverged: {what}{stands}", "start under a new --name with a lower lr, or with --set grad_clip=1.0"
    )


def _take_up(run: Run) -> None:
    """Start at step 0, or go on from the latest checkpoint."""
    latest = run.checkpoints.latest()
    if latest is not None:
        run.step, directory = latest
        run.saved = run.step
        run.trainee.read_model(directory)
        run.tokens = load_state(directory, run.trainee.optimizers)["tokens"]
        run.job.progress.say(f"{run.job.name}: goes on from step {run.step} of {run.spec.steps}")
    run.metrics.cut(run.step)


def _flush(run: Run, bar: Bar) -> None:
    """Read the waiting losses from the device, write their rows, show where the run is."""
    rows = []
    for step, taken in run.waiting:
        loss, norm = taken.loss.item(), taken.grad_norm.item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise _diverged(run, f"at step {step} the loss is {loss:.4g} and the gradient's norm {norm:.4g}")
        rows.append(
            {"step": step, "train_loss": round(loss, 6), "lr": float(f"{taken.lr:.6g}"), "grad_norm": round(norm, 6)}
        )
    if rows:
        rate = sum(taken.tokens for _, taken in run.waiting) / max(time.monotonic() - run.since, 1e-9)
        run.metrics.add(rows)
        _show(run, bar, rows[-1], rate)
    run.waiting.clear()
    run.restart_clock()


def _show(run: Run, bar: Bar, row: dict[str, Any], rate: float) -> None:
    losses = [each["train_loss"] for each in run.metrics.rows[-SMOOTHED:] if "train_loss" in each]
    peak = peak_flops(run.setup.device)
    mfu = f"{100 * rate * run.trainee.flops_per_token / peak:.1f} %" if peak else "unknown"
    memory = peak_device_bytes(run.setup.device)
    held = f"{human_bytes(memory[0])} of {human_bytes(memory[1])}" if memory else human_bytes(peak_memory_bytes())
    run.metrics.time(
        step=run.step,
        tokens_per_second=round(rate, 1),
        peak_memory_bytes=memory[0] if memory else peak_memory_bytes(),
        **({"mfu": round(rate * run.trainee.flops_per_token / peak, 4)} if peak else {}),
    )
    bar.show(
        loss=f"{row['train_loss']:.3f}",
        smoothed=f"{smooth(losses)[-1]:.3f}",
        lr=f"{row['lr']:.2g}",
        norm=f"{row['grad_norm']:.2g}",
        **{"tokens/s": human_count(rate), "MFU": mfu, "memory": held},
    )
    if memory and memory[0] > FULL * memory[1] and not run.warned:
        run.warned = True
        run.job.progress.warn("the device's memory is over 90 % full; a smaller micro_batch_size helps")


def _save(run: Run) -> None:
    if run.saved == run.step:
        return
    if not all(bool(torch.isfinite(weight).all()) for weight in run.trainee.module.parameters()):
        raise _diverged(run, f"after step {run.step} a weight is no longer finite")
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
        figures = _validate(run)
        run.metrics.add([{"step": run.step, **figures}] if figures else [])
        run.metrics.time(step=run.step, validation_seconds=round(time.monotonic() - started, 3))
        _tell(run, bar, figures)
        run.restart_clock()
    if run.step and run.saved == run.step:
        run.checkpoints.prune(lambda step: spec.is_due(spec.save_every, step))


def _validate(run: Run) -> dict[str, Any]:
    run.trainee.module.eval()
    try:
        figures = run.trainee.validate()
    except StoppedError:
        _save(run)  # the validation is done again on resume, the steps are not
        raise _stopped(run) from None
    finally:
        run.trainee.module.train()
    if not all(math.isfinite(value) for value in figures.values() if isinstance(value, float)):
        raise _diverged(run, f"the validation loss at step {run.step} is {figures['val_loss']}")
    return figures


def _tell(run: Run, bar: Bar, figures: dict[str, Any]) -> None:
    if not figures:
        return
    shown = "  ".join(f"{name} {value:.4f}" for name, value in figures.items() if isinstance(value, float))
    run.job.progress.say(f"{run.job.name}: step {run.step}  {shown}")
    if figures.get("sample"):
        run.job.progress.say(f"{run.job.name}: it writes  {figures['sample']!r}")
    bar.show(val=f"{figures['val_loss']:.3f}")
