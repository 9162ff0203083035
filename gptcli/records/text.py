"""Documents of a text file: cut at a separator, each with its line and byte range."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from gptcli.records.decoding import Characters
from gptcli.records.opening import BOMB, CORRUPT
from gptcli.records.pieces import EMPTY, TOO_LONG, ByteStream

REACH = 4096  # characters: the longest match of a separator, its look-behind included
_LONG_RUN = 1 << 16  # characters: a longer run of blank lines is let go before its end is seen

# Lines of no length are no documents, so a run of newlines is one separator (`\n{1,1024}` is searched 20 times slower).
LINE = re.compile(r"\n\n{0,1023}")
SEPARATORS: dict[str, re.Pattern[str] | None] = {
    "none": None,
    "line": LINE,
    "blank_lines": re.compile(r"\n[ \t\n]*\n"),
    "<|endoftext|>": re.compile(r"\n?<\|endoftext\|>\n?"),
}

_DAMAGED = (CORRUPT, BOMB)  # faults with which the last piece can't be trusted


def separator_pattern(separator: str) -> re.Pattern[str] | None:
    """The pattern documents are cut at: a name of `SEPARATORS`, or a regular expression (^ and $ at every line).

    Newlines are \\n whatever the file has. Raises ValueError when the expression is broken or matches the empty
    string (it would cut between every two characters).
    """
    if separator in SEPARATORS:
        return SEPARATORS[separator]
    try:
        pattern = re.compile(separator, re.MULTILINE)
    except re.error as error:
        raise ValueError(f"is no valid regular expression: {error}") from error
    if pattern.search(""):
        raise ValueError("matches the empty string, so it would cut everywhere")
    return pattern


@dataclass(frozen=True, slots=True)
class Document:
    """One piece of a text file; with a `problem` it is to be counted under that name, and has no text."""

    text: str
    offset: int  # bytes into the decompressed file
    size: int  # bytes
    line: int  # of its first character, from 1
    invalid_bytes: int = 0  # replaced by U+FFFD
    problem: str = ""


class TextFile:
    """The documents of one text, in order, to be iterated once; memory is bounded by `max_chars` and one block.

    separator: None makes the whole file one document. Pieces of no length between two separators are no documents;
    an empty file gives one with the problem EMPTY. A piece over `max_chars` characters (0: no limit) is read past
    and given with the problem TOO_LONG. Where the compressed stream is CORRUPT (or a BOMB) the last piece is given with
    that problem; where it is cut off (TRUNCATED) the last piece is what there was of it. `encoding`, `codec`, `start`,
    `fault` and what is raised: see `Characters`.
    """

    def __init__(
        self,
        stream: ByteStream,
        separator: re.Pattern[str] | None = None,
        encoding: str = "utf-8",
        max_chars: int = 0,
        codec: str = "",
        start: int = 0,
    ) -> None:
        self._characters = Characters(stream, encoding, codec, start)
        self._separator = separator
        self._max_chars = max_chars
        self._offset = -1  # of the next document, in bytes; -1 until the BOM is known
        self._line = 1
        self._past_bytes = self._past_chars = self._past_lines = 0  # of the next document, read and let go

    @property
    def fault(self) -> str:
        return self._characters.fault

    def __iter__(self) -> Iterator[Document]:
        given = False
        for document in self._whole() if self._separator is None else self._pieces(self._separator):
            given = True
            yield document
        if not given:
            yield Document("", 0, 0, 1, problem=self.fault if self.fault in _DAMAGED else EMPTY)

    def _whole(self) -> Iterator[Document]:
        parts: list[str] = []
        held = 0
        for text in self._characters:
            parts.append(text)
            held += len(text)
            if self._max_chars and self._past_chars + held > self._max_chars:
                for part in parts:
                    self._let_go(part)
                parts, held = [], 0
        yield from self._document("".join(parts), "", last=True)

    def _pieces(self, separator: re.Pattern[str]) -> Iterator[Document]:
        """`buffer[begin:]` is read and not yet given; what stands before it is there for look-behind only."""
        buffer, begin, searched = "", 0, 0
        for text in self._characters:
            buffer += text
            safe = len(buffer) - REACH  # a match that ends behind this may yet grow
            for match in separator.finditer(buffer, searched):
                start, end = match.span()
                if end > safe:
                    searched = start
                    last_but_one = buffer.rfind("\n", start, end - 1) if end - start > _LONG_RUN else start
                    if last_but_one > start and separator is SEPARATORS["blank_lines"]:
                        # What is left of the run is a separator by itself, so the run needn't be held whole.
                        yield from self._document(buffer[begin:start], buffer[start:last_but_one])
                        begin = searched = last_but_one
                    break
                yield from self._document(buffer[begin:start], buffer[start:end])
                begin = searched = end
            else:
                searched = max(searched, safe)
            if self._max_chars and self._past_chars + searched - begin > self._max_chars:
                self._let_go(buffer[begin:searched])
                begin = searched
            drop = max(begin - REACH, 0)
            buffer, begin, searched = buffer[drop:], begin - drop, searched - drop
        for match in separator.finditer(buffer, searched):
            start, end = match.span()
            yield from self._document(buffer[begin:start], buffer[start:end])
            begin = end
        yield from self._document(buffer[begin:], "", last=True)

    def _let_go(self, text: str) -> None:
        self._past_bytes += self._characters.measure(text)
        self._past_chars += len(text)
        self._past_lines += text.count("\n")

    def _document(self, text: str, separator: str, last: bool = False) -> Iterator[Document]:
        """The next document, unless it has no length; moves on behind it and its separator."""
        if self._offset < 0:
            self._offset = self._characters.offset
        size = self._past_bytes + self._characters.measure(text)
        chars = self._past_chars + len(text)
        offset, line = self._offset, self._line
        self._offset += size + self._characters.measure(separator)
        self._line += self._past_lines + text.count("\n") + separator.count("\n")
        self._past_bytes = self._past_chars = self._past_lines = 0
        if not chars:
            return
        if last and self.fault in _DAMAGED:
            yield Document("", offset, size, line, problem=self.fault)
        elif self._max_chars and chars > self._max_chars:
            yield Document("", offset, size, line, problem=TOO_LONG)
        else:
            cleaned, invalid = self._characters.decoder.clean(text)
            yield Document(cleaned, offset, size, line, invalid)
