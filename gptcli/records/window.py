"""Looking into a stream of bytes: a bounded buffer that can be searched, taken from, and skipped through."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from gptcli.records.pieces import Notes

_MOST_FAULTS = 1000  # told of one file: a hostile file may have a fault every few bytes


class Window:
    """What comes next of `blocks`; holds no more than was asked for with `fill`, and one block.

    `offset` counts the bytes taken or skipped so far, from the beginning of the stream.
    """

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks: Iterator[bytes] = iter(blocks)
        self._buffer = bytearray()
        self._at = 0
        self._ended = False
        self.offset = 0

    def fill(self, size: int) -> int:
        """Make `size` bytes visible where the stream has as many; returns how many are."""
        if (visible := len(self._buffer) - self._at) >= size or self._ended:
            return visible
        while len(self._buffer) - self._at < size and not self._ended:
            if self._at:
                del self._buffer[: self._at]
                self._at = 0
            block = next(self._blocks, None)
            if block is None:
                self._ended = True
            else:
                self._buffer += block
        return len(self._buffer) - self._at

    def peek(self, size: int, start: int = 0) -> bytes:
        """Up to `size` bytes from `start` on, fewer only at the stream's end; nothing is taken."""
        self.fill(start + size)
        return bytes(memoryview(self._buffer)[self._at + start : self._at + start + size])

    def take(self, size: int) -> bytes:
        """The next `size` bytes, fewer only at the stream's end."""
        data = self.peek(size)
        self._drop(len(data))
        return data

    def skip(self, size: int) -> int:
        """Pass over `size` bytes in constant memory; returns how many there were."""
        left = size
        while left and (visible := self.fill(1)):
            step = min(left, visible)
            self._drop(step)
            left -= step
        return size - left

    def match(self, pattern: re.Pattern[bytes], reach: int, start: int = 0) -> re.Match[bytes] | None:
        """The match of `pattern` (of at most `reach` bytes) that begins at `start`; nothing is taken."""
        visible = self.fill(start + reach)
        return pattern.match(self._buffer, self._at + start, self._at + min(start + reach, visible))

    def search(self, pattern: re.Pattern[bytes], start: int, end: int) -> re.Match[bytes] | None:
        """The first match within the bytes start … end from here."""
        visible = self.fill(end)
        return pattern.search(self._buffer, self._at + start, self._at + min(end, visible))

    def position(self, match: re.Match[bytes]) -> int:
        """Where a match of the last `match` or `search` begins, in bytes from here."""
        return match.start() - self._at

    def end(self, match: re.Match[bytes]) -> int:
        """Where a match of the last `match` or `search` ends, in bytes from here."""
        return match.end() - self._at

    def skip_to(self, pattern: re.Pattern[bytes], reach: int, limit: int | None = None) -> int:
        """Pass over bytes until a match of `pattern` (of at most `reach` bytes) begins, or `limit` bytes are passed,
        or the stream ends; returns how many were passed over. At least one is, so that a search makes headway."""
        passed = self.skip(1)
        while visible := self.fill(2 * reach):
            most = visible if limit is None else min(visible, limit - passed)
            if (match := pattern.search(self._buffer, self._at, self._at + visible)) is not None:
                step = min(self.position(match), most)
                self._drop(step)
                return passed + step
            # What stands within `reach` of the end may be the beginning of a match.
            step = most if self._ended or most < visible else max(1, visible - reach)
            self._drop(step)
            passed += step
            if limit is not None and passed >= limit:
                break
        return passed

    def _drop(self, size: int) -> None:
        self._at += size
        self.offset += size


def tell(notes: Notes, name: str, fault: str) -> None:
    """Note a fault of a file or member, each once, and of one file not more than a thousand in a row."""
    if (name, fault) in notes.faults[-3:]:
        return
    top = name.split("!", 1)[0]
    if len(notes.faults) >= _MOST_FAULTS and notes.faults[-_MOST_FAULTS][0].split("!", 1)[0] == top:
        return
    notes.faults.append((name, fault))
