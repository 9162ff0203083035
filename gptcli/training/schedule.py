"""Learning-rate schedules, as factors of the peak rate. `step` counts from 0; no step is wasted on a rate of zero."""

from __future__ import annotations

import math


def factor(schedule: str, step: int, steps: int, warmup_steps: int, cooldown: float) -> float:
    """The factor of `wsd` or `cosine` at one step."""
    if schedule == "cosine":
        return warmup_cosine(step, steps, warmup_steps)
    return warmup_stable_decay(step, steps, warmup_steps, cooldown)


def warmup_stable_decay(step: int, steps: int, warmup_steps: int, cooldown: float) -> float:
    """Linear warmup, a plateau, then a linear cooldown over the last `cooldown` share of the steps.

    It reaches zero one step after the last (Hu et al. 2024, MiniCPM; Hägele et al. 2024).
    """
    falling = (steps - step) / (cooldown * steps) if cooldown > 0 else 1.0
    return min(_rising(step, warmup_steps), falling, 1.0)


def warmup_cosine(step: int, steps: int, warmup_steps: int) -> float:
    """Linear warmup, then half a cosine that reaches zero one step after the last (Loshchilov & Hutter 2017)."""
    if step < warmup_steps:
        return _rising(step, warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / (steps - warmup_steps)))


def _rising(step: int, warmup_steps: int) -> float:
    return (step + 1) / warmup_steps if step < warmup_steps else 1.0
