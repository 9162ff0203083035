"""Rows of csv and tsv files: quotes, newlines inside them, names of columns; each row with its byte range."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass

from gptcli.records.decoding import Characters
from gptcli.records.opening import BOMB, CORRUPT
from gptcli.records.pieces import TOO_LONG, ByteStream
from gptcli.records.rows import MAX_ROW_CHARS

TAB = "\t"
EXTRA = "extra"  # the column of fields for which the header has no name


class _RowTooLong(Exception):
    """Raised through the csv reader by the lines it reads."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """The fields of one row; with a `problem` it is to be counted under that name, and has none."""

    fields: list[str]
    offset: int  # bytes into the decompressed file
    size: int  # bytes, without the newline at its end
    invalid_bytes: int = 0  # replaced by U+FFFD
    problem: str = ""


def delimiter_of(first_line: str, form: str) -> str:
    """What parts the fields: a tab in a "tsv" file; in a "csv" file a comma, or what its first line has instead."""
    if form == "tsv":
        return TAB
    return next((mark for mark in (",", ";", TAB) if mark in first_line), ",")


def column_names(header: list[str]) -> tuple[str, ...]:
    """A header's names, each once: an empty one is its number (from 1), a second "a" is "a.2"."""
    names: dict[str, None] = {}
    for number, field in enumerate(header, 1):
        name = wanted = field.strip() or str(number)
        times = 2
        while name in names:
            name, times = f"{wanted}.{times}", times + 1
        names[name] = None
    return tuple(names)


def named(columns: tuple[str, ...], fields: list[str]) -> dict[str, object]:
    """A row as columns: what it lacks is absent, what it has too much stands as a list under "extra".

    Without `columns` their names are "1", "2", ….
    """
    if not columns:
        return {str(number): field for number, field in enumerate(fields, 1)}
    found: dict[str, object] = dict(zip(columns, fields, strict=False))
    if len(fields) > len(columns):
        found[EXTRA if EXTRA not in found else f"{EXTRA}_fields"] = fields[len(columns) :]
    return found


class TableFile:
    """The rows of one table, in order, to be iterated once; lines without any field are no rows.

    csv (RFC 4180): a field that begins with a quote ends at the next quote that is not doubled; a quote elsewhere is
    itself. tsv (IANA text/tab-separated-values): quotes are characters like any other. A row over `max_chars`
    characters, among them one whose quote never closes, is read past as TOO_LONG; the line behind begins a new row.
    `delimiter` "": told by the form and first line. `encoding`, `codec`, `start`, `fault`, what is raised: see
    `Characters`.
    """

    def __init__(
        self,
        stream: ByteStream,
        form: str,
        encoding: str = "utf-8",
        max_chars: int = MAX_ROW_CHARS,
        codec: str = "",
        start: int = 0,
        delimiter: str = "",
    ) -> None:
        self._characters = Characters(stream, encoding, codec, start)
        self._form = form
        self._max_chars = max_chars
        self.delimiter = delimiter
        self._row: list[str] = []  # the lines of the row that is being read
        self._row_chars = self._row_bytes = 0
        self._too_long = False

    @property
    def fault(self) -> str:
        return self._characters.fault

    def __iter__(self) -> Iterator[TableRow]:
        held: TableRow | None = None  # the last row of a damaged stream can't be trusted
        for row in self._rows():
            if held is not None:
                yield held
            held = row
        if held is not None and self.fault in (CORRUPT, BOMB):
            held = TableRow([], held.offset, held.size, held.invalid_bytes, self.fault)
        if held is not None:
            yield held

    def _rows(self) -> Iterator[TableRow]:
        lines = self._lines()
        first = next(lines, None)
        if first is None:
            return
        self.delimiter = self.delimiter or delimiter_of(first, self._form)
        offset = self._characters.offset
        again = iter([first])
        parsed = self._parsed(again, lines)
        while True:
            self._row, self._row_chars, self._row_bytes, self._too_long = [], 0, 0, False
            fields = next(parsed, None)
            if fields is None:
                return
            row, offset = self._measured(fields, offset)
            if row.size or row.problem:
                yield row

    def _parsed(self, again: Iterator[str], lines: Iterator[str]) -> Iterator[list[str]]:
        """The fields of row after row; those of one that is too long are none."""
        if self.delimiter == TAB and self._form == "tsv":
            for line in self._counted(again, lines):
                yield [] if self._too_long else line.rstrip("\n").split(TAB)
            return
        csv.field_size_limit(max(csv.field_size_limit(), 4 * MAX_ROW_CHARS))  # rows have a limit of their own
        while True:
            try:
                reader = csv.reader(self._counted(again, lines), delimiter=self.delimiter)
                yield from reader
                return
            except (_RowTooLong, csv.Error):
                self._too_long = True
                yield []

    def _counted(self, again: Iterator[str], lines: Iterator[str]) -> Iterator[str]:
        """The lines, put down as part of the row they are read for."""
        for source in (again, lines):
            for line in source:
                self._row.append(line)
                self._row_chars += len(line)
                if self._row_chars > self._max_chars:
                    self._too_long = True
                    self._read_past(line, lines)
                    if self._form != "tsv":
                        raise _RowTooLong
                yield line

    def _read_past(self, line: str, lines: Iterator[str]) -> None:
        """Read to the end of a line that came without its newline; of what is let go the bytes are kept."""
        while not line.endswith("\n"):
            self._row_bytes += self._characters.measure("".join(self._row))
            self._row = []
            following = next(lines, None)
            if following is None:
                return
            line = following
            self._row = [line]

    def _measured(self, fields: list[str], offset: int) -> tuple[TableRow, int]:
        """The row at an offset, and where the next one begins."""
        text = "".join(self._row)
        body = text[:-1] if text.endswith("\n") else text
        size = self._row_bytes + self._characters.measure(body)
        end = offset + size + (self._characters.measure("\n") if len(text) > len(body) else 0)
        if self._too_long:
            return TableRow([], offset, size, 0, TOO_LONG), end
        invalid = self._characters.decoder.clean(body)[1]
        if invalid:
            fields = [self._characters.decoder.clean(field)[0] for field in fields]
        return TableRow(fields, offset, size, invalid), end

    def _lines(self) -> Iterator[str]:
        """Lines with their newline; one that is too long comes in parts, the last of them with the newline."""
        held: list[str] = []
        chars = 0
        for text in self._characters:
            lines = text.split("\n")
            last = lines.pop()
            for line in lines:
                if held:
                    line = "".join(held) + line
                    held = []
                chars = 0
                yield line + "\n"
            if last:
                held.append(last)
                chars += len(last)
            if chars > self._max_chars and held:
                yield "".join(held)
                held = []
        if held:
            yield "".join(held)
