"""What training told, kept among the units until the artifact is whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gptcli.artifacts.durable import write_json

FOLDER = "training"  # in the units
_FILE = "figures.json"


def write_training_figures(units: Path, stats: dict[str, Any], records: dict[str, Any]) -> None:
    """`stats` are of the content, `records` (times) are not."""
    write_json(units / FOLDER / _FILE, {"stats": stats, "records": records})


def training_figures(units: Path) -> dict[str, dict[str, Any]]:
    """What was written, "stats" for the manifest's stats and "records" for its records, or {}."""
    path = units / FOLDER / _FILE
    found: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def training_files(units: Path) -> list[str]:
    """The path in `units` of the file that holds them, where there is one."""
    return [f"{FOLDER}/{_FILE}"] if (units / FOLDER / _FILE).is_file() else []
