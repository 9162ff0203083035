"""Rows to pieces: the text column told from the others, which are kept as JSON; and which columns a file has."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from gptcli.records.decoding import without_surrogates
from gptcli.records.pieces import Notes, Piece, ReadOptions
from gptcli.records.rows import NOT_JSON

NO_TEXT = "no_text"
NOT_STRING = "text_not_string"

_KEYS = 50  # keys told of a file without the text key
_ABSENT = object()
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


class Columns:
    """Makes the rows of one file or member pieces; notes its keys until a row has the text key.

    A key is a column's name, or a way through nested objects ("page.text"). Nothing is raised for a row without it.
    """

    def __init__(self, name: str, options: ReadOptions, notes: Notes) -> None:
        self._name = name
        self._options = options
        self._notes = notes
        self._found = name in notes.with_text

    def met(self, names: Iterable[str]) -> None:
        """Put down columns that the file has, in order, at most 50."""
        keys = self._notes.columns.setdefault(self._name, [])
        for name in names:
            if len(keys) >= _KEYS:
                return
            if name not in keys:
                keys.append(name)

    def piece(self, row: dict[str, Any], offset: int, size: int, invalid_bytes: int, member: str | None) -> Piece:
        """The row's document; where it has none, the reason."""
        key = self._options.text_key
        text = row[key] if key in row else _inside(row, key)
        if not self._found:
            self._note(row, text is not _ABSENT)
        if not isinstance(text, str):
            reason = NO_TEXT if text is _ABSENT else NOT_STRING
            return Piece("", offset, size, member, invalid_bytes, reason=f"bad_row:{reason}")
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        text, surrogates = without_surrogates(text)
        try:
            rest = self._rest(row)
            meta = _json(rest) if rest else None
        except RecursionError:
            return Piece("", offset, size, member, invalid_bytes, reason=f"bad_row:{NOT_JSON}")
        return Piece(text, offset, size, member, invalid_bytes + surrogates, meta)

    def _note(self, row: dict[str, Any], found: bool) -> None:
        if found:
            self._found = True
            self._notes.with_text.add(self._name)
            self._notes.columns.pop(self._name, None)
        elif len(self._notes.columns.get(self._name, ())) < _KEYS:
            self.met(name for key, value in row.items() for name in _names(key, value))

    def _rest(self, row: dict[str, Any]) -> dict[str, Any]:
        key, wanted = self._options.text_key, self._options.metadata
        if wanted is not None:
            found = ((name, row[name] if name in row else _inside(row, name)) for name in wanted)
            return {name: value for name, value in found if value is not _ABSENT}
        if key in row:
            return {name: value for name, value in row.items() if name != key}
        return _without(row, key.split("."))


def _names(key: str, value: Any) -> list[str]:
    """A column's name, and those of what stands right inside it."""
    return [key, *(f"{key}.{inner}" for inner in value)] if isinstance(value, dict) else [key]


def _inside(row: Any, key: str) -> Any:
    """The value at the end of a dotted way through nested objects, or `_ABSENT`."""
    if "." not in key:
        return _ABSENT
    for name in key.split("."):
        if not isinstance(row, dict) or name not in row:
            return _ABSENT
        row = row[name]
    return row


def _without(row: dict[str, Any], way: list[str]) -> dict[str, Any]:
    """A row without the value at the end of a way; an object that had nothing else goes too."""
    found = {name: value for name, value in row.items() if name != way[0]}
    if len(way) > 1 and (inner := _without(row[way[0]], way[1:])):
        return {name: inner if name == way[0] else found[name] for name in row}
    return found


def _json(value: dict[str, Any]) -> str:
    """Compact JSON that UTF-8 can hold; a number too large for a double (1e999) becomes null."""
    try:
        text = _ENCODER.encode(value)
    except ValueError:
        text = _ENCODER.encode(_finite(value))
    return without_surrogates(text)[0]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
