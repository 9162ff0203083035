"""How many steps a budget is."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable

from gptcli.artifacts.durable import write_json
from gptcli.job import Job
from gptcli.runtime.interruption import cut_short_by
from gptcli.runtime.ranks import apart
from gptcli.training.attempt import with_less_memory
from gptcli.training.setup import Setup
from gptcli.training.spec import TrainingSpec
from gptcli.training.step import Steps, Trainee

BUDGET = "budget.json"  # in the run's folder: the steps that seconds became
_WARM, _TIMED = 2, 4  # steps


def plan_steps(
    spec: TrainingSpec,
    job: Job,
    *,
    samples: int,
    sequences: int,
    tokens_per_step: int,
    setup: Setup,
    trial: Callable[[], Trainee],
) -> int:
    """The steps of a run.

    `samples`: of one epoch; `sequences`: samples a step; `tokens_per_step`: tokens read in a step. Seconds are
    turned into steps by timing a few of `trial()`, a trainee that is thrown away, and the count is kept in the run's
    folder: a run that is taken up again has the steps it began with. A signal meanwhile raises StoppedError.
    """
    if spec.epochs:
        return max(1, math.ceil(spec.epochs * samples / sequences))
    if spec.budget_tokens:
        return max(1, math.ceil(spec.budget_tokens / tokens_per_step))
    if not spec.seconds:
        return spec.steps or spec.default_steps
    kept = job.place / BUDGET
    if not kept.is_file():
        seconds = _seconds_per_step(spec, setup, trial, job)
        steps = max(1, int(spec.seconds / seconds))
        write_json(kept, {"steps": steps, "seconds_per_step": seconds})
    steps = json.loads(kept.read_text(encoding="utf-8"))["steps"]
    return int(steps)


def _seconds_per_step(spec: TrainingSpec, setup: Setup, trial: Callable[[], Trainee], job: Job) -> float:
    """Of several ranks in a process apart: what this one has run before it forks, its children could not run."""

    def timed() -> float:
        return with_less_memory(lambda: _timed(spec, setup, trial()), setup, job.progress.warn)

    with cut_short_by(job.stop):
        return float(apart(timed)) if setup.ranks > 1 else timed()


def _timed(spec: TrainingSpec, setup: Setup, trainee: Trainee) -> float:
    trial = Steps(trainee, spec.with_steps(_WARM + _TIMED), setup)
    started = 0.0
    try:
        for step in range(_WARM + _TIMED):
            if step == _WARM:
                started = time.monotonic()
            trial.update(step, trial.gradients(step, 0).grad_norm)
        return (time.monotonic() - started) / _TIMED
    finally:
        trial.close()
