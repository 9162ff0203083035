"""A run in progress: what the loop, and what rescues it, both change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gptcli.errors import DivergedError
from gptcli.job import Job
from gptcli.training.anomaly import Watch
from gptcli.training.checkpoints import Checkpoints
from gptcli.training.display import Display
from gptcli.training.metrics import Metrics
from gptcli.training.ranges import Ranges
from gptcli.training.saving import Saver
from gptcli.training.setup import Setup
from gptcli.training.spec import TrainingSpec
from gptcli.training.step import Steps, Trainee


@dataclass
class Run:
    """A run in progress."""

    trainee: Trainee
    steps: Steps
    spec: TrainingSpec
    setup: Setup
    job: Job
    checkpoints: Checkpoints
    metrics: Metrics
    saver: Saver
    display: Display
    watch: Watch
    ranges: Ranges
    step: int = 0  # finished steps
    tokens: int = 0  # targets learnt from so far
    saved: int = 0  # the step of the latest checkpoint
    is_sound: bool = True  # the latest step's loss and gradient were finite
    rows: list[dict[str, Any]] = field(default_factory=list)  # of metrics.jsonl, not written yet

    def state(self) -> dict[str, Any]:
        """What a checkpoint's state.json tells besides the step."""
        return {
            "tokens": self.tokens,
            "setup": self.setup.facts(),
            "watch": self.watch.state(),
            "skipped_samples": self.ranges.state(),
        }

    def flush(self) -> None:
        """Write the waiting rows, show where the run is."""
        if self.rows:
            self.metrics.add(self.rows)
            self.display.measure(self.step, self.rows[-1])
            self.rows = []


def diverged(run: Run, what: str) -> DivergedError:
    """The error that ends a run; the rows so far are written, the checkpoint that stands is named."""
    run.flush()
    run.saver.wait()
    stands = f"; the checkpoint at step {run.saved} stands" if run.saved else ""
    return DivergedError(
        f"training diverged: {what}{stands}", "start under a new --name with a lower lr, or with --set grad_clip=1.0"
    )
