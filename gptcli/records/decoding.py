"""Bytes to text in bounded blocks: BOMs, invalid bytes and newlines dealt with, byte counts kept."""

from __future__ import annotations

import codecs
import re
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator

from gptcli.records.encodings import (
    AUTO,
    LONGEST_BOM,
    Detector,
    bom_of,
    is_single_byte,
    is_stateless,
    require_known,
)
from gptcli.records.pieces import ByteStream

_ESCAPED = re.compile("[\udc80-\udcff]")  # a byte that was none of its codec's, as `surrogateescape` holds it
_SURROGATE = re.compile("[\ud800-\udfff]")


class Decoder:
    """Bytes to text and back to a count of bytes, for one file.

    Invalid bytes stay visible as lone surrogates until `clean`, so that every piece of text still knows how many
    bytes it came from.
    """

    def __init__(self, codec: str, bom_bytes: int = 0) -> None:
        self.codec, self.bom_bytes = codec, bom_bytes
        wide = {"utf-16": 2, "utf-32": 4}.get(codec[:6], 0)
        self.unit = wide or 1  # bytes of an ASCII character
        self._single = codec == "latin-1" or (codec != "utf-8" and not wide and is_single_byte(codec))
        self._plain = is_stateless(codec)
        self._errors = {0: "surrogateescape", 2: "surrogatepass", 4: "replace"}[wide] if self._plain else "replace"
        self._stream = codecs.getincrementaldecoder(codec)(self._errors)
        self._exact = wide > 0 or self._single or codec == "utf-8"
        self.odd: list[tuple[int, int]] = []  # of the last block: (character, bytes that `width` does not know of)

    def feed(self, data: bytes, final: bool = False) -> str:
        """The text of the file's next bytes (without the BOM)."""
        if not self._exact:
            return self._measured(data, final)
        try:
            return self._stream.decode(data, final)
        except UnicodeDecodeError:  # UTF-16 that ends inside a character
            return (bytes(self._stream.getstate()[0]) + data).decode(self.codec, "replace")

    def _measured(self, data: bytes, final: bool) -> str:
        """As `feed`, for codecs in which text may have come from other bytes than it would be encoded to."""
        self.odd = []
        before = self._stream.getstate()
        if final and self._plain:  # Python's incremental decoders may lose a character behind an invalid last one
            raw = bytes(before[0]) + data
            text = raw.decode(self.codec, self._errors)
            if extra := len(raw) - self._width_of(text):
                self.odd.append((0, extra))
            return text
        text = self._stream.decode(data, final)
        if text.isascii() and self._plain and len(text) == len(data) and not before[0]:
            return text
        if self._plain:
            held = len(before[0]) if isinstance(before[0], bytes) else 0
            left = self._stream.getstate()[0]
            if self._width_of(text) == held + len(data) - len(left):
                return text
        self._stream.setstate(before)
        return self._byte_by_byte(data, final, len(before[0]))

    def _byte_by_byte(self, data: bytes, final: bool, held: int) -> str:
        """Bytes of every character, by feeding one byte at a time; slow, and only where it is needed."""
        parts: list[str] = []
        done, taken = 0, held
        for number in range(len(data) + 1):
            last = number == len(data)
            if last and not final:
                break
            part = self._stream.decode(data[number : number + 1], last)
            taken += not last
            if not part:
                continue
            left = 0 if last else len(self._stream.getstate()[0])
            if extra := taken - left - self._width_of(part):
                self.odd.append((done, extra))
            parts.append(part)
            done, taken = done + len(part), left
        return "".join(parts)

    def _width_of(self, text: str) -> int:
        if not self._plain:
            return len(text)
        try:
            return len(text.encode(self.codec, self._errors))
        except UnicodeEncodeError:  # a codec that can't encode what it decodes
            return len(text)

    def width(self, text: str) -> int:
        """The bytes `text` was decoded from, its newlines as they stand here."""
        if self._single or text.isascii():
            return len(text) * self.unit
        if self._exact:
            return len(text.encode(self.codec, "surrogatepass" if self.unit > 1 else self._errors))
        return self._width_of(text)

    def clean(self, text: str) -> tuple[str, int]:
        """The text with U+FFFD for what was invalid (one for each maximal subpart), and how many bytes were."""
        if self.codec == "latin-1" or text.isascii():
            return text, 0
        if not self._plain:
            return text, text.count("\ufffd")
        try:
            text.encode()
        except UnicodeEncodeError:
            if self.unit > 1:
                cleaned, count = _SURROGATE.subn("\ufffd", text)
                return cleaned, self.unit * count
            if self.codec != "utf-8":
                return _ESCAPED.subn("\ufffd", text)
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
    """The text of one stream in blocks: decoded, every newline (CRLF, CR) as \\n, lone surrogates for invalid bytes.

    A byte order mark wins, then `encoding` where it is not "auto", then the `charset` somebody declared where Python
    knows it, then detection (`encodings.detect`), for which no more than its sample is held back. `codec`: decided
    already. `start`: bytes into the file at which the stream begins; only at 0 is a byte order mark looked for.
    `measure` turns the text, piece by piece and in order, back into byte counts. `fault` is the stream's, once the
    iteration has ended. Raises SpecError as the stream does, and for an unknown encoding.
    """

    def __init__(
        self, stream: ByteStream, encoding: str = "utf-8", codec: str = "", start: int = 0, charset: str = ""
    ) -> None:
        self._stream = stream
        self._asked = codec or require_known(encoding)
        if self._asked == AUTO and charset:
            self._asked = _declared(charset)
        self._start = start
        self.decoder = Decoder("utf-8" if self._asked == AUTO else self._asked)
        self._collapsed: deque[int] = deque()  # where, in characters of the file, a newline was two characters
        self._odd: deque[tuple[int, int]] = deque()  # where bytes are more or fewer than `Decoder.width` knows
        self._measured = 0  # characters

    @property
    def fault(self) -> str:
        return self._stream.fault

    @property
    def offset(self) -> int:
        """Bytes into the file at which the text begins; known with the first block."""
        return self._start + self.decoder.bom_bytes

    def __iter__(self) -> Iterator[str]:
        done, held = 0, ""
        for block, final in self._decided():
            text = self.decoder.feed(block, final)
            odd = [(place + len(held), extra) for place, extra in self.decoder.odd]
            text = held + text
            held = "\r" if text.endswith("\r") and not final else ""  # its \n may begin the next block
            text = self._newlines(text[: len(text) - len(held)], done, odd)
            done += len(text)
            if text:
                yield text

    def _decided(self) -> Iterator[tuple[bytes, bool]]:
        """The blocks behind the BOM, the decoder chosen before each, and whether one is the end."""
        blocks = self._without_bom()
        if self._asked == AUTO and not self.decoder.bom_bytes:
            detector, held = Detector(), b""
            for block in blocks:
                if self.decoder.bom_bytes:  # a BOM was met
                    yield block, False
                    break
                detector.feed(block)
                if detector.codec:
                    self.decoder = Decoder(detector.codec)
                    yield held + block, False
                    held = b""
                    break
                if held or not block.isascii():
                    held += block
                else:
                    yield block, False
            if held:
                self.decoder = Decoder(detector.finish())
                yield held, False
        for block in blocks:
            yield block, False
        yield b"", True

    def _without_bom(self) -> Iterator[bytes]:
        """The file's blocks behind its BOM, which chooses the decoder; a block may be shorter than a BOM."""
        head, begun = b"", self._start > 0
        for block in self._stream:
            if begun:
                yield block
                continue
            head += block
            if len(head) >= LONGEST_BOM:
                begun = True
                yield self._behind_bom(head)
        if not begun:
            yield self._behind_bom(head)

    def _behind_bom(self, head: bytes) -> bytes:
        codec, size = bom_of(head)
        if codec:
            self.decoder = Decoder(codec, size)
        return head[size:]

    def measure(self, text: str) -> int:
        """The bytes behind the file's next characters, which are `text`; every character is to be measured once."""
        self._measured += len(text)
        size = len(text) * self.decoder.unit if text.isascii() else self.decoder.width(text)
        while self._collapsed and self._collapsed[0] < self._measured:
            self._collapsed.popleft()
            size += self.decoder.unit
        while self._odd and self._odd[0][0] < self._measured:
            size += self._odd.popleft()[1]
        return size

    def _newlines(self, text: str, done: int, odd: list[tuple[int, int]]) -> str:
        if "\r" not in text:
            self._odd.extend((done + place, extra) for place, extra in odd)
            return text
        pairs = [match.start() for match in re.finditer("\r\n", text)]
        self._collapsed.extend(done + start - number for number, start in enumerate(pairs))
        self._odd.extend((done + place - bisect_left(pairs, place), extra) for place, extra in odd)
        return text.replace("\r\n", "\n").replace("\r", "\n")


def _declared(charset: str) -> str:
    """A declared charset as a codec, or AUTO where Python has none of that name."""
    try:
        codecs.lookup(charset)
        return require_known(charset)
    except (LookupError, ValueError):
        return AUTO


def codec_of(stream: ByteStream, encoding: str) -> str:
    """The codec that `Characters` would read a stream from its beginning with; reads what it must of it."""
    asked, detector, head = require_known(encoding), Detector(), b""
    blocks = iter(stream)
    while len(head) < LONGEST_BOM and (block := next(blocks, b"")):
        head += block
    codec, _ = bom_of(head)
    if codec or asked != AUTO:
        return codec or asked
    detector.feed(head)
    while not detector.codec and (block := next(blocks, b"")):
        detector.feed(block)
    return detector.finish()
