"""Logs of a run, a JSON object a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"  # what is reproducible


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a log, none where there is no file; a line that is damaged, or not yet whole, is left out."""
    rows = []
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            row = json.loads(line.decode())
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows
