"""True Jaccard similarities of candidates, from shingle sets that are made again from the texts when asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from gptcli.corpus.dedup.join import Ints
from gptcli.corpus.dedup.shingles import shingle_hashes
from gptcli.records.ngrams import Hashes

Floats = npt.NDArray[np.float64]
ReadTexts = Callable[[Ints], Iterable[str]]  # of ascending document numbers, their texts in that order


def jaccard(left: Hashes, right: Hashes) -> float:
    """The Jaccard similarity of two sorted sets of hashes; 0 where one is empty."""
    return float(similarities(left, [right])[0]) if len(left) and len(right) else 0.0


def similarities(center: Hashes, others: Sequence[Hashes]) -> Floats:
    """The Jaccard similarity of the sorted set `center` with each of the other sets, none of them empty: (others,)."""
    if not others:
        return np.empty(0, dtype=np.float64)
    sizes = np.array([len(other) for other in others])
    together = np.concatenate(others)
    places = np.searchsorted(center, together)
    places[places == len(center)] = 0  # larger than all: compared with one it can't equal
    shared = np.add.reduceat(center[places] == together, np.cumsum(sizes) - sizes, dtype=np.int64)
    result: Floats = shared / (sizes + len(center) - shared)
    return result


class ShingleSets:
    """The shingle sets of some documents by their place among them; the least recently used give way.

    documents: (n,) their numbers; sizes: (n,) shingles of each; memory is `budget_bytes` and one request.
    """

    def __init__(self, read_texts: ReadTexts, documents: Ints, sizes: Ints, budget_bytes: int) -> None:
        self._read_texts = read_texts
        self._documents = documents
        self._budget = budget_bytes
        self._sets: OrderedDict[int, Hashes] = OrderedDict()
        self._bytes = 0
        if 8 * int(sizes.sum()) <= budget_bytes:  # all at once, in the order they are stored
            self._fetch(list(range(len(documents))))

    def get(self, places: Sequence[int]) -> list[Hashes]:
        """The sets at these places, in their order."""
        self._fetch([place for place in dict.fromkeys(places) if place not in self._sets])
        found = [self._sets[place] for place in places]
        for place in places:
            self._sets.move_to_end(place)
        while self._bytes > self._budget:
            _, gone = self._sets.popitem(last=False)
            self._bytes -= gone.nbytes
        return found

    def _fetch(self, places: list[int]) -> None:
        if not places:
            return
        wanted = np.array(places)[np.argsort(self._documents[places])]
        for place, text in zip(wanted.tolist(), self._read_texts(self._documents[wanted]), strict=True):
            shingles = shingle_hashes(text)
            self._sets[place] = shingles
            self._bytes += shingles.nbytes
