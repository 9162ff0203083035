"""The training loop, in a run that can be stopped at any moment.

A run is a function of its spec and inputs: a step depends on (seed, step) and the weights it finds, so a run that was
killed and taken up again from a checkpoint writes the same bytes as one that was never disturbed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from gptcli.artifacts.manifest import Manifest
from gptcli.errors import StoppedError
from gptcli.job import Job
from gptcli.runtime.interruption import cut_short_by
from gptcli.training.anomaly import Watch
from gptcli.training.attempt import gradients, with_less_memory
from gptcli.training.checkpoints import Checkpoints, load_state
from gptcli.training.curve import draw
from gptcli.training.display import Display
from gptcli.training.ending import end_run
from gptcli.training.metrics import Metrics
from gptcli.training.ranges import Ranges
from gptcli.training.rescue import Rescue
from gptcli.training.running import Run, diverged
from gptcli.training.saving import Saver
from gptcli.training.setup import Setup
from gptcli.training.spec import TrainingSpec
from gptcli.training.step import Gradients, Steps, Trainee

ROWS_EVERY = 10  # steps whose rows are written together


def train(
    trainee: Trainee,
    spec: TrainingSpec,
    setup: Setup,
    job: Job,
    checkpoints: Checkpoints,
    facts: dict[str, Any],
    check: Callable[[Steps], None] | None = None,
    expected: Callable[[int, float], str] | None = None,
) -> Manifest:
    """Train to `spec.steps`, going on from the latest checkpoint; the finished run's manifest.

    `facts` are figures of the stage that the run's stats carry along; `check` looks at a run before its first step;
    `expected` is Display's. Raises StoppedError once a signal came and the state is saved, DivergedError when a loss,
    a gradient or a weight is no longer finite and `spec.on_anomaly` allows no more, ResourceError when memory or disk
    do not suffice, ArtifactError when a checkpoint is damaged.
    """
    steps, metrics = Steps(trainee, spec, setup, job.stop), Metrics(job.place)
    saver = Saver(checkpoints, metrics, spec.saves_at)  # starts no thread before its first work: Steps has forked
    try:
        with job.progress.bar(job.name, spec.steps, "steps") as bar:
            display = Display(job, setup, metrics, trainee.flops_per_token, bar, expected)
            watch, ranges = Watch(spec.spike_threshold), Ranges(trainee.samples)
            run = Run(trainee, steps, spec, setup, job, checkpoints, metrics, saver, display, watch, ranges)
            _go(run, check)
        job.progress.say(draw(metrics.rows))
        return end_run(job, checkpoints, metrics, run.step, {**facts, "tokens": run.tokens}, setup.facts())
    finally:
        steps.close()
        saver.close()


def _go(run: Run, check: Callable[[Steps], None] | None) -> None:
    _take_up(run)
    try:
        if not run.step and check is not None:
            with cut_short_by(run.job.stop):
                with_less_memory(partial(check, run.steps), run.setup, run.display.warn)
        if run.step or run.spec.val_first:  # a kill between a checkpoint and its validation leaves it to do
            _look(run)
        rescue = Rescue(run)
        run.display.restart_clock()
        while run.step < run.spec.steps:
            run.saver.check()
            found = gradients(run)
            anomaly = run.watch.judge(found.loss, found.grad_norm)
            if anomaly is None:
                _learn(run, found)
            elif not rescue.skip_or_go_back(anomaly, found):
                continue
            run.step += 1
            _after_step(run, found)
        run.saver.wait()
    except StoppedError as error:
        raise _stopped(run) from error


def _take_up(run: Run) -> None:
    """Start at step 0, or go on from the latest checkpoint."""
    latest = run.checkpoints.latest()
    if latest is not None:
        run.step, directory = latest
        run.saved = run.step
        run.trainee.read_model(directory)
        state = load_state(directory, run.trainee.optimizers)
        run.tokens = state["tokens"]
        run.watch.load_state(state["watch"])
        run.ranges.load_state(state["skipped_samples"])
        run.display.say(f"goes on from step {run.step} of {run.spec.steps}")
        run.display.bar.start_at(run.step)
    run.metrics.cut(run.step)


def _learn(run: Run, found: Gradients) -> None:
    lr = run.steps.update(run.step, found.grad_norm)
    run.tokens += found.valid
    run.is_sound = True
    run.rows.append(
        {
            "step": run.step + 1,
            "train_loss": round(found.loss, 6),
            "lr": float(f"{lr:.6g}"),
            "grad_norm": round(found.grad_norm, 6),
            **({"sample": run.ranges.first_sample(run.step)} if run.ranges.skipped else {}),
        }
    )


def _after_step(run: Run, found: Gradients) -> None:
    """Write, save and validate what is due."""
    spec = run.spec
    run.display.count(found.tokens)
    saving = spec.saves_at(run.step)
    if saving or run.step % ROWS_EVERY == 0 or spec.is_due(spec.val_every, run.step):
        run.flush()
    if run.step == spec.steps and not run.is_sound:
        raise diverged(run, f"the run ends on a step whose loss is not finite, {run.step}")
    if saving and run.is_sound:  # weights whose loss is not finite are no place to go on from
        _save(run)
    if run.step == spec.steps:
        run.saver.wait()  # the last checkpoint stands before the last validation
    else:
        run.job.stop.check()
    _look(run)


def _save(run: Run) -> None:
    """Begin a checkpoint of this step, if there is none."""
    if run.saved == run.step:
        return
    if not all(bool(torch.isfinite(weight).all()) for weight in run.trainee.module.parameters()):
        raise diverged(run, f"after step {run.step} a weight is no longer finite")
    run.flush()
    losses = [row["train_loss"] for row in run.metrics.rows if "train_loss" in row]
    stats = {"tokens": run.tokens, **({"train_loss": losses[-1]} if losses else {})}
    run.saver.save(run.step, stats, run.state(), run.trainee.optimizers, run.trainee.snapshot)
    run.saved = run.step
    run.display.restart_clock()


def _look(run: Run) -> None:
    """Validate if it is time to, then let go of checkpoints that need not be kept."""
    spec = run.spec
    due = spec.val_first if run.step == 0 else spec.is_due(spec.val_every, run.step)
    if due and run.step not in run.metrics.validation():
        started = time.monotonic()
        figures = run.steps.validate()
        if not all(math.isfinite(value) for value in figures.values() if isinstance(value, float)):
            raise diverged(run, f"the validation loss at step {run.step} is {figures['val_loss']}")
        run.metrics.add([{"step": run.step, **figures}] if figures else [])
        run.display.validated(run.step, figures, time.monotonic() - started)
    if run.step and run.saved == run.step:
        run.saver.prune()


def _stopped(run: Run) -> StoppedError:
    """Save what is finished. A step under way, and a validation, are done again on resume."""
    if run.step and run.is_sound:
        _save(run)
    run.saver.wait()
    if not run.step:
        return StoppedError("stopped before the first step was done", "run the same command to begin it again")
    where = f"stopped at step {run.step} of {run.spec.steps}"
    if run.saved == run.step:
        return StoppedError(f"{where}, everything saved", "run the same command to go on")
    return StoppedError(f"{where}; the checkpoint at step {run.saved} stands", "run the same command to go on")
