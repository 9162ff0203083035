"""Which items a model may have met in training: those that share a 13-gram with its corpus (Brown et al. 2020, app. C).

An item is its prompt and its answer, one text. It is dirty when one of its 13-grams stands in the corpus, clean when
none does, and untold when it has fewer than 13 words, too few to tell. Words and n-grams are those of
records/ngrams.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from gptcli.artifacts.ngrams import NgramIndex
from gptcli.records.ngrams import NGRAM_WORDS, Hashes, combined, starts_within, words_of

_CHARS = 1 << 22  # of items hashed together


@dataclass(frozen=True)
class Overlap:
    """Of each item [N] its 13-grams, and how many of them the corpus has."""

    grams: npt.NDArray[np.int64]
    found: npt.NDArray[np.int64]

    @property
    def dirty(self) -> npt.NDArray[np.bool_]:
        return np.greater(self.found, 0)

    @property
    def untold(self) -> npt.NDArray[np.bool_]:
        return np.equal(self.grams, 0)

    @property
    def clean(self) -> npt.NDArray[np.bool_]:
        return ~self.dirty & ~self.untold


def item_text(prompt: str, answer: str) -> str:
    """What of an item is looked up."""
    return f"{prompt} {answer}"


def overlaps(texts: Sequence[str], indexes: Sequence[NgramIndex]) -> Overlap:
    """Hold items' texts against corpora; one sorted look-up in each serves them all."""
    ends = np.cumsum([len(text) + 1 for text in texts]) if texts else np.zeros(0, np.int64)
    cuts = [0, *(np.flatnonzero(np.diff(ends // _CHARS)) + 1).tolist(), len(texts)]
    hashes: list[Hashes] = []
    grams: list[npt.NDArray[np.int64]] = []
    for begin, end in pairwise(cuts):
        words, begins = words_of(texts[begin:end])
        hashes.append(combined(words, NGRAM_WORDS)[starts_within(begins, NGRAM_WORDS)])
        grams.append(np.maximum(np.diff(begins) - (NGRAM_WORDS - 1), 0))
    counts = np.concatenate([np.zeros(0, np.int64), *grams])
    wanted = np.concatenate([np.zeros(0, np.uint64), *hashes])
    known = np.zeros(len(wanted), np.bool_)
    for index in indexes:
        known |= index.contains(wanted)
    owners = np.repeat(np.arange(len(counts)), counts)
    return Overlap(counts, np.bincount(owners[known], minlength=len(counts)))


def figures_by_group(overlap: Overlap, scores: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """`NAME_clean` and `NAME_dirty`, the means of per-item scores over either group (left out where it is empty), and
    how many items are `clean`, `dirty` and `untold`; every list of scores [N] is in the items' order."""
    groups = {"clean": overlap.clean, "dirty": overlap.dirty}
    found: dict[str, float] = {}
    for name, values in scores.items():
        for group, mine in groups.items():
            if mine.any():
                chosen = np.asarray(values, np.float64)[mine]
                found[f"{name}_{group}"] = math.fsum(chosen.tolist()) / len(chosen)
    counts = {"clean": overlap.clean, "dirty": overlap.dirty, "untold": overlap.untold}
    return {**found, **{name: int(mask.sum()) for name, mask in counts.items()}}
