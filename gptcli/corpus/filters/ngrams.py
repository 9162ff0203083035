"""Repeated n-grams of words, found by hashing and sorting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gptcli.corpus.filters.words import WordTable

_BASE = np.uint64(0xD1342543DE82EF95)  # odd: rolling hashes modulo 2^64 lose no bits
_ROWS = 1 << 14
_NONE = np.zeros(0, np.intp)


@dataclass(frozen=True, eq=False)
class Repeats:
    """The n-grams of one size that stand in a text more than once.

    Positions are those of their first words. Of one n-gram the later occurrences stand side by side, in order.
    """

    words: WordTable
    size: int
    firsts: NDArray[np.intp]  # where each of them stands first: [distinct]
    later: NDArray[np.intp]  # where it stands again: [later]
    bounds: NDArray[np.intp]  # where in `later` each begins, and the end: [distinct + 1]

    def top_chars(self) -> int:
        """Characters, spaces between words included, of all occurrences of the most frequent n-gram.

        They may overlap. Among equally frequent n-grams it is the one that comes first; 0 where there is none at all.
        """
        most, position = 1, 0
        if len(self.words) < self.size:
            return 0
        if len(self.firsts):
            counts = self.bounds[1:] - self.bounds[:-1]
            again = counts.max()
            most, position = int(again) + 1, int(self.firsts[counts == again].min())
        ends = self.words.ends
        return (int(ends[position + self.size] - ends[position]) + self.size - 1) * most

    def duplicate_chars(self) -> int:
        """Characters of words in n-grams that were read before, each word counted once.

        The text is read from its start; behind an n-gram read before, reading goes on at the word after it, so the
        n-grams that overlap it are neither counted nor remembered (datatrove's reading of Rae et al. 2021, A1.1).
        """
        if not len(self.firsts):
            return 0
        order = self.later.argsort()
        firsts = np.repeat(self.firsts, self.bounds[1:] - self.bounds[:-1])[order]
        positions = self.later[order]
        chars = self.words.ends[positions + self.size] - self.words.ends[positions]
        passed_over = bytearray(len(self.words))
        inside = b"\1" * (self.size - 1)
        read: set[int] = set()  # n-grams, by their first place, which was passed over where a later one was not
        total = reached = 0
        for position, first, length in _rows(positions, firsts, chars):
            if position < reached:
                continue
            if passed_over[first] and first not in read:
                read.add(first)
                continue
            total += length
            reached = position + self.size
            passed_over[position + 1 : reached] = inside
        return total


def _rows(*columns: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Rows of three columns as Python's integers, which take five times the memory: a few at a time."""
    for start in range(0, len(columns[0]), _ROWS):
        yield from zip(*(column[start : start + _ROWS].tolist() for column in columns), strict=True)


def repeats(words: WordTable, sizes: range) -> Iterator[Repeats]:
    """The repeated n-grams of each size from 2 on that is in `sizes`, by ascending size.

    An n-gram can stand twice only where its first n - 1 words do, so each size looks only at what the one before found.
    A key holds a rolling hash in its high bits and its position in as many low bits as positions need, so that one sort
    of plain integers brings equal n-grams together, in their order.
    """
    bits = max(len(words), 1).bit_length()
    low = np.uint64((1 << bits) - 1)
    high = ~low
    # Past the end stand words that are equal to none, so an n-gram that runs over the end is equal to none either.
    hashes = np.concatenate((words.hashes, np.arange(1, sizes.stop, dtype=np.uint64) * _BASE))
    keys, ahead = words.hashes, hashes[1 : len(words) + 1]
    positions = np.arange(len(words), dtype=np.intp)
    firsts, later, bounds = _NONE, _NONE, np.zeros(1, np.intp)
    for size in range(2, sizes.stop):
        if len(keys):
            keys = keys & high
            keys *= _BASE
            keys += ahead if size == 2 else hashes[positions + (size - 1)]
            keys &= high
            keys |= positions.view(np.uint64)
            keys.sort()
            again = ((keys[1:] ^ keys[:-1]) <= low).nonzero()[0]  # places of keys that have an equal one behind them
            keys, positions, bounds = _grouped(keys, again, low)
            firsts, later = positions[: len(bounds) - 1], positions[len(bounds) - 1 :]
        if size in sizes:
            yield Repeats(words, size, firsts, later, bounds)


def _grouped(
    keys: NDArray[np.uint64], again: NDArray[np.intp], low: np.uint64
) -> tuple[NDArray[np.uint64], NDArray[np.intp], NDArray[np.intp]]:
    """The keys and positions of repeated n-grams, the first of each before all later ones; and `Repeats.bounds`."""
    if not len(again):
        return keys[:0], _NONE, np.zeros(1, np.intp)
    opens = np.ones(len(again) + 1, np.bool_)
    np.not_equal(again[1:], again[:-1] + 1, out=opens[1:-1])
    kept = np.concatenate((keys[again[opens[:-1]]], keys[again + 1]))
    return kept, (kept & low).view(np.intp), opens.nonzero()[0]
