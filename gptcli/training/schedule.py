"""Learning-rate schedules, as factors of the peak rate."""

from __future__ import annotations


def warmup_stable_decay(step: int, steps: int, warmup_steps: int, cooldown: float) -> float:
    """Linear warmup, a plateau, then a linear cooldown to zero over the last `cooldown` share of the steps.

    `step` counts from 0. The cooldown reaches zero one step after the last, so no step is wasted on a rate of zero
    (Hu et al. 2024, MiniCPM; Hägele et al. 2024).
    """
    rising = (step + 1) / warmup_steps if step < warmup_steps else 1.0
    falling = (steps - step) / (cooldown * steps) if cooldown > 0 else 1.0
    return min(rising, falling, 1.0)
