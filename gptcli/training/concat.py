"""Documents end to end, cut where a row is full: the loop behind packing's `concat`."""

from __future__ import annotations

from typing import Any

import numpy as np

from gptcli.runtime.compiled import compiled

_AHEAD = 1024  # documents looked up at once: far reads that don't wait for each other


@compiled
def write_end_to_end(
    bounds: Any,
    seq_len: int,
    rows: int,
    order: Any,
    state: Any,
    ends: Any,
    starts: Any,
    lengths: Any,
    continues: Any,
) -> tuple[int, int]:
    """Write the segments of the next rows, of which there must be so many; how many segments, and how many of them
    are the beginning of a document that goes on.

    bounds int64 [documents + 1]; order int64 [documents]; state int64 [2], kept between calls: how far it is in the
    order, and in that document. ends int32 [rows + 1] and the segments' columns are written.
    """
    place, taken = state[0], state[1]
    segments = cut = 0
    firsts, sizes = np.empty(_AHEAD, np.int64), np.empty(_AHEAD, np.int64)
    begin = end = place  # of the documents looked up
    for row in range(rows):
        room = seq_len
        while room > 0 and place < len(order):
            if place == end:
                begin, end = place, min(place + _AHEAD, len(order))
                for number in range(end - begin):
                    document = order[begin + number]
                    firsts[number] = bounds[document]
                    sizes[number] = bounds[document + 1] - bounds[document]
            first, left = firsts[place - begin], sizes[place - begin] - taken
            length = min(left, room)
            if length > 0:
                starts[segments], lengths[segments] = first + taken, length
                continues[segments] = left > length
                cut += taken == 0 and left > length
                segments += 1
            room -= length
            taken += length
            if length == left:
                place += 1
                taken = 0
        ends[row + 1] = segments
    state[0], state[1] = place, taken
    return segments, cut
