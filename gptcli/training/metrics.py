"""What a run measured, a JSON line a row.

metrics.jsonl holds only what is reproducible and is cut back to the checkpoint's step on resume; timings.jsonl
(rates, memory, times) stays outside every hash.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from gptcli.artifacts.durable import disk_errors, fsync_file, write_text
from gptcli.artifacts.rows import METRICS, read_rows

TIMINGS = "timings.jsonl"


class Metrics:
    """The two logs of one run."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self.rows = read_rows(run / METRICS)

    def cut(self, step: int) -> None:
        """Forget every row after `step`; a last line that a kill cut short goes too."""
        self.rows = [row for row in self.rows if isinstance(row.get("step"), int) and row["step"] <= step]
        text = "".join(_line(row) for row in self.rows)
        path = self._run / METRICS
        if not path.is_file() or path.read_bytes() != text.encode():
            write_text(path, text)

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Append reproducible rows; each has a `step`."""
        self.rows += rows
        self._append(METRICS, rows)

    def sync(self) -> None:
        """Make the rows added so far last: a checkpoint is worth nothing without the rows before it."""
        fsync_file(self._run / METRICS)

    def time(self, **figures: Any) -> None:
        """Append a row of figures that no two runs share."""
        self._append(TIMINGS, [{"time": round(time.time(), 3), **figures}])

    def validation(self) -> dict[int, dict[str, Any]]:
        """The validation rows by step."""
        return {row["step"]: row for row in self.rows if "val_loss" in row and "step" in row}

    def _append(self, name: str, rows: list[dict[str, Any]]) -> None:
        with disk_errors(self._run / name), (self._run / name).open("a", encoding="utf-8") as file:
            file.write("".join(_line(row) for row in rows))


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
