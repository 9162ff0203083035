"""Where a text may be cut so that its parts, encoded alone, give the tokens of the whole.

BPE merges two neighbours only into a piece of its vocabulary (Sennrich et al. 2016, arXiv 1508.07909). So nothing can
grow across two characters that stand side by side in no piece. Which pairs do is read off the vocabulary once: exactly
for two ASCII characters, by their neighbouring bytes and then a hash of the two characters for all others. A hash that
two pairs share only costs a cut.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gptcli.runtime.compiled import compiled, inlined, readonly
from gptcli.tokenize.encoding.chunks import Bytes, Offsets

APART, JOINED, LOOK = 0, 1, 2  # what a pair of bytes says of a cut between them

_PAIR_BITS = 20
_U64 = np.uint64
_ESCAPED = ("\u2581", "\ue000")  # characters that our own models, and sentencepiece's, write as others inside


@dataclass(frozen=True)
class CutTable:
    """`kinds`: uint8 [65536], APART, JOINED or LOOK at (last byte of one character) << 8 | (first byte of the next);
    `pairs`: uint8 [2**20], 1 at the hash of two characters that stand side by side in a piece."""

    kinds: npt.NDArray[np.uint8]
    pairs: npt.NDArray[np.uint8]

    @staticmethod
    def of(pieces: Iterable[bytes]) -> CutTable:
        """The table for a vocabulary, its pieces spelled as they stand in running text (UTF-8)."""
        table = np.zeros((256, 256), np.uint8)
        pairs = np.zeros(1 << _PAIR_BITS, np.uint8)
        spelled = list(pieces)
        ends = np.cumsum([0, *map(len, spelled)], dtype=np.int64)
        _mark(np.frombuffer(b"".join(spelled), np.uint8), ends, table, pairs)
        for character in _ESCAPED:  # never cut beside one: what stands there in the model is another character
            data = character.encode()
            table[:, data[0]] = np.where(table[:, data[0]] == APART, LOOK, table[:, data[0]])
            table[data[-1]] = np.where(table[data[-1]] == APART, LOOK, table[data[-1]])
        table[:, 0x80:0xC0] = JOINED  # never inside a character
        return CutTable(table.ravel(), pairs)

    @property
    def cuts_often(self) -> bool:
        """Whether some two letters of everyday text, or a letter and a space, may be parted."""
        return bool((self.kinds.reshape(256, 256)[0x20:0x7F, 0x20:0x7F] == APART).any())

    def bounds(self, data: Bytes, offsets: Offsets, start: int, bounds: Offsets) -> tuple[int, int]:
        """Fill `bounds` with part ends from byte `start` on, bounds[0] being `start`, until `data` or `bounds` ends.

        data: uint8, documents end to end; offsets: int64, len(documents)+1 bounds of them, from 0. A part lies within
        one document and is not empty. Returns the number of parts, and the byte where the last one ends.
        """
        return _bounds(readonly(data), readonly(offsets), start, bounds, self.kinds, self.pairs)


@compiled
def _mark(data: Bytes, ends: Offsets, table: Any, pairs: Any) -> None:
    """Enter every pair of neighbouring characters of the pieces that lie end to end in `data`."""
    for piece in range(len(ends) - 1):
        for place in range(ends[piece] + 1, ends[piece + 1]):
            if data[place] & 0xC0 == 0x80:
                continue
            left, right = _before(data, place), _after(data, place)
            is_ascii = left < 0x80 and right < 0x80
            table[data[place - 1], data[place]] = 1 if is_ascii else 2
            pairs[_hash(left, right)] = 1


@inlined
def _hash(left: Any, right: Any) -> int:
    mixed = np.uint64(left) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(right) * np.uint64(0xC2B2AE3D27D4EB4F)
    return int((mixed * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - _PAIR_BITS))


@inlined
def _before(data: Bytes, place: Any) -> Any:
    """The character that ends before `place`, its UTF-8 bytes as one little-endian number."""
    first = place - 1
    while data[first] & 0xC0 == 0x80:
        first -= 1
    return _packed(data, first, place)


@inlined
def _after(data: Bytes, place: Any) -> Any:
    """The character that begins at `place`, as `_before` gives it."""
    end = place + 1
    while end < len(data) and data[end] & 0xC0 == 0x80:
        end += 1
    return _packed(data, place, end)


@inlined
def _packed(data: Bytes, first: Any, end: Any) -> Any:
    found = 0
    for place in range(first, end):
        found |= int(data[place]) << (8 * (place - first))
    return found


@compiled
def _bounds(data: Bytes, offsets: Offsets, start: int, bounds: Offsets, table: Any, pairs: Any) -> tuple[int, int]:
    document = np.searchsorted(offsets, start, side="right")
    count, place = 0, start
    limit = min(len(data), start + len(bounds) - 1)  # so there is room, as no part is empty
    bounds[0] = start
    while place < limit:
        while offsets[document] <= place:
            document += 1
        end = offsets[document]
        last = _U64(data[_U64(place)])
        for after in range(_U64(place + 1), _U64(min(end, limit))):  # unsigned: no test for negative indices
            byte = _U64(data[after])
            kind = table[(last << _U64(8)) | byte]
            if kind == 2:
                kind = 0 if _is_apart(data, after, pairs) else 1
            bounds[count + 1] = after  # stays only if counted: a branch here would be guessed wrong at most cuts
            count += kind == 0
            last = byte
        if end > limit:
            break
        count += 1
        bounds[count] = place = end
    if count == 0 and start < len(data):  # one part fills all the room
        count = 1
        bounds[1] = _part_end(data, offsets[document], limit, table, pairs)
    return count, bounds[count]


@compiled
def _part_end(data: Bytes, end: int, place: int, table: Any, pairs: Any) -> int:
    """The first cut at or after `place`, or the document's `end`."""
    while place < end:
        kind = table[(np.int64(data[place - 1]) << 8) | data[place]]
        if kind != 1 and (kind == 0 or _is_apart(data, place, pairs)):
            break
        place += 1
    return place


@inlined
def _is_apart(data: Bytes, place: Any, pairs: Any) -> bool:
    left, right = _before(data, place), _after(data, place)
    if left == 0x8196E2 or right == 0x8196E2 or left == 0x8080EE or right == 0x8080EE:  # U+2581, U+E000
        return False
    return bool(pairs[_hash(left, right)] == 0)
