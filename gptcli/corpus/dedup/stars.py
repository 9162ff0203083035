"""Stars: a kept document and the near-duplicates that it stands for, each compared with it and found near.

Documents are taken in order (settled ones first, then the longest, then the lowest number). One that is not removed
yet is kept, and every candidate after it whose true Jaccard similarity with it reaches the threshold is removed. A
chain a ~ b ~ c never removes c for a's sake, as joining connected components would.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gptcli.corpus.dedup.join import Ints, Mask
from gptcli.corpus.dedup.verify import Floats, ReadTexts, ShingleSets, similarities

OPEN, KEPT, REMOVED = 0, 1, 2
_SLICE = 1 << 12  # members of one group that are looked at together
_LINK_SLICES = 16  # of the removed candidates, how many slices are looked at for a link
_LINK_MOST = 1 << 12  # and how many of them are compared, the likeliest first
_BATCH = 32  # candidates compared at once
_BATCH_SHINGLES = 1 << 20  # of them together


@dataclass(frozen=True)
class Limits:
    """threshold: Jaccard similarity of near-duplicates; patience: comparisons in a row that find nothing near, after
    which a document gives up on its further candidates; cache_bytes: shingle sets held by a worker."""

    threshold: float = 0.8
    patience: int = 64
    cache_bytes: int = 64 << 20


@dataclass
class Work:
    """What deciding took.

    compared: pairs whose similarity was computed; cut_documents: documents that gave up before their last candidate;
    cut_pairs: candidates they left uncompared, at most (one that shares several bands may be counted several times).
    """

    compared: int = 0
    cut_documents: int = 0
    cut_pairs: int = 0

    def add(self, other: Work) -> None:
        self.compared += other.compared
        self.cut_documents += other.cut_documents
        self.cut_pairs += other.cut_pairs


@dataclass(frozen=True)
class Task:
    """Some connected components of candidates, whole.

    documents: (n,) numbers, in the order they are taken; sizes: (n,) shingles of each, none 0; settled: (n,) those
    that are kept already; group g holds the places `members[offsets[g]:offsets[g + 1]]`, ascending.
    """

    documents: Ints
    sizes: Ints
    settled: Mask
    offsets: Ints
    members: Ints


@dataclass(frozen=True)
class Decided:
    """Of a task's documents: the number of the one kept in each one's place, their similarity (0: kept), and the
    lowest number of its cluster."""

    documents: Ints
    representative: Ints
    similarity: npt.NDArray[np.float32]
    cluster: Ints
    work: Work = field(default_factory=Work)


def decide(task: Task, read_texts: ReadTexts, limits: Limits) -> Decided:
    """Which of the task's documents are kept, and for which each other one is removed."""
    stars = _Stars(task, read_texts, limits)
    for place in range(len(task.documents)):
        if stars.state[place] != REMOVED:
            stars.state[place] = KEPT
            stars.count_cut(stars.claim(place) + stars.link(place))
    lowest = np.full(len(task.documents), np.iinfo(np.int64).max)
    np.minimum.at(lowest, stars.cluster, task.documents)
    representative = task.documents[stars.representative]
    return Decided(task.documents, representative, stars.similarity, lowest[stars.cluster], stars.work)


