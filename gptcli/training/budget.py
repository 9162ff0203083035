"""How many steps a budget is."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

from gptcli.artifacts.durable import write_json
from gptcli.runtime.stop import Stop
from gptcli.training.setup import Setup
from gptcli.training.spec import TrainingSpec
from gptcli.training.step import Steps, Trainee

BUDGET = "budget.json"  # in the run's folder: the steps that seconds became
_WARM, _TIMED = 2, 4  # steps


def plan_steps(
    spec: TrainingSpec,
    run: Path,
    *,
    samples: int,
    sequences: int,
    tokens_per_step: int,
    setup: Setup,
    trial: Callable[[], Trainee],
    stop: Stop | None = None,
) -> int:
    """The steps of a run.

    `samples`: of one epoch; `sequences`: samples a step; `tokens_per_step`: tokens read in a step. Seconds are
    turned into steps by timing a few of `trial()`, a trainee that is thrown away, and the count is kept in the run's
    folder: a run that is taken up again has the steps it began with. A `stop` in it raises StoppedError.
    """
    if spec.epochs:
        return max(1, math.ceil(spec.epochs * samples / sequences))
    if spec.budget_tokens:
        return max(1, math.ceil(spec.budget_tokens / tokens_per_step))
    if not spec.seconds:
        return spec.steps or spec.default_steps
    kept = run / BUDGET
    if not kept.is_file():
        seconds = _seconds_per_step(spec, setup, trial(), stop)
        steps = max(1, int(spec.seconds / seconds))
        write_json(kept, {"steps": steps, "seconds_per_step": seconds})
    steps = json.loads(kept.read_text(encoding="utf-8"))["steps"]
    return int(steps)


def _seconds_per_step(spec: TrainingSpec, setup: Setup, trainee: Trainee, stop: Stop | None) -> float:
    trial = Steps(trainee, spec.with_steps(_WARM + _TIMED), setup, stop)
    started = 0.0
    try:
        for step in range(_WARM + _TIMED):
            if step == _WARM:
                started = time.monotonic()
            trial.update(step, trial.gradients(step, 0).grad_norm)
        return (time.monotonic() - started) / _TIMED
    finally:
        trial.close()
