"""Which documents share a band: a join by sort, one band at a time, in passes that fit a memory budget.

On disk a unit's band hashes are one raw file of little-endian uint64, band after band, so that one band of all units
is read without the others. Documents are numbered through all units, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gptcli.corpus.dedup.minhash import EMPTY
from gptcli.records.ngrams import Hashes, distinct, firsts, mixed, sorted_unique

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
ReadBand = Callable[[int], Iterable[Hashes]]

BUDGET_BYTES = 256 << 20
_SORT_BYTES = 32  # a document in a pass: hash and number, and the sorted copies of both


@dataclass(frozen=True)
class Groups:
    """Sets of documents that share a band: group g holds `members[offsets[g]:offsets[g + 1]]`, ascending, at least 2.

    No two groups are the same. Memory is 8 bytes a member: documents that are nobody's candidate take none.
    """

    offsets: Ints
    members: Ints

    def __len__(self) -> int:
        return len(self.offsets) - 1


def band_bytes(hashes: Hashes) -> bytes:
    """The file of a unit: of its (documents, bands) band hashes, band after band."""
    return np.ascontiguousarray(hashes.T, dtype="<u8").tobytes()


def band_reader(paths: Sequence[Path], counts: Sequence[int]) -> ReadBand:
    """A function that reads one band from the units' files; counts: documents of each unit."""

    def read(band: int) -> Iterator[Hashes]:
        for path, count in zip(paths, counts, strict=True):
            yield np.fromfile(path, dtype="<u8", count=count, offset=8 * band * count).astype(np.uint64, copy=False)

    return read


def candidate_groups(read_band: ReadBand, bands: int, eligible: Mask, budget_bytes: int = BUDGET_BYTES) -> Groups:
    """The groups of eligible documents that share a band hash, without repeats, by band and first member.

    read_band: of a band number the hashes of every document, in order, in pieces of any size (called once a pass);
    eligible: (documents,) bool, those that take part; a hash EMPTY never does. budget_bytes: what sorting may hold
    beside that and the result; smaller budgets read each band more often. The result does not depend on it.
    """
    passes = max(1, -(-int(eligible.sum()) * _SORT_BYTES // max(1, budget_bytes)))
    lengths: list[Ints] = []
    members: list[Ints] = []
    seen = np.empty(0, dtype=np.uint64)
    for band in range(bands):
        found = [_groups_of(*_chosen(read_band(band), eligible, part, passes)) for part in range(passes)]
        counts, documents = _by_first(np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found]))
        names = _names_of(counts, documents)
        fresh = ~_contains(seen, names)
        lengths.append(counts[fresh])
        members.append(documents[np.repeat(fresh, counts)])
        seen = sorted_unique([seen, np.sort(names[fresh])], in_runs=True)
    offsets = np.zeros(sum(len(counts) for counts in lengths) + 1, dtype=np.int64)
    np.cumsum(np.concatenate([np.empty(0, dtype=np.int64), *lengths]), out=offsets[1:])
    return Groups(offsets, np.concatenate([np.empty(0, dtype=np.int64), *members]))


def components(groups: Groups, documents: int) -> Ints:
    """The lowest document that each document is connected with through groups: (documents,) int64.

    Labels sink by hooking roots onto lower ones and halving paths (Shiloach and Vishkin 1982), a round at a time.
    """
    label = np.arange(documents, dtype=np.int64)
    counts = np.diff(groups.offsets)
    while True:
        held = label[groups.members]
        lowest = np.minimum.reduceat(held, groups.offsets[:-1]) if len(groups) else held
        target = np.repeat(lowest, counts)
        if (held == target).all():
            return label
        np.minimum.at(label, held, target)  # the roots; their documents follow by the jumps below
        while True:
            jumped = label[label]
            if (jumped == label).all():
                break
            label = jumped


def _chosen(pieces: Iterable[Hashes], eligible: Mask, part: int, passes: int) -> tuple[Hashes, Ints]:
    """The hashes of one pass, by range, and the numbers of their documents."""
    low = np.uint64(part * 2**64 // passes)
    high = np.uint64((part + 1) * 2**64 // passes - 1)
    hashes, numbers, begin = [np.empty(0, dtype=np.uint64)], [np.empty(0, dtype=np.int64)], 0
    for piece in pieces:
        chosen = eligible[begin : begin + len(piece)] & (piece >= low) & (piece <= high) & (piece != EMPTY)
        places = np.flatnonzero(chosen)
        hashes.append(piece[places])
        numbers.append(places + begin)
        begin += len(piece)
    if begin != len(eligible):
        raise ValueError(f"{begin} band hashes for {len(eligible)} documents")
    return np.concatenate(hashes), np.concatenate(numbers)


def _groups_of(hashes: Hashes, numbers: Ints) -> tuple[Ints, Ints]:
    """Lengths and members of the runs of equal hashes; numbers ascending. Only what repeats is sorted by document."""
    ordered = np.sort(hashes)
    repeated = distinct(ordered[~firsts(ordered)])
    del ordered
    chosen = _contains(repeated, hashes)
    hashes, numbers = hashes[chosen], numbers[chosen]
    order = np.argsort(hashes, kind="stable")  # documents stay ascending within a run
    hashes, numbers = hashes[order], numbers[order]
    begins = np.flatnonzero(firsts(hashes))
    return np.diff(np.append(begins, len(hashes))), numbers


def _by_first(counts: Ints, documents: Ints) -> tuple[Ints, Ints]:
    """Groups of one band by their first member: the order does not tell how many passes found them."""
    begins = np.cumsum(counts) - counts
    order = np.argsort(documents[begins]) if len(counts) else np.empty(0, dtype=np.int64)
    return counts[order], documents[spread(begins[order], counts[order])]


def spread(begins: Ints, counts: Ints) -> Ints:
    """The places begins[0], begins[0] + 1, … of every run, one run after the other."""
    shift = np.repeat(begins - (np.cumsum(counts) - counts), counts)
    places: Ints = np.arange(len(shift), dtype=np.int64) + shift
    return places


def _names_of(counts: Ints, documents: Ints) -> Hashes:
    """A 64-bit hash of each group's members, by which a group that a later band finds again is known."""
    if not len(counts):
        return np.empty(0, dtype=np.uint64)
    begins = np.cumsum(counts) - counts
    return mixed(np.add.reduceat(mixed(documents.astype(np.uint64) + np.uint64(1)), begins))


def _contains(ordered: npt.NDArray[Any], values: npt.NDArray[Any]) -> Mask:
    """Which values stand in the sorted unique array."""
    if not len(ordered):
        return np.zeros(len(values), dtype=bool)
    places = np.searchsorted(ordered, values)
    places[places == len(ordered)] = 0
    found: Mask = ordered[places] == values
    return found
