"""Steps from bytes to text that work piecemeal: what is settled comes out, what the next piece decides stays back."""

from __future__ import annotations

import codecs
from typing import Protocol

from gptcli.engines.engine import REPLACEMENT
from gptcli.errors import SpecError

EACH_BYTE = (
    "gptcli.each_byte"  # error handler: one U+FFFD for every byte that belongs to no character, as sentencepiece
)
MAXIMAL_PART = "replace"  # one for every truncated or impossible sequence (Unicode 15, 3.9, table 3-8), as Rust


def _each_byte(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return REPLACEMENT * (error.end - error.start), error.end


codecs.register_error(EACH_BYTE, _each_byte)


class TextStep(Protocol):
    """A rewriting of text: all that `feed` returns, with `finish`, is the rewriting of all that was fed."""

    def feed(self, text: str) -> str: ...

    def finish(self) -> str: ...


class Utf8:
    """Bytes to text, never part of a character; `errors` is EACH_BYTE or MAXIMAL_PART."""

    def __init__(self, errors: str) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors)

    def feed(self, data: bytes) -> str:
        return self._decoder.decode(data)

    def finish(self) -> str:
        """What the bytes held back are, if nothing follows."""
        return self._decoder.decode(b"", True)


class ReplaceText:
    """Every occurrence of `pattern` (not empty), leftmost first and apart from each other, becomes `content`."""

    def __init__(self, pattern: str, content: str) -> None:
        self._pattern, self._content = pattern, content
        self._held = ""

    def feed(self, text: str) -> str:
        if not text:
            return ""
        *whole, last = (self._held + text).split(self._pattern)
        settled = self._content.join([*whole, ""])
        keep = next(
            (size for size in range(min(len(self._pattern) - 1, len(last)), 0, -1) if self._begins(last, size)), 0
        )
        self._held = last[len(last) - keep :]
        return settled + last[: len(last) - keep]

    def finish(self) -> str:
        held, self._held = self._held, ""
        return held

    def _begins(self, text: str, size: int) -> bool:
        return self._pattern.startswith(text[len(text) - size :])


class StripStart:
    """Up to `count` of the character `content` go from the very beginning."""

    def __init__(self, content: str, count: int) -> None:
        self._content, self._left = content, count

    def feed(self, text: str) -> str:
        start = 0
        while self._left and start < len(text):
            if text[start] != self._content:
                self._left = 0
                break
            start, self._left = start + 1, self._left - 1
        return text[start:]

    def finish(self) -> str:
        return ""


def utf8(text: str) -> bytes:
    """`text` as UTF-8. Raises SpecError for a lone surrogate."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise SpecError(
            f"the text holds a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}",
            "text must be valid Unicode: decode the source with errors='replace'",
        ) from None