class _Stars:
    """The state of one task. Places are indices into the task's documents."""

    def __init__(self, task: Task, read_texts: ReadTexts, limits: Limits) -> None:
        self._task, self._limits = task, limits
        self._sets = ShingleSets(read_texts, task.documents, task.sizes, limits.cache_bytes)
        count = len(task.documents)
        self.state = np.where(task.settled, KEPT, OPEN).astype(np.int8)
        self.representative = np.arange(count, dtype=np.int64)
        self.similarity = np.zeros(count, dtype=np.float32)
        self.cluster = np.arange(count, dtype=np.int64)  # a place that stands for it
        self.work = Work()
        self._slots = np.argsort(task.members, kind="stable")  # where in `members` each place stands
        self._slot_begins = np.searchsorted(task.members[self._slots], np.arange(count + 1))

    def claim(self, center: int) -> int:
        """Remove the open candidates that are near the center; returns how many it left uncompared, at most.

        Only later places are open. It gives up after `patience` misses in a row, and after a slice of open candidates
        without a hit.
        """
        misses, cut = 0, 0
        for places, unseen in self._slices(center, later=True):
            waiting = self._possible(center, places, OPEN)
            found = False
            while len(waiting) and misses < self._limits.patience:
                batch = self._first_batch(waiting)
                waiting = waiting[len(batch) :]
                similarity = self._compare(center, batch)
                near = similarity >= self._limits.threshold
                self._remove(center, batch[near], similarity[near])
                hits = np.flatnonzero(near)
                found = found or len(hits) > 0
                misses = len(batch) - 1 - int(hits[-1]) if len(hits) else misses + len(batch)
            cut = len(waiting)
            idle = not found and bool((self.state[places] == OPEN).any())
            if idle or misses >= self._limits.patience:
                return cut + unseen
        return cut

    def link(self, center: int) -> int:
        """Join the center's cluster with those of removed candidates near it; returns how many it left, at most.

        One candidate of each other cluster is compared at a time: what is joined already needs no comparison. It gives
        up after `patience` misses.
        """
        slices = list(itertools.islice(self._slices(center, later=False), _LINK_SLICES))
        if not slices:
            return 0
        possible = self._possible(center, np.concatenate([places for places, _ in slices]), REMOVED)
        waiting, misses = possible[:_LINK_MOST], 0
        while misses < self._limits.patience:
            waiting = waiting[self.cluster[waiting] != self.cluster[center]]
            if not len(waiting):
                break
            firsts = np.sort(np.unique(self.cluster[waiting], return_index=True)[1])
            batch = self._first_batch(waiting[firsts])
            waiting = np.delete(waiting, firsts[: len(batch)])
            near = self._compare(center, batch) >= self._limits.threshold
            for place in batch[near]:
                self.cluster[self.cluster == self.cluster[place]] = self.cluster[center]
            misses += int((~near).sum())
        left = np.concatenate([waiting, possible[_LINK_MOST:]])
        return int((self.cluster[left] != self.cluster[center]).sum()) + slices[-1][1]

    def _slices(self, center: int, later: bool) -> Iterator[tuple[Ints, int]]:
        """Members of the center's groups, some of each group at a time, and how many are still to come.

        later: only places after the center's.
        """
        slots = self._slots[self._slot_begins[center] : self._slot_begins[center + 1]]
        groups = np.searchsorted(self._task.offsets, slots, side="right") - 1
        begins = slots + 1 if later else self._task.offsets[groups]
        ends = self._task.offsets[groups + 1]
        while (begins < ends).any():
            stops = np.minimum(ends, begins + _SLICE)
            spans = zip(begins.tolist(), stops.tolist(), strict=True)
            places = np.concatenate([self._task.members[low:high] for low, high in spans])
            begins = stops
            yield places, int((ends - begins).sum())

    def _possible(self, center: int, places: Ints, state: int) -> Ints:
        """Those in a state whose number of shingles lets them be near; most shared bands first, then next in order."""
        places = places[self.state[places] == state]
        size, sizes = self._task.sizes[center], self._task.sizes[places]
        fits = np.minimum(size, sizes) / np.maximum(size, sizes) >= self._limits.threshold
        places, shared = np.unique(places[fits], return_counts=True)
        return places[np.argsort(-shared, kind="stable")]

    def _first_batch(self, places: Ints) -> Ints:
        """As many as are compared at once: at least one."""
        batch = places[:_BATCH]
        return batch[: max(1, int(np.searchsorted(np.cumsum(self._task.sizes[batch]), _BATCH_SHINGLES)))]

    def _compare(self, center: int, places: Ints) -> Floats:
        self.work.compared += len(places)
        found = self._sets.get([center, *places.tolist()])
        return similarities(found[0], found[1:])

    def _remove(self, center: int, places: Ints, similarity: Floats) -> None:
        self.state[places] = REMOVED
        self.representative[places] = center
        self.similarity[places] = similarity
        self.cluster[places] = self.cluster[center]  # open until now, so in nobody's cluster

    def count_cut(self, pairs: int) -> None:
        self.work.cut_pairs += pairs
        self.work.cut_documents += pairs > 0
