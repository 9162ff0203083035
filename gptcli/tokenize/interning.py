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

from gptcli.runtime.compiled import compiled
from gptcli.tokenize.chunks import Bytes, Offsets

Codes = npt.NDArray[np.int32]

_SLOTS = 1 << 14
_FULL = 0.5  # share of the slots in use at which their number doubles
_ARENA = 1 << 18  # bytes


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
        done = 0
        while True:
            done, self._count = _intern(
                data, starts, stops, codes, done, self._slots, self._arena, self._ends, self._count, self._multiplier
            )
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
    starts: Offsets,
    stops: Offsets,
    codes: Codes,
    done: int,
    slots: Any,
    arena: Bytes,
    ends: Offsets,
    count: int,
    multiplier: Any,
) -> tuple[int, int]:
    """Fill codes[done:] until all are, or there is no room for a new string: how far it came, and the new count."""
    mask = len(slots) - 1
    room = len(slots) // 2
    for number in range(done, len(starts)):
        start, length = starts[number], stops[number] - starts[number]
        key = np.uint64(0)
        if length <= 8:
            for place in range(length):
                key |= np.uint64(data[start + place]) << np.uint64(8 * place)
        else:
            for place in range(length):
                key = (key ^ np.uint64(data[start + place])) * multiplier
                key ^= key >> np.uint64(32)
        mixed = (key ^ np.uint64(length)) * multiplier
        slot = np.int64((mixed ^ (mixed >> np.uint64(32))) & np.uint64(mask))
        found = -1
        while slots[slot, 1] != 0:
            held = slots[slot, 1]
            if slots[slot, 0] == key and np.int64(held >> np.uint64(32)) == length:
                candidate = int(held & np.uint64(0xFFFFFFFF)) - 1
                same = True
                if length > 8:
                    copy = ends[candidate]
                    for place in range(length):
                        if arena[copy + place] != data[start + place]:
                            same = False
                            break
                if same:
                    found = candidate
                    break
            slot = (slot + 1) & mask
        if found < 0:
            if count >= room or ends[count] + length > len(arena):
                return number, count
            copy = ends[count]
            for place in range(length):
                arena[copy + place] = data[start + place]
            ends[count + 1] = copy + length
            slots[slot, 0] = key
            slots[slot, 1] = (np.uint64(length) << np.uint64(32)) | np.uint64(count + 1)
            found = count
            count += 1
        codes[number] = found
    return len(starts), count


@compiled
def _rehash(old: Any, new: Any, multiplier: Any) -> None:
    """Put the slots of a table into a larger, empty one."""
    mask = len(new) - 1
    for number in range(len(old)):
        if old[number, 1] == 0:
            continue
        length = old[number, 1] >> np.uint64(32)
        mixed = (old[number, 0] ^ length) * multiplier
        slot = np.int64((mixed ^ (mixed >> np.uint64(32))) & np.uint64(mask))
        while new[slot, 1] != 0:
            slot = (slot + 1) & mask
        new[slot, 0] = old[number, 0]
        new[slot, 1] = old[number, 1]
