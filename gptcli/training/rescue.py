"""What becomes of a step that is out of the ordinary, by `on_anomaly`.

skip: its gradients are dropped, the step counts, a row says why. rollback: the weights go back to the latest scheduled
checkpoint, and go on from there with the data after that of the step; all that was read since that checkpoint is left
out. Until a checkpoint stands it skips. stop: the run ends. Each is a function of the run alone: one that was killed
and taken up again does the same.
"""

from __future__ import annotations

import math
from typing import Any

from gptcli.training.anomaly import MOST_SKIPPED, SPAN, Anomaly
from gptcli.training.checkpoints import load_state
from gptcli.training.running import Run, diverged
from gptcli.training.step import Gradients

MOST_TO_ONE = 3  # rollbacks in a row to one checkpoint
MOST_ROLLBACKS = 10  # of a run


class Rescue:
    """Deals with the anomalies of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        # Of the rollbacks to one checkpoint, which all stand at the step after it and cut the others back.
        told = [row for row in run.metrics.rows if "rolled_back_from" in row]
        self._rows: list[dict[str, Any]] = [row for row in told if row["step"] == told[-1]["step"]]

    def skip_or_go_back(self, anomaly: Anomaly, found: Gradients) -> bool:
        """Forget the gradients; whether the step counts (else the run has gone back). Raises DivergedError."""
        run = self._run
        run.steps.discard()
        run.is_sound = anomaly.finite
        if run.spec.on_anomaly == "stop":
            run.rows.append(self._row(anomaly, found))
            raise diverged(run, f"at step {run.step + 1} {anomaly.reason}")
        if run.spec.on_anomaly == "rollback" and self._go_back(anomaly):
            return False
        run.rows.append(self._row(anomaly, found))
        run.display.warn(f"step {run.step + 1} is skipped: {anomaly.reason}")
        if not run.watch.skip(run.step + 1):
            raise diverged(run, f"{MOST_SKIPPED} of the last {SPAN} steps were skipped, the last as {anomaly.reason}")
        return True

    def _row(self, anomaly: Anomaly, found: Gradients) -> dict[str, Any]:
        """A skipped step's row: what was not learnt from is no `train_loss`."""
        run = self._run
        figures = {"loss": found.loss, "grad_norm": found.grad_norm}
        return {
            "step": run.step + 1,
            "skipped": anomaly.reason,
            **{name: round(value, 6) for name, value in figures.items() if math.isfinite(value)},
            **({"sample": run.ranges.first_sample(run.step)} if run.ranges.skipped else {}),
        }

    def _go_back(self, anomaly: Anomaly) -> bool:
        """Take the latest scheduled checkpoint up and leave the data since out; False where none stands."""
        run, ranges = self._run, self._run.ranges
        run.flush()
        run.saver.wait()
        found = run.checkpoints.back_to_scheduled(run.spec.saves_at)
        if found is None:
            return False
        step, directory = found
        if self._rows and self._rows[0]["step"] != step + 1:
            self._rows = []
        self._bound(step, anomaly)
        # Of several rollbacks to one checkpoint each leaves out at least twice as much as the one before.
        before = ranges.skipped[-1] if self._rows else (0, 0)
        first, end = ranges.skip(step, run.step, 2 * (before[1] - before[0]))
        told = {"rolled_back_from": run.step + 1, "why": anomaly.reason, "skipped_samples": [first, end]}
        self._rows.append({"step": step + 1, **told, "sample": end})
        run.display.warn(f"step {run.step + 1}: {anomaly.reason}; back to step {step} without samples {first} to {end}")
        run.trainee.read_model(directory)
        state = load_state(directory, run.trainee.optimizers)
        run.watch.load_state(state["watch"])
        run.step, run.saved, run.tokens, run.is_sound = step, step, state["tokens"], True
        run.metrics.cut(step)
        run.metrics.add(self._rows)
        run.display.bar.start_at(step)
        run.display.restart_clock()
        return True

    def _bound(self, step: int, anomaly: Anomaly) -> None:
        many = len(self._run.ranges.skipped) >= MOST_ROLLBACKS
        if many or len(self._rows) >= MOST_TO_ONE:
            what = (
                f"{MOST_ROLLBACKS} rollbacks" if many else f"{MOST_TO_ONE} rollbacks to the checkpoint at step {step}"
            )
            raise diverged(self._run, f"{what} did not help: at step {self._run.step + 1} {anomaly.reason}")
