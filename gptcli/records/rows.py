"""Rows of a JSON file: one object a line, or the items of one JSON array; each with its line and byte range."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from gptcli.records.decoding import Characters
from gptcli.records.opening import BOMB, CORRUPT, TRUNCATED
from gptcli.records.pieces import EMPTY, TOO_LONG, ByteStream
from gptcli.records.text import LINE, Document, TextFile

MAX_ROW_CHARS = 1 << 27  # a longer row is read past and counted, where documents have no limit of their own
_ROW_SPARE = 1 << 20  # characters of a row beside its text
BROKEN_LIST = "broken_list"  # fault of a JSON array that stops being JSON: what follows can't be told apart

# Why a row is not to be kept; `Row.problem`, beside TOO_LONG and the faults of `opening`.
NOT_JSON = "not_json"
NOT_OBJECT = "not_object"

_DECODER = json.JSONDecoder(parse_constant=lambda name: None)  # NaN and Infinity, which JSON has not, become null


@dataclass(frozen=True)
class _Layout:
    """What stands around the values of a file that is not one value a line."""

    opening: re.Pattern[str]  # before the first
    between: re.Pattern[str]
    nothing: re.Pattern[str]  # in place of the first value, where there is none
    closed: re.Pattern[str]  # behind the last


_SPACE, _END = re.compile(r"\s*"), re.compile(r"\s*\Z")
_LAYOUTS = {
    "list": _Layout(re.compile(r"\s*\[\s*"), re.compile(r"\s*,\s*"), re.compile(r"\s*\[\s*\]"), re.compile(r"\s*\]")),
    "objects": _Layout(_SPACE, _SPACE, _END, _END),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One JSON object; with a `problem` it is to be counted under that name, and `value` is empty."""

    value: dict[str, Any]
    line: int  # from 1
    offset: int  # bytes into the decompressed file
    size: int  # bytes
    invalid_bytes: int = 0  # replaced by U+FFFD
    problem: str = ""


class RowFile:
    """The rows of one stream, in order, to be iterated once, in memory bounded by one row and one block.

    `form`: "rows", one object a line; "list", one JSON array of objects; "objects", objects over several lines each,
    one after the other. Blank lines are no rows. A row over `max_chars` characters is read past as TOO_LONG.
    `encoding`, `codec`, `start`, `fault` and what is raised: see `Characters`; a row that a TRUNCATED file ends in has
    that problem.
    """

    def __init__(
        self,
        stream: ByteStream,
        encoding: str = "utf-8",
        form: str = "rows",
        max_chars: int = MAX_ROW_CHARS,
        codec: str = "",
        start: int = 0,
    ) -> None:
        self._characters = Characters(stream, encoding, codec, start)
        self._layout = _LAYOUTS.get(form)
        self._lines = None if self._layout else TextFile(stream, LINE, encoding, max_chars, codec, start)
        self._max_chars = max_chars
        self._broken = False
        self._offset, self._line = -1, 1  # where the next item of an array is looked for; -1 until the BOM is known

    @property
    def fault(self) -> str:
        fault = self._characters.fault if self._lines is None else self._lines.fault
        return fault or (BROKEN_LIST if self._broken else "")

    def __iter__(self) -> Iterator[Row]:
        held: Row | None = None  # a row that is no JSON may be the one a truncated file ends in
        for row in self._rows():
            if held is not None:
                yield held
            held = row if row.problem == NOT_JSON else None
            if held is None:
                yield row
        if held is not None:
            yield replace(held, problem=self.fault) if self.fault in (TRUNCATED, BOMB) else held

    def _rows(self) -> Iterator[Row]:
        if self._layout is not None:
            yield from self._items(self._layout)
        for line in self._lines or ():
            if line.problem not in ("", EMPTY) or line.text.strip():
                yield _parse(line)

    def _items(self, layout: _Layout) -> Iterator[Row]:
        """The values of a layout; `buffer[at:]` is read and not yet given."""
        buffer, at, opened, wanted = "", 0, False, 0
        waiting: list[str] = []  # an item longer than the buffer is tried again at twice the length
        length = 0
        for text, final in chain(((text, False) for text in self._characters), [("", True)]):
            waiting.append(text)
            length += len(text)
            if length < wanted and not final:
                continue
            buffer, at, waiting = buffer[at:] + "".join(waiting), 0, []
            while (found := _next_item(buffer, at, layout.between if opened else layout.opening, final)) is not None:
                value, begin, end = found
                yield self._item(buffer[at:begin], buffer[begin:end], value)
                at, opened = end, True
            ended = (layout.closed if opened else layout.nothing).match(buffer, at)
            if ended and (final or ended.group().strip()):
                return
            length = len(buffer) - at
            if length > self._max_chars:
                break
            wanted = 2 * length
        self._broken = True
        problem = TOO_LONG if length > self._max_chars else NOT_JSON
        item = self._item("", buffer[at:].rstrip(), {})
        yield replace(item, problem=self.fault if self.fault in (CORRUPT, BOMB) else problem)

    def _item(self, before: str, text: str, value: Any) -> Row:
        """The next item's row; `before` stands between the last one and it."""
        if self._offset < 0:
            self._offset = self._characters.offset
        self._offset += self._characters.measure(before)
        line = self._line + before.count("\n")
        offset, size = self._offset, self._characters.measure(text)
        cleaned, invalid = self._characters.decoder.clean(text)
        self._offset, self._line = offset + size, line + text.count("\n")
        return _row(_DECODER.decode(cleaned) if invalid and value else value, line, offset, size, invalid)


def row_limit(max_chars: int) -> int:
    """Characters of the longest row read, given those of the longest document (0: no limit)."""
    return 2 * max_chars + _ROW_SPARE if max_chars else MAX_ROW_CHARS


def _next_item(buffer: str, at: int, before: re.Pattern[str], final: bool) -> tuple[Any, int, int] | None:
    """The next value behind `before`, where it begins and where it ends; None when there is none, or not yet."""
    start = before.match(buffer, at)
    if start is None:
        return None
    try:
        value, end = _DECODER.raw_decode(buffer, start.end())
    except (ValueError, RecursionError):
        return None
    # A number at the buffer's end may go on in the next block.
    return (value, start.end(), end) if final or buffer[end : end + 1] else None


def _parse(line: Document) -> Row:
    if line.problem:
        return Row({}, line.line, line.offset, line.size, problem=line.problem)
    try:
        value = _DECODER.decode(line.text)
    except (ValueError, RecursionError):  # a number of too many digits, or brackets too deep, are no row either
        return Row({}, line.line, line.offset, line.size, line.invalid_bytes, NOT_JSON)
    return _row(value, line.line, line.offset, line.size, line.invalid_bytes)


def _row(value: Any, line: int, offset: int, size: int, invalid_bytes: int) -> Row:
    if isinstance(value, dict):
        return Row(value, line, offset, size, invalid_bytes)
    return Row({}, line, offset, size, invalid_bytes, NOT_OBJECT)
