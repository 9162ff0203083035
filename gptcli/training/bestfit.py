"""Best-fit decreasing in linear time: the loops behind packing's `bestfit`.

Lengths are small integers, at most seq_len, so nothing is compared: documents are sorted by counting, rows wait on a
stack for each room that they have left, and a tree of bits (64 below each) finds the next stack that isn't empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gptcli.runtime.compiled import compiled

_INT32 = 1 << 31  # documents that int32 can number

_LEVELS = 4  # of the tree of bits: 64⁴ rooms, more than the longest row has

# The place of the lowest bit set, by multiplication with a de Bruijn sequence.
_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
_BIT = np.zeros(64, np.int64)
for _place in range(64):
    _BIT[(int(_DE_BRUIJN) << _place & (1 << 64) - 1) >> 58] = _place


@dataclass(frozen=True)
class Places:
    """Where each piece goes.

    codes int64 [rows]: a row that is one whole piece as 4 · its first token's position + 2 where that begins a
    document + 1 where the document goes on; any other as -1 - its number. counts [packed rows]: the remainders in a
    row. documents [remainders]: whose they are, row behind row as in `codes`. state [2]: how many of them
    `write_places` has written, and the state of `_draw` as uint64.
    """

    codes: npt.NDArray[np.int64]
    counts: npt.NDArray[np.signedinteger]
    documents: npt.NDArray[np.signedinteger]
    state: npt.NDArray[np.uint64]


def place_best_fit(bounds: npt.NDArray[np.int64], seq_len: int, generator: np.random.Generator) -> Places:
    """Places for the documents with these bounds, int64 [documents + 1]; `generator` draws the order of what is
    alike, and of the rows."""
    state = np.array([0, generator.integers(0, 1 << 64, dtype=np.uint64)], np.uint64)
    index = np.int32 if len(bounds) < _INT32 else np.int64
    of_length = np.zeros(seq_len + 1, np.int64)
    whole = _count_lengths(bounds, seq_len, of_length)
    left = int(of_length.sum())
    items = np.empty((left, 2), index)
    _sort_by_length(bounds, seq_len, of_length, items, state)
    rows = np.empty((left, 2), index)  # at most; what stays untouched takes no memory
    used = _fill_rows(of_length, items, rows, _empty_tree(seq_len), np.full(seq_len + 1, -1, index))
    codes = np.empty(whole + used, np.int64)
    _list_rows(bounds, seq_len, whole, codes)
    generator.shuffle(codes)
    documents: Any = np.empty(left, index)
    _gather_rows(codes, rows, items, documents)
    return Places(codes, rows[:used, 0].copy(), documents, state)


@compiled
def _count_lengths(bounds: Any, seq_len: int, counts: Any) -> int:
    """Count the remainders by their length, none those of 0; the number of whole pieces."""
    whole = 0
    for document in range(len(bounds) - 1):
        length = bounds[document + 1] - bounds[document]
        pieces = length // seq_len
        whole += pieces
        counts[length - pieces * seq_len] += 1
    counts[0] = 0
    return whole


@compiled
def _draw(state: Any, choices: int) -> int:
    """A number from 0 to choices - 1 (SplitMix64, Steele et al. 2014)."""
    state[1] += np.uint64(0x9E3779B97F4A7C15)
    mixed = state[1]
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return int((mixed ^ (mixed >> np.uint64(31))) % np.uint64(choices))


@compiled
def _sort_by_length(bounds: Any, seq_len: int, counts: Any, items: Any, state: Any) -> None:
    """Into items[:, 0] the documents that leave a remainder: the longest first, each length's in a drawn order."""
    ends = np.empty(seq_len + 1, np.int64)
    filled = 0
    for length in range(seq_len, -1, -1):
        ends[length] = filled
        filled += counts[length]
    for document in range(len(bounds) - 1):
        length = (bounds[document + 1] - bounds[document]) % seq_len
        if length > 0:
            items[ends[length], 0] = document
            ends[length] += 1
    for length in range(1, seq_len):
        first = ends[length] - counts[length]
        for place in range(counts[length] - 1, 0, -1):
            other = _draw(state, place + 1)
            held = items[first + place, 0]
            items[first + place, 0] = items[first + other, 0]
            items[first + other, 0] = held


def _empty_tree(seq_len: int) -> npt.NDArray[np.uint64]:
    """Bits for the rooms 0 … seq_len, and above them, level by level, one for each word that has any. A spare word
    a level lets `_first_from` look one place beyond. uint64 [levels, words]."""
    return np.zeros((_LEVELS, (seq_len >> 6) + 2), np.uint64)


@compiled
def _put(tree: Any, room: int) -> None:
    for level in range(_LEVELS):
        word, bit = room >> 6, np.uint64(1) << np.uint64(room & 63)
        before = tree[level, word]
        tree[level, word] = before | bit
        if before != 0:
            return
        room = word


