"""Short byte strings, most of them repeated, each given a number when it is first seen.

One hash table with open addressing. A slot is two 64-bit words: the string itself where it has at most 8 bytes, else a
hash of it, and its length and number. So most look-ups touch one cache line, and only longer strings are compared
byte by byte with the copy kept of them. The hash's multiplier is drawn anew by every process: no text can be made to
collide on purpose, and since numbers are given in the order of appearance, none depends on it.
"""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gptcli.runtime.compiled import compiled, inlined, readonly
from gptcli.tokenize.encoding.chunks import Bytes, Offsets

Codes = npt.NDArray[np.int32]

_SLOTS = 1 << 14
_FULL = 0.5  # share of the slots in use at which their number doubles
_ARENA = 1 << 18  # bytes

_U64 = np.uint64
_ONES, _LOW = _U64(0xFFFFFFFFFFFFFFFF), _U64(0xFFFFFFFF)


class Interner:
    """Numbers byte strings from 0 in the order they first appear; holds one copy of each."""

    def __init__(self) -> None:
        self._multiplier = np.uint64(secrets.randbits(64) | 1)
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._slots = np.zeros((_SLOTS, 2), np.uint64)
        self._arena = np.empty(_ARENA, np.uint8)
        self._ends = np.zeros(_SLOTS + 1, np.int64)  # of the strings in the arena, after a first 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Bytes of all strings held, end to end."""
        return int(self._ends[self._count])

    def codes(self, data: Bytes, starts: Offsets, stops: Offsets) -> Codes:
        """The numbers of the strings data[starts[i]:stops[i]], int32 [len(starts)]; new ones are added."""
        codes = np.empty(len(starts), np.int32)
        words = np.ndarray(max(len(data) - 7, 0), "<u8", data, strides=(1,))  # eight bytes from every place on
        data, starts, stops = readonly(data), readonly(starts), readonly(stops)
        done = 0
        while True:
            done, self._count = _intern(
                data, words, starts, stops, codes, done, self._count,
                self._slots, self._arena, self._ends, self._multiplier,
            )  # fmt: skip
            if done == len(starts):
                return codes
            self._grow(int(stops[done] - starts[done]))

    def strings(self, first: int = 0) -> Any:
        """The strings numbered `first` and up, as a large_binary array over a copy of their bytes."""
        ends = self._ends[first : self._count + 1]
        data = self._arena[ends[0] : ends[-1]].copy()
        buffers = [None, pa.py_buffer(ends - ends[0]), pa.py_buffer(data)]
        return pa.Array.from_buffers(pa.large_binary(), len(ends) - 1, buffers)

    def _grow(self, needed: int) -> None:
        """Room for one more string of `needed` bytes, and for many more strings."""
        if self._count + 1 > _FULL * len(self._slots):
            slots = np.zeros((2 * len(self._slots), 2), np.uint64)
            _rehash(self._slots, slots, self._multiplier)
            self._slots = slots
            self._ends = np.concatenate([self._ends, np.zeros(len(slots) + 1 - len(self._ends), np.int64)])
        if self.nbytes + needed > len(self._arena):
            arena = np.empty(max(2 * len(self._arena), self.nbytes + needed), np.uint8)
            arena[: self.nbytes] = self._arena[: self.nbytes]
            self._arena = arena


@compiled
def _intern(
    data: Bytes,
    words: Any,
    starts: Offsets,
    stops: Offsets,
    codes: Codes,
    done: int,
    count: int,
    slots: Any,
    arena: Bytes,
    ends: Offsets,
    multiplier: Any,
) -> tuple[int, int]:
    """Fill codes[done:] until all are, or there is no room for a new string: how far it came, and the new count."""
    while True:
        done, key, slot = _find(data, words, starts, stops, codes, done, slots, arena, ends, multiplier)
        if done == len(starts):
            return done, count
        start, length = starts[done], stops[done] - starts[done]
        if count >= len(slots) // 2 or ends[count] + length > len(arena):
            return done, count
        arena[ends[count] : ends[count] + length] = data[start : start + length]
        ends[count + 1] = ends[count] + length
        count += 1
        slots[slot, 0], slots[slot, 1] = key, (_U64(length) << _U64(32)) | _U64(count)


@compiled
def _find(
    data: Bytes,
    words: Any,
    starts: Offsets,
    stops: Offsets,
    codes: Codes,
    done: int,
    slots: Any,
    arena: Bytes,
    ends: Offsets,
    multiplier: Any,
) -> tuple[int, Any, Any]:
    """Fill codes[done:] up to the first new string: its number, its key and the empty slot where it belongs.

    In one piece and in unsigned numbers, which is what makes it fast: a call counts references to its arrays, and an
    index that may be negative is tested every time.
    """
    mask, most = _U64(len(slots) - 1), _U64(len(words))
    key: Any = _U64(0)
    slot: Any = _U64(0)
    place: Any
    for number in range(done, len(starts)):
        start = _U64(starts[number])
        length = _U64(stops[number]) - start
        if length <= _U64(8) and start < most:
            key = words[start] & (_ONES >> (_U64(64) - _U64(8) * length)) if length else _U64(0)
        else:
            key = _U64(0)
            for place in range(_U64(0), length, _U64(8)):
                size = min(length - place, _U64(8))
                word = _U64(0)
                if start + place < most:
                    word = words[start + place] & (_ONES >> (_U64(64) - _U64(8) * size))
                else:  # near the end no eight bytes can be read at once
                    for byte in range(size):
                        word |= _U64(data[start + place + byte]) << (_U64(8) * byte)
                if length > _U64(8):
                    word = (key ^ word) * multiplier
                    word ^= word >> _U64(32)
                key = word
        mixed = (key ^ length) * multiplier
        slot = (mixed ^ (mixed >> _U64(32))) & mask
        held = slots[slot, 1]
        while held != _U64(0):
            if slots[slot, 0] == key and held >> _U64(32) == length:
                if length <= _U64(8):
                    break
                copy, place = _U64(ends[(held & _LOW) - _U64(1)]), _U64(0)
                while place < length and arena[copy + place] == data[start + place]:
                    place += _U64(1)
                if place == length:
                    break
            slot = (slot + _U64(1)) & mask
            held = slots[slot, 1]
        if held == _U64(0):
            return number, key, slot
        codes[number] = np.int32(np.int64(held & _LOW) - 1)
    return len(starts), key, slot


@inlined
def _home(key: Any, length: Any, multiplier: Any, mask: Any) -> Any:
    """The slot where a string is looked for first, as in `_find`."""
    mixed = (key ^ length) * multiplier
    return (mixed ^ (mixed >> _U64(32))) & mask


@compiled
def _rehash(old: Any, new: Any, multiplier: Any) -> None:
    """Put the slots of a table into a larger, empty one."""
    mask = _U64(len(new) - 1)
    for number in range(len(old)):
        if old[number, 1] == _U64(0):
            continue
        slot = _home(old[number, 0], old[number, 1] >> _U64(32), multiplier, mask)
        while new[slot, 1] != _U64(0):
            slot = (slot + _U64(1)) & mask
        new[slot, 0], new[slot, 1] = old[number, 0], old[number, 1]
