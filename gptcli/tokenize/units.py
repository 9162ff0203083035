"""Which parts of an interrupted run are taken up again: those whose every byte is as it was written.

A part is sealed last, by `KEY.done` with the sums of its files. What a crash left half-written, or what went bad on the
disk since, is no finished part, and is made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import xxhash

from gptcli.artifacts.durable import write_json


def seal(units: Path, key: str, files: Sequence[str], made_from: str = "") -> None:
    """Say that the part `key` is whole: these files, by their paths in `units`; `made_from` names what decided them."""
    sums = {name: _sum_of(units / name) for name in files}
    write_json(_seal_path(units, key), {"files": sums, "made_from": made_from})


def is_sealed(units: Path, key: str, made_from: str = "") -> bool:
    """Whether the part `key` was made from this, and every byte of it is as it was then."""
    try:
        told = json.loads(_seal_path(units, key).read_bytes())
        files = told["files"]
        whole = all(_sum_of(units / name) == wanted for name, wanted in files.items())
        return bool(files) and whole and told["made_from"] == made_from
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _seal_path(units: Path, key: str) -> Path:
    return units / f"{key}.done"


def _sum_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()
