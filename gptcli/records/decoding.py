"""Bytes to text in bounded blocks: BOMs, invalid bytes and newlines dealt with, byte counts kept."""

from __future__ import annotations

import codecs
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from gptcli.errors import SpecError
from gptcli.records.opening import Blocks

ENCODINGS = ("utf-8", "latin-1")
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LONGEST_BOM = 3
_ESCAPED = re.compile("[\udc80-\udcff]")  # a byte that was no UTF-8, as `surrogateescape` holds it
_SURROGATE = re.compile("[\ud800-\udfff]")


class Decoder:
    """Bytes to text and back to a count of bytes, for one file.

    A BOM wins over the encoding asked for. Invalid bytes stay visible as lone surrogates until `clean`, so that
    every piece of text still knows how many bytes it came from.
    """

    def __init__(self, encoding: str, head: bytes = b"") -> None:
        self.codec, self.bom_bytes = encoding, 0
        for mark, codec in _BOMS:
            if head.startswith(mark):
                self.codec, self.bom_bytes = codec, len(mark)
        self.unit = 2 if self.codec.startswith("utf-16") else 1  # bytes of an ASCII character
        self._errors = "surrogatepass" if self.unit == 2 else "surrogateescape"
        self._stream = codecs.getincrementaldecoder(self.codec)(self._errors)

    def feed(self, data: bytes, final: bool = False) -> str:
        """The text of the file's next bytes (without the BOM)."""
        try:
            return self._stream.decode(data, final)
        except UnicodeDecodeError:  # UTF-16 that ends inside a character
            return (bytes(self._stream.getstate()[0]) + data).decode(self.codec, "replace")

    def width(self, text: str) -> int:
        """The bytes `text` was decoded from, its newlines as they stand here."""
        if self.codec == "latin-1" or text.isascii():
            return len(text) * self.unit
        return len(text.encode(self.codec, self._errors))

    def clean(self, text: str) -> tuple[str, int]:
        """The text with U+FFFD for what was invalid (one for each maximal subpart), and how many bytes were."""
        if self.codec == "latin-1" or text.isascii():
            return text, 0
        try:
            text.encode()
        except UnicodeEncodeError:
            if self.unit == 2:
                cleaned, count = _SURROGATE.subn("\ufffd", text)
                return cleaned, 2 * count
            return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"), len(_ESCAPED.findall(text))
        return text, 0


def without_surrogates(text: str) -> tuple[str, int]:
    """Text that UTF-8 can hold: lone surrogates (a JSON `\\ud800`) as U+FFFD, and how many there were."""
    if text.isascii():
        return text, 0
    try:
        text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.subn("\ufffd", text)
    return text, 0


class Characters:
    """The text of one file in blocks: decoded, every newline (CRLF, CR) as \\n, lone surrogates for invalid bytes.

    `measure` turns the text, piece by piece and in order, back into byte counts. `fault` is the file's, once the
    iteration has ended. Raises SpecError as `Blocks` does, and for an unknown encoding.
    """

    def __init__(self, path: Path, name: str, encoding: str = "utf-8") -> None:
        if encoding not in ENCODINGS:
            raise SpecError(f"unknown encoding {encoding}", f"choose one of {', '.join(ENCODINGS)}")
        self._blocks = Blocks(path, name)
        self._encoding = encoding
        self.decoder = Decoder(encoding)
        self._collapsed: deque[int] = deque()  # where, in characters of the file, a newline was two characters
        self._measured = 0  # characters

    @property
    def fault(self) -> str:
        return self._blocks.fault

    def __iter__(self) -> Iterator[str]:
        done, held = 0, ""
        for block in self._without_bom():
            text = held + self.decoder.feed(block)
            held = "\r" if text.endswith("\r") else ""  # its \n may begin the next block
            text = self._newlines(text[: len(text) - len(held)], done)
            done += len(text)
            if text:
                yield text
        text = self._newlines(held + self.decoder.feed(b"", final=True), done)
        if text:
            yield text

    def _without_bom(self) -> Iterator[bytes]:
        """The file's blocks behind its BOM, which chooses the decoder; a block may be shorter than a BOM."""
        head, begun = b"", False
        for block in self._blocks:
            if begun:
                yield block
                continue
            head += block
            if len(head) >= _LONGEST_BOM:
                begun = True
                self.decoder = Decoder(self._encoding, head)
                yield head[self.decoder.bom_bytes :]
        if not begun:
            self.decoder = Decoder(self._encoding, head)
            yield head[self.decoder.bom_bytes :]

    def measure(self, text: str) -> int:
        """The bytes behind the file's next characters, which are `text`; every character is to be measured once."""
        self._measured += len(text)
        size = self.decoder.width(text)
        while self._collapsed and self._collapsed[0] < self._measured:
            self._collapsed.popleft()
            size += self.decoder.unit
        return size

    def _newlines(self, text: str, done: int) -> str:
        if "\r" not in text:
            return text
        pairs = (match.start() for match in re.finditer("\r\n", text))
        self._collapsed.extend(done + start - number for number, start in enumerate(pairs))
        return text.replace("\r\n", "\n").replace("\r", "\n")
