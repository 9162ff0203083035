"""Which types a manifest's fields have: one from elsewhere may hold anything that JSON can say."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

DEEPEST = 64  # levels of lists and objects in one another; what copies a manifest goes down one call or two a level

_FIELDS: dict[str, type] = {
    "kind": str,
    "format_version": int,
    "gptcli_version": str,
    "content_sha256": str,
    "spec": dict,
    "inputs": list,
    "files": list,
    "stats": dict,
    "records": dict,
}
_INPUT: dict[str, type] = {"role": str, "path": str, "content_sha256": str}
_FILE: dict[str, type] = {"path": str, "bytes": int, "sha256": str}
_SOURCE: dict[str, type] = {"path": str, "bytes": int, "mtime_ns": int, "sha256": str}


def require_types(raw: Any, without: Collection[str] = ()) -> None:
    """ValueError naming the field of a manifest, as JSON gave it, that is of another type, that is missing, or that
    nothing could write again; the fields `without` may hold any text."""
    _require(raw, _FIELDS, "it", without)
    _require_writable(raw, 0)
    for number, entry in enumerate(raw["inputs"]):
        _require(entry, _INPUT, f"inputs[{number}]")
    for number, entry in enumerate(raw["files"]):
        _require(entry, _FILE, f"files[{number}]", ("rows",))
        if not isinstance(entry.get("rows"), int | None) or entry["bytes"] < 0:
            raise ValueError(f"files[{number}] has rows or bytes that count nothing")
    sources = raw["records"].get("sources", [])
    if not isinstance(sources, list):
        raise ValueError("records.sources is no list")
    for number, entry in enumerate(sources):
        _require(entry, _SOURCE, f"records.sources[{number}]")


def _require(entry: Any, fields: dict[str, type], where: str, without: Collection[str] = ()) -> None:
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is no JSON object")
    for name, kind in fields.items():
        if not isinstance(entry.get(name), kind) or isinstance(entry[name], bool):
            raise ValueError(f"{where} has no {name}, or one that is no {kind.__name__}")
    unknown = sorted(set(entry) - set(fields) - set(without))
    if unknown:
        raise ValueError(f"{where} has an unknown field {unknown[0]}")
    if "\0" in entry.get("path", ""):
        raise ValueError(f"{where} has a path that names no file")


def _require_writable(value: Any, depth: int) -> None:
    """ValueError for text that UTF-8 can't write, and for what is nested too deep to be copied."""
    if depth > DEEPEST:
        raise ValueError(f"it is nested more than {DEEPEST} deep")
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, dict):
        for key, inner in value.items():
            key.encode()
            _require_writable(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _require_writable(inner, depth + 1)
