"""What is no ordinary step: a loss or a gradient that is not finite, or a spike of the loss.

The loss is held against its exponentially smoothed mean and variance. Steps that were left out do not enter them. A
run of spikes is no bad batch but a new level: after `IN_A_ROW` of them, one behind the other, the next loss is taken
as it is and the smoothing begins anew. What is not finite never becomes ordinary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

WARM_STEPS = 32  # losses that are smoothed before a spike can be told
HORIZON = 32  # steps that the smoothed mean and variance look back on
LEAST_DEVIATION = 0.01  # of the smoothed loss: near its end a run's loss is so even that any change would be a spike
IN_A_ROW = 5  # spikes that are left out before the next is the new level
SPAN, MOST_SKIPPED = 100, 10  # a run that leaves out so many of the last SPAN steps has diverged


@dataclass(frozen=True)
class Anomaly:
    """Why a step is not to be learnt from; `finite`: whether it is a spike, and the weights are sound."""

    reason: str
    finite: bool


@dataclass
class Watch:
    """The smoothed loss of one run, and which of its latest steps were left out.

    `threshold`: standard deviations above the mean that make a spike; 0: none is looked for.
    """

    threshold: float
    count: int = 0  # losses smoothed so far
    mean: float = 0.0
    variance: float = 0.0
    spikes: int = 0  # in a row, up to now
    skipped: list[int] = field(default_factory=list)  # of the last SPAN steps

    def judge(self, loss: float, grad_norm: float) -> Anomaly | None:
        """Whether a step with this loss (nats) and gradient norm is out of the ordinary; None where it is not."""
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            return Anomaly(f"the loss is {loss:.4g} and the gradient's norm {grad_norm:.4g}", False)
        above = self._deviations(loss)
        if above > self.threshold and self.spikes < IN_A_ROW:
            self.spikes += 1
            told = f"the loss of {loss:.4g} is {above:.3g} standard deviations above its smoothed {self.mean:.4g}"
            return Anomaly(told, True)
        if self.spikes >= IN_A_ROW and above > self.threshold:
            self.count = 0
        self.spikes = 0
        self._follow(loss)
        return None

    def _deviations(self, loss: float) -> float:
        """By how many standard deviations a loss exceeds the smoothed mean."""
        if not self.threshold or self.count < WARM_STEPS:
            return -math.inf
        deviation = max(math.sqrt(self.variance), LEAST_DEVIATION * abs(self.mean), 1e-12)
        return (loss - self.mean) / deviation

    def _follow(self, loss: float) -> None:
        """Exponentially weighted mean and variance (Finch 2009, section 9); the first HORIZON losses weigh alike."""
        if not self.count:
            self.mean = self.variance = 0.0
        self.count += 1
        weight = max(1 / self.count, 1 / HORIZON)
        apart = loss - self.mean
        self.mean += weight * apart
        self.variance = (1 - weight) * (self.variance + weight * apart * apart)

    def skip(self, step: int) -> bool:
        """Note that a step is left out; whether the run may go on."""
        self.skipped = [before for before in self.skipped if before > step - SPAN] + [step]
        return len(self.skipped) < MOST_SKIPPED

    def state(self) -> dict[str, Any]:
        """JSON-able; floats come back as they were."""
        return {
            "count": self.count,
            "mean": self.mean,
            "variance": self.variance,
            "spikes": self.spikes,
            "skipped": self.skipped,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what `state()` gave."""
        self.count, self.spikes = int(state["count"]), int(state["spikes"])
        self.mean, self.variance = float(state["mean"]), float(state["variance"])
        self.skipped = [int(step) for step in state["skipped"]]
