"""Which characters get a piece of their own, and words without the others.

The rule is the trainer's: characters by falling count, until they make up the share asked for. It is applied here, to
all words counted, because the trainer may see fewer of them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gptcli.runtime.compiled import compiled
from gptcli.tokenize.encoding.chunks import Bytes, Offsets, text_bytes
from gptcli.tokenize.encoding.interning import Interner
from gptcli.tokenize.learning.counting import Counts, Flags, WordCounts, add_up

CODE_POINTS = 0x110000


def character_counts(words: WordCounts) -> Counts:
    """How often each code point stands in the text, int64 [CODE_POINTS]."""
    data, offsets = text_bytes(words.words)
    counts = np.zeros(CODE_POINTS, np.int64)
    _count_characters(data, offsets, words.counts, counts)
    return counts


def covering(counts: Counts, coverage: float) -> Flags:
    """The most frequent code points that make up a share `coverage` of all, as flags; of equal ones the lower first."""
    points = np.flatnonzero(counts)
    order = points[np.lexsort((points, -counts[points]))]
    before = np.cumsum(counts[order]) - counts[order]
    flags = np.zeros(CODE_POINTS, np.bool_)
    flags[order[before < coverage * counts.sum()]] = True
    return flags


def cut_at_uncovered(words: WordCounts, covered: Flags) -> WordCounts:
    """The same words parted at every character that is not covered, and without these."""
    data, offsets = text_bytes(words.words)
    room = 2 * len(words) + 1
    while True:
        starts, stops, rows = (np.empty(room, np.int64) for _ in range(3))
        found = _parts(data, offsets, covered, starts, stops, rows)
        if found <= room:
            break
        room = found
    interner = Interner()
    codes = interner.codes(data, starts[:found], stops[:found])
    counts = np.zeros(len(interner), np.int64)
    add_up(codes, words.counts[rows[:found]], counts)
    strings = interner.strings()
    order = pc.array_sort_indices(strings)
    return replace(words, words=strings.take(order), counts=counts[order.to_numpy()])


def with_characters(words: WordCounts, counts: Counts) -> WordCounts:
    """The words, and each code point that `counts` has and none of them holds as a word of its own."""
    missing = np.flatnonzero((counts > 0) & (character_counts(words) == 0))
    added = pa.array([chr(point).encode() for point in missing.tolist()], pa.large_binary())
    strings = pa.concat_arrays([words.words, added])
    order = pc.array_sort_indices(strings)
    return replace(
        words, words=strings.take(order), counts=np.concatenate([words.counts, counts[missing]])[order.to_numpy()]
    )


@compiled
def _point(data: Bytes, place: int) -> tuple[int, int]:
    """The code point that begins at `place`, and how many bytes it has."""
    byte = int(data[place])
    if byte < 0x80:
        return byte, 1
    size = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
    point = byte & (0x7F >> size)
    for further in range(1, size):
        point = point << 6 | int(data[place + further]) & 0x3F
    return point, size


@compiled
def _count_characters(data: Bytes, offsets: Offsets, weights: Counts, counts: Counts) -> None:
    for row in range(len(weights)):
        place = offsets[row]
        while place < offsets[row + 1]:
            point, size = _point(data, place)
            counts[point] += weights[row]
            place += size


@compiled
def _parts(data: Bytes, offsets: Offsets, covered: Flags, starts: Offsets, stops: Offsets, rows: Offsets) -> int:
    """Fill starts, stops and the numbers of the words, as far as they reach; returns how many parts there are."""
    found = 0
    for row in range(len(offsets) - 1):
        start = place = offsets[row]
        end = offsets[row + 1]
        while place <= end:
            point, size = _point(data, place) if place < end else (0, 1)
            if place == end or not covered[point]:
                if start < place:
                    if found < len(starts):
                        starts[found], stops[found], rows[found] = start, place, row
                    found += 1
                start = place + size
            place += size
    return found
