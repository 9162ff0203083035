"""The pieces a unigram model starts from: substrings of the counted words that are seen often.

The trainer's own way is a suffix array over the text, every word as often as it was counted: more than 5 GB and a
minute for 0.5 GB. Here substrings grow by one character a round, as long as both halves of a longer one were seen
often enough (the Apriori rule; Agrawal & Srikant 1994), over the distinct words alone, weighted by their counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from gptcli.runtime.compiled import compiled
from gptcli.tokenize.encoding.chunks import text_bytes
from gptcli.tokenize.learning.counting import WordCounts

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]

SEEDS = 1_000_000  # as many as the trainer itself would take
_LEAST = 2  # a seed is seen at least so often
_SPACE = 0x20
_FULL = 0.6


def seed_pieces(words: WordCounts, max_chars: int, most: int = SEEDS) -> Iterator[tuple[str, int]]:
    """Substrings of 2 to `max_chars` characters and how often each is seen: the `most` with the largest product of
    length and count, best first. One that is always followed by the same character is left out for the longer one."""
    points, word_ends, weights = _characters(words)
    codes = points.copy()
    kept: list[Ints] = [np.empty((0, 3), np.int64)]  # rows of score, place, length
    size = int(points.max(initial=0)) + 1
    before: Ints = np.empty(0, np.int64)
    rows: Ints = np.empty((0, 3), np.int64)
    for length in range(2, max_chars + 2):
        places, counts, parents = _grow(codes, points, word_ends, weights, length, size)
        if len(before):
            extended = counts == before[parents]
            whole = np.ones(len(before), np.bool_)
            whole[parents[extended]] = False
            kept = [_best(np.concatenate([*kept, rows[whole]]), most)]
        if length > max_chars or not len(places):
            break
        before, size = counts, len(counts)
        rows = np.stack([counts * length, places, np.full(len(places), length)], axis=1)
    for score, place, length in _in_order(kept[0], most).tolist():
        yield "".join(map(chr, points[place : place + length].tolist())), score // length


def _best(rows: Ints, most: int) -> Ints:
    """The rows of the `most` largest scores, and of all equal to the least of those."""
    if len(rows) <= most:
        return rows
    least = np.partition(rows[:, 0], len(rows) - most)[len(rows) - most]
    best: Ints = rows[rows[:, 0] >= least]
    return best


def _in_order(rows: Ints, most: int) -> Ints:
    """By falling score; ties by shorter length and earlier place."""
    ordered: Ints = rows[np.lexsort((rows[:, 1], rows[:, 2], -rows[:, 0]))[:most]]
    return ordered


def _characters(words: WordCounts) -> tuple[Numbers, Ints, Ints]:
    """Code points of all words end to end, int32; for each, where its word ends and how often it was seen."""
    data, offsets = text_bytes(words.words)
    points = np.frombuffer(data.tobytes().decode().encode("utf-32-le"), np.int32)
    begins = np.concatenate([[0], np.cumsum((data & 0xC0) != 0x80)])
    bounds = begins[offsets]
    lengths = np.diff(bounds)
    return points, np.repeat(bounds[1:], lengths), np.repeat(words.counts, lengths)


def _grow(
    codes: Numbers, points: Numbers, word_ends: Ints, weights: Ints, length: int, size: int
) -> tuple[Ints, Ints, Ints]:
    """Number the substrings of `length` in `codes`, which holds the numbers (below `size`) of those one shorter or
    -1: their first places, counts, and the numbers of their beginnings."""
    slots = 1 << max(16, int(4 * size).bit_length())
    while True:
        keys, values = np.full(slots, -1, np.int64), np.zeros(slots, np.int32)
        room = int(slots * _FULL)
        places, counts, parents = (np.empty(room, np.int64) for _ in range(3))
        counts[:] = 0
        found = _count_pairs(codes, points, word_ends, weights, length, size, keys, values, places, counts, parents)
        if found >= 0:
            break
        slots *= 4
    places, counts, parents = places[:found], counts[:found], parents[:found]
    often = counts >= _LEAST
    numbers = np.where(often, np.cumsum(often) - 1, -1).astype(np.int32)
    _renumber(codes, points, word_ends, length, size, keys, values, numbers)
    return places[often], counts[often], parents[often]


@compiled
def _count_pairs(
    codes: Numbers,
    points: Numbers,
    word_ends: Ints,
    weights: Ints,
    length: int,
    size: int,
    keys: Ints,
    values: Numbers,
    places: Ints,
    counts: Ints,
    parents: Ints,
) -> int:
    """Add up the weights of each pair of numbers side by side; how many pairs there are, or -1 for want of room."""
    mask, room, found = len(keys) - 1, len(places), 0
    for place in range(len(codes)):
        if not _goes_on(codes, points, word_ends, place, length):
            continue
        key = np.int64(codes[place]) * size + codes[place + 1]
        slot = _slot(keys, key, mask)
        if keys[slot] < 0:
            if found == room:
                return -1
            keys[slot], values[slot] = key, found
            places[found], parents[found] = place, codes[place]
            found += 1
        counts[values[slot]] += weights[place]
    return found


@compiled
def _renumber(
    codes: Numbers, points: Numbers, word_ends: Ints, length: int, size: int, keys: Ints, values: Numbers, numbers: Any
) -> None:
    """Put each longer substring's number, or -1, in the place of its beginning's."""
    mask = len(keys) - 1
    for place in range(len(codes)):
        if _goes_on(codes, points, word_ends, place, length):
            key = np.int64(codes[place]) * size + codes[place + 1]
            codes[place] = numbers[values[_slot(keys, key, mask)]]
        else:
            codes[place] = -1


@compiled
def _goes_on(codes: Numbers, points: Numbers, word_ends: Ints, place: int, length: int) -> bool:
    """Whether a substring of `length` may stand at `place`: spaces are alone, or one before the rest."""
    if codes[place] < 0 or place + length > word_ends[place] or codes[place + 1] < 0:
        return False
    return length == 2 or points[place + 1] != 0x20 or points[place + length - 1] == 0x20


@compiled
def _slot(keys: Ints, key: int, mask: int) -> int:
    """Where `key` stands, or the free slot where it belongs."""
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    slot = np.int64((mixed ^ (mixed >> np.uint64(32))) & np.uint64(mask))
    while keys[slot] >= 0 and keys[slot] != key:
        slot = (slot + 1) & mask
    return int(slot)
