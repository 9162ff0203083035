"""Where the bytes of a file can be cut so that its parts, read one by one, give what the whole gives."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol

from gptcli.records.pieces import ReadOptions
from gptcli.records.rows import row_limit
from gptcli.records.tables import delimiter_of

_STEP = 1 << 18  # bytes in which whole records are looked for at once, more where there are none
_NEAR = 1 << 6  # as many at least
OVERLAP = 1 << 12  # bytes searched again with what follows them; a boundary that is longer is no place to cut

# A newline is \n, \r\n, or a \r before something else. A cut is behind the match, and there is a byte behind the cut.
_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?=.)", re.DOTALL)
_BLANK_LINES = re.compile(rb"(?:\n|\r(?!\n))[ \t]*+(?:\r\n?|\n)(?=[ \t]*+[^ \t\r\n])")
_END_OF_TEXT = re.compile(rb"<\|endoftext\|>(?:\r\n|\n|\r(?!\n)|(?=[^\r\n]))(?=.)", re.DOTALL)
_NO_CONTENT = re.compile(rb"(?:\s|<\|endoftext\|>)*+")
_SEPARATOR = b"<|endoftext|>"
_PATTERNS = {"line": _LINE, "blank_lines": _BLANK_LINES, "<|endoftext|>": _END_OF_TEXT}


class CannotCutError(Exception):
    """From here on the file is to be read as one part."""


class Cutter(Protocol):
    def find(self, data: bytearray, wanted: int) -> int:
        """Where to cut, at `wanted` or later; 0: not in what there is yet. `data` grows from call to call until a
        cut is found, and then begins behind it. Raises CannotCutError."""


class PatternCutter:
    """Cuts behind a match of a pattern, wherever it stands."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self.pattern = pattern
        self._searched = 0

    def find(self, data: bytearray, wanted: int) -> int:
        begin = max(wanted, self._searched - OVERLAP)
        if begin < len(data) and (found := self.pattern.search(data, begin)):
            self._searched = 0
            return found.end()
        self._searched = len(data)
        return 0


class RecordCutter:
    """Cuts between the records of a csv file, by the rules of `tables.TableFile`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit  # bytes; of a longer record the reader may let go
        self._records: re.Pattern[bytes] | None = None
        self._whole = 0  # bytes of data up to which records are whole
        self._again = 0  # bytes of data with which to try again: a long record isn't searched at every block

    def find(self, data: bytearray, wanted: int) -> int:
        if self._records is None and not self._begin(data):
            return 0
        if len(data) < self._again:
            return 0
        step = 0
        while self._whole < wanted:
            step = step or min(_STEP, self._limit, max(_NEAR, wanted - self._whole))
            end = min(len(data), self._whole + step)
            found = self._scan(data, self._whole, end)
            if found > self._whole:
                self._whole, step = found, 0
            elif end == len(data):
                break
            elif step == self._limit:
                raise CannotCutError
            else:
                step = min(2 * step, self._limit)
        left = len(data) - self._whole
        if self._whole < wanted and left > self._limit:
            raise CannotCutError
        if self._whole < wanted or not left:
            self._again = self._whole + min(2 * left, self._limit + 1)
            return 0
        cut, self._whole, self._again = self._whole, 0, 0
        return cut

    def _begin(self, data: bytearray) -> bool:
        first = re.search(rb"[\r\n]", data)
        if first is None:
            if len(data) > self._limit:
                raise CannotCutError
            return False
        self._records = _records(delimiter_of(data[: first.start()].decode("latin-1"), "csv").encode())
        self._whole = 3 if data.startswith(b"\xef\xbb\xbf") else 0
        return True

    def _scan(self, data: bytearray, begin: int, end: int) -> int:
        """The end of the last whole record between `begin` and `end`, or `begin`."""
        quote = data.find(b'"', begin, end)
        plain = end if quote < 0 else quote
        newline = max(data.rfind(b"\n", begin, plain), data.rfind(b"\r", begin, min(plain, end - 1)))
        if newline >= 0:
            if data[newline : newline + 2] == b"\r\n":
                return newline + 2
            begin = newline + 1
        if quote >= 0 and self._records is not None and (found := self._records.match(data, begin, end)):
            return found.end()
        return begin


def _records(mark: bytes) -> re.Pattern[bytes]:
    """Whole records, as many as there are."""
    field = rb'(?:"[^"]*+(?:""[^"]*+)*+"[^%b\r\n]*+|(?!")[^%b\r\n]*+)' % (mark, mark)
    return re.compile(rb"(?:%b(?:%b%b)*+(?:\r\n|\n|\r(?=[^\n])))++" % (field, mark, field))


def pattern_of(form: str, options: ReadOptions) -> re.Pattern[bytes] | None:
    """What a file of lines or documents can be cut behind, wherever it stands; None: nothing is known of such."""
    if form in ("rows", "tsv"):
        return _LINE
    return _PATTERNS.get(options.separator) if form == "text" and not options.gutenberg else None


def cutter_of(form: str, options: ReadOptions) -> Cutter | None:
    """What finds the cuts of a file of a form; None where it can't be cut."""
    if form == "csv":
        return RecordCutter(row_limit(options.max_chars))
    pattern = pattern_of(form, options)
    return PatternCutter(pattern) if pattern else None


def has_content(blocks: Iterable[bytes]) -> bool:
    """Whether bytes hold more than newlines, blanks and separators."""
    left = b""
    for block in blocks:
        if not left and block.isspace():
            continue
        left += block
        found = _NO_CONTENT.match(left)
        left = left[found.end() :] if found else left
        if not _SEPARATOR.startswith(left):
            return True
    return bool(left)