@compiled
def _take(tree: Any, room: int) -> None:
    for level in range(_LEVELS):
        word, bit = room >> 6, np.uint64(1) << np.uint64(room & 63)
        tree[level, word] &= ~bit
        if tree[level, word] != 0:
            return
        room = word


@compiled
def _lowest(bits: Any) -> int:
    return int(_BIT[((bits & (~bits + np.uint64(1))) * _DE_BRUIJN) >> np.uint64(58)])


@compiled
def _first_from(tree: Any, room: int) -> int:
    """The least room that is in the tree and not below `room`, or -1."""
    for level in range(_LEVELS):
        bits = tree[level, room >> 6] >> np.uint64(room & 63)
        if bits != 0:
            room += _lowest(bits)
            for below in range(level - 1, -1, -1):
                room = (room << 6) + _lowest(tree[below, room])
            return room
        room = (room >> 6) + 1
    return -1


@compiled
def _fill_rows(of_length: Any, items: Any, rows: Any, tree: Any, top: Any) -> int:
    """Put every item into the row with the least room for it, items[:, 1]: the number of rows.

    rows[:, 0] counts a row's items; rows[:, 1] is the row below it on the stack of those with the same room, whose
    uppermost is top[room].
    """
    used = item = 0
    seq_len = len(of_length) - 1
    for length in range(seq_len - 1, 0, -1):
        for _ in range(of_length[length]):
            room = _first_from(tree, length)
            if room < 0:
                row, room = used, seq_len
                used += 1
                rows[row, 0] = 0
            else:
                row = int(top[room])
                top[room] = rows[row, 1]
                if top[room] < 0:
                    _take(tree, room)
            rows[row, 0] += 1
            items[item, 1] = row
            item += 1
            room -= length
            if room > 0:
                rows[row, 1] = top[room]
                if top[room] < 0:
                    _put(tree, room)
                top[room] = row
    return used


@compiled
def _list_rows(bounds: Any, seq_len: int, whole: int, codes: Any) -> None:
    """Fill Places.codes, whole pieces first."""
    row = 0
    for document in range(len(bounds) - 1):
        first, end = bounds[document], bounds[document + 1]
        for start in range(first, end - seq_len + 1, seq_len):
            codes[row] = 4 * start + 2 * (start == first) + (start + seq_len < end)
            row += 1
    for row in range(whole, len(codes)):
        codes[row] = whole - row - 1


@compiled
def _gather_rows(codes: Any, rows: Any, items: Any, documents: Any) -> None:
    """Fill Places.documents; rows[:, 1] is overwritten."""
    filled = 0
    for place in range(len(codes)):
        if codes[place] < 0:
            row = -1 - codes[place]
            rows[row, 1] = filled
            filled += rows[row, 0]
    for item in range(len(items)):
        row = items[item, 1]
        documents[rows[row, 1]] = items[item, 0]
        rows[row, 1] += 1


@compiled
def write_places(
    bounds: Any,
    seq_len: int,
    codes: Any,
    counts: Any,
    documents: Any,
    state: Any,
    ends: Any,
    starts: Any,
    lengths: Any,
    continues: Any,
) -> tuple[int, int]:
    """Write the segments of the rows with these codes, the next of Places.codes; how many segments, and how many of
    them are the beginning of a document that goes on. ends int32 [rows + 1] and the segments' columns are written."""
    segments = cut = 0
    done = np.int64(state[0])
    for row in range(len(codes)):
        code = codes[row]
        if code >= 0:
            starts[segments], lengths[segments], continues[segments] = code >> 2, seq_len, code & 1
            cut += code & 3 == 3
            segments += 1
        else:
            for _ in range(counts[-1 - code]):
                starts[segments], lengths[segments] = documents[done], 0
                segments += 1
                done += 1
        ends[row + 1] = segments
    state[0] = done
    # Loops of their own: far reads that don't wait for each other.
    for segment in range(segments):
        if lengths[segment] == 0:
            first, end = bounds[starts[segment]], bounds[starts[segment] + 1]
            length = (end - first) % seq_len
            starts[segment], lengths[segment] = end - length, length
            continues[segment] = end - length > first  # begins inside it, until `_arrange` is done
    for row in range(len(codes)):
        if codes[row] < 0:
            _arrange(starts, lengths, continues, ends[row], ends[row + 1], state)
    return segments, cut


@compiled
def _arrange(starts: Any, lengths: Any, inside: Any, first: int, end: int, state: Any) -> None:
    """Put a row's segments into a drawn order, one that begins a document in front; then clear `inside`."""
    for place in range(end - 1, first, -1):
        _swap(starts, lengths, inside, place, first + _draw(state, place - first + 1))
    for place in range(first, end):
        if not inside[place]:
            _swap(starts, lengths, inside, place, first)
            break
    for place in range(first, end):
        inside[place] = 0


@compiled
def _swap(starts: Any, lengths: Any, inside: Any, a: int, b: int) -> None:
    starts[a], starts[b] = starts[b], starts[a]
    lengths[a], lengths[b] = lengths[b], lengths[a]
    inside[a], inside[b] = inside[b], inside[a]
