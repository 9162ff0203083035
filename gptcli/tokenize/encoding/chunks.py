"""Text columns as bytes and cuts: how training counts and encoding looks up the same short strings only once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]
Cuts = npt.NDArray[np.bool_]

STRETCH_BYTES = 16 << 20  # of a document
BATCH_BYTES = 4 << 20  # of text worked on at once: near the caches, and it bounds memory


def text_bytes(texts: Any) -> tuple[Bytes, Offsets]:
    """The UTF-8 bytes of a large_string array without nulls, end to end, and its len+1 offsets in them (no copy)."""
    _, offset_buffer, data_buffer = texts.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    if data_buffer is None or not len(texts):
        return np.empty(0, np.uint8), np.zeros(len(texts) + 1, np.int64)
    return np.frombuffer(data_buffer, np.uint8)[offsets[0] : offsets[-1]], offsets - offsets[0]


def slices(texts: Any, limit: int = BATCH_BYTES) -> Iterator[Any]:
    """Slices of a large_string array that hold at most `limit` bytes each, or one document that is larger."""
    _, offsets = text_bytes(texts)
    start = 0
    while start < len(texts):
        end = int(np.searchsorted(offsets, offsets[start] + limit, side="right")) - 1
        end = min(max(end, start + 1), len(texts))
        yield texts.slice(start, end - start)
        start = end


def stretches(data: Bytes, offsets: Offsets) -> Iterator[tuple[Bytes, Offsets]]:
    """A slice's texts as `text_bytes` gives them, as they are; one document that is larger than STRETCH_BYTES as
    several, so that what is made of its bytes takes bounded memory.

    It is parted before a space behind another character, where a word begins anyway, or, where no such place is near,
    between two characters.
    """
    begin = 0
    while len(offsets) == 2 and len(data) - begin > STRETCH_BYTES:
        end = begin + STRETCH_BYTES
        is_space = data[end - BATCH_BYTES : end] == ord(" ")
        words = np.flatnonzero(is_space[1:] & ~is_space[:-1])
        if len(words):
            end += int(words[-1]) + 1 - len(is_space)
        while data[end] & 0xC0 == 0x80:
            end -= 1
        yield data[begin:end], np.array([0, end - begin], np.int64)
        begin = end
    yield data[begin:], offsets if not begin else np.array([0, len(data) - begin], np.int64)


def starts_with(parts: Any, byte: bytes) -> Cuts:
    """Which strings of a large_binary array without nulls begin with one byte."""
    data, ends = text_bytes(parts)
    found = np.zeros(len(parts), np.bool_)
    with_text = np.flatnonzero(np.diff(ends))
    found[with_text] = data[ends[with_text]] == byte[0]
    return found


def flattened(lists: Iterable[list[int]]) -> tuple[Offsets, Offsets]:
    """Lists of ids end to end, int64, and their len+1 bounds."""
    held = list(lists)
    ends = np.zeros(len(held) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, held), np.int64, len(held)), out=ends[1:])
    return np.fromiter(chain.from_iterable(held), np.int64, int(ends[-1])), ends
