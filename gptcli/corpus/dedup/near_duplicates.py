"""Near-duplicates of a corpus: candidates by shared bands, decided component by component, in parallel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from gptcli.corpus.dedup.join import Groups, Ints, Mask, components, spread
from gptcli.corpus.dedup.stars import Limits, Task, Work, decide
from gptcli.corpus.dedup.verify import ReadTexts
from gptcli.records.ngrams import distinct, firsts
from gptcli.runtime.executor import map_ordered

_TASK_SHINGLES = 1 << 20  # at which a task is closed: 8 MB of shingle sets
_TASK_DOCUMENTS = 2048


@dataclass(frozen=True)
class NearDuplicates:
    """Of every document, all in document order.

    representative: (documents,) the kept document in whose place it is removed, or itself where it is kept;
    similarity: (documents,) true Jaccard similarity with that document, 0 where it is kept;
    cluster: (documents,) the lowest number of its cluster. Clusters are the connected components of the compared pairs
    that reached the threshold; of a removed document, a kept candidate that is not its representative is compared
    too, unless it is in the cluster already. So of two kept documents in different clusters that share a band, the
    similarity is below the threshold, and no removed document is near both; except where `work` tells of cuts.
    """

    representative: Ints
    similarity: npt.NDArray[np.float32]
    cluster: Ints
    work: Work = field(default_factory=Work)

    @property
    def removed(self) -> Mask:
        gone: Mask = self.representative != np.arange(len(self.representative))
        return gone


def find_near_duplicates(
    groups: Groups,
    lengths: Ints,
    sizes: Ints,
    read_texts: ReadTexts,
    workers: int = 1,
    limits: Limits | None = None,
    settled: Mask | None = None,
    between: Callable[[int], None] = lambda documents: None,
) -> NearDuplicates:
    """Decide which of the documents that share a band are near-duplicates, and of which document.

    lengths: (documents,) by which the longest is kept; sizes: (documents,) number of shingles, as `shingle_hashes` of
    the text gives; read_texts: picklable, called with ascending document numbers; settled: (documents,) those of an
    earlier build, which are kept whatever comes; between: called with the number of documents decided, a task at a
    time. Of the same arguments the result is the same for any `workers`. Memory: about 40 bytes a document, the groups
    twice, and in each worker `limits.cache_bytes`.
    """
    result = NearDuplicates(
        np.arange(len(lengths), dtype=np.int64),
        np.zeros(len(lengths), dtype=np.float32),
        np.arange(len(lengths), dtype=np.int64),
    )
    settled = np.zeros(len(lengths), dtype=bool) if settled is None else settled
    decide_one = partial(decide, read_texts=read_texts, limits=limits or Limits())
    for decided in map_ordered(decide_one, tasks_of(groups, lengths, sizes, settled), workers):
        result.representative[decided.documents] = decided.representative
        result.similarity[decided.documents] = decided.similarity
        result.cluster[decided.documents] = decided.cluster
        result.work.add(decided.work)
        between(len(decided.documents))
    return result


def tasks_of(groups: Groups, lengths: Ints, sizes: Ints, settled: Mask) -> Iterator[Task]:
    """Cut the candidates into tasks of whole components, by the lowest document; the cut depends on these alone."""
    if not len(groups):
        return
    label = components(groups, len(lengths))
    of_group = label[groups.members[groups.offsets[:-1]]]
    order = np.argsort(of_group, kind="stable")
    involved = distinct(np.sort(groups.members))
    for first, last in _runs(label[involved], sizes[involved]):
        low, high = np.searchsorted(of_group[order], [first, last + 1])
        yield _task(groups, order[low:high], label, lengths, sizes, settled)


def _runs(labels: Ints, sizes: Ints) -> Iterator[tuple[int, int]]:
    """First and last component of each task, from the component and size of every document involved."""
    by_label = np.argsort(labels, kind="stable")
    ordered = labels[by_label]
    begins = np.flatnonzero(firsts(ordered))
    names = ordered[begins]
    documents = np.diff(np.append(begins, len(labels)))
    shingles = np.add.reduceat(sizes[by_label].astype(np.int64), begins)
    held_documents = held_shingles = begin = 0
    for place, (more_documents, more_shingles) in enumerate(zip(documents.tolist(), shingles.tolist(), strict=True)):
        held_documents, held_shingles = held_documents + more_documents, held_shingles + more_shingles
        if held_documents >= _TASK_DOCUMENTS or held_shingles >= _TASK_SHINGLES or place == len(names) - 1:
            yield int(names[begin]), int(names[place])
            held_documents, held_shingles, begin = 0, 0, place + 1


def _task(groups: Groups, chosen: Ints, label: Ints, lengths: Ints, sizes: Ints, settled: Mask) -> Task:
    """The groups `chosen`, with documents replaced by their places in the order they are taken."""
    counts = groups.offsets[chosen + 1] - groups.offsets[chosen]
    members = groups.members[spread(groups.offsets[chosen], counts)]
    documents, inverse = np.unique(members, return_inverse=True)
    order = np.lexsort((documents, -lengths[documents].astype(np.int64), ~settled[documents], label[documents]))
    place_of = np.empty(len(order), dtype=np.int64)
    place_of[order] = np.arange(len(order))
    places, of_group = place_of[inverse], np.repeat(np.arange(len(chosen)), counts)
    offsets = np.zeros(len(chosen) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    taken = documents[order]
    return Task(taken, sizes[taken], settled[taken], offsets, places[np.lexsort((places, of_group))])
