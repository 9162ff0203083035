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
def _hash(left: int, right: int) -> int:
    mixed = np.uint64(left) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(right) * np.uint64(0xC2B2AE3D27D4EB4F)
    return int((mixed * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - _PAIR_BITS))


@inlined
def _before(data: Bytes, place: int) -> int:
    """The character that ends before `place`, its UTF-8 bytes as one little-endian number."""
    first = place - 1
    while data[first] & 0xC0 == 0x80:
        first -= 1
    return _packed(data, first, place)


@inlined
def _after(data: Bytes, place: int) -> int:
    """The character that begins at `place`, as `_before` gives it."""
    end = place + 1
    while end < len(data) and data[end] & 0xC0 == 0x80:
        end += 1
    return _packed(data, place, end)


@inlined
def _packed(data: Bytes, first: int, end: int) -> int:
    found = 0
    for place in range(first, end):
        found |= int(data[place]) << (8 * (place - first))
    return found


@compiled
def _bounds(data: Bytes, offsets: Offsets, start: int, bounds: Offsets, table: Any, pairs: Any) -> tuple[int, int]:
    document = np.searchsorted(offsets, start, side="right")
    count, room = 0, len(bounds) - 1
    bounds[0] = place = start
    while place < len(data) and count < room:
        while offsets[document] <= place:
            document += 1
        end = offsets[document]
        last = np.uint64(data[place])
        place += 1
        while place < end:
            byte = np.uint64(data[place])
            kind = table[(last << np.uint64(8)) | byte]
            if kind != 1 and (kind == 0 or _is_apart(data, place, pairs)):
                break
            last = byte
            place += 1
        count += 1
        bounds[count] = place
    return count, place


@inlined
def _is_apart(data: Bytes, place: int, pairs: Any) -> bool:
    left, right = _before(data, place), _after(data, place)
    if left == 0x8196E2 or right == 0x8196E2 or left == 0x8080EE or right == 0x8080EE:  # U+2581, U+E000
        return False
    return bool(pairs[_hash(left, right)] == 0)
