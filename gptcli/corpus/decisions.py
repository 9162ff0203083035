"""The last pass's decisions: of all documents, in source order, which are kept, in which split, and how often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gptcli.artifacts.schemas import SPLITS
from gptcli.corpus.catalogue import Catalogue, Ints
from gptcli.corpus.cleaning import DOWN_SAMPLED, DUPLICATE

Flags = np.ndarray[Any, np.dtype[np.bool_]]
KEPT = 0  # in `Decision.reasons`


@dataclass
class Decision:
    """Of every document, in order. A document is kept where its reason is KEPT."""

    reasons: Ints  # number in `names`
    kept_id: Ints  # number of the document that stands in its place; -1: none does
    similarity: Ints  # with that document, of their shingles; 1 for equal texts
    splits: Ints  # number in SPLITS
    copies: Ints  # how often it is written
    names: list[str] = field(default_factory=lambda: [""])

    @property
    def kept(self) -> Flags:
        kept: Flags = self.reasons == KEPT
        return kept

    def leave_out(self, documents: Flags | Ints, reason: str) -> None:
        """Give documents, named by mask or by number, a reason."""
        if reason not in self.names:
            self.names.append(reason)
        self.reasons[documents] = self.names.index(reason)

    def count(self, reason: str) -> int:
        return int((self.reasons == self.names.index(reason)).sum()) if reason in self.names else 0


def begin(catalogue: Catalogue) -> Decision:
    """Everything kept, nothing placed."""
    count = len(catalogue)
    return Decision(
        reasons=np.zeros(count, dtype=np.int16),
        kept_id=np.full(count, -1, dtype=np.int64),
        similarity=np.zeros(count, dtype=np.float32),
        splits=np.zeros(count, dtype=np.int8),
        copies=np.ones(count, dtype=np.int16),
    )


def drop_duplicates(catalogue: Catalogue, decision: Decision) -> None:
    """Of equal texts the first that is kept stays."""
    numbers = np.flatnonzero(decision.kept)
    first = first_of(catalogue.hashes[numbers])
    again = first != np.arange(len(numbers))
    decision.kept_id[numbers[again]] = numbers[first[again]]
    decision.similarity[numbers[again]] = 1
    decision.leave_out(numbers[again], DUPLICATE)


def first_of(hashes: Ints) -> Ints:
    """For each of the (n, 2) hashes the number of the first that equals it."""
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))  # stable: equal hashes stay in source order
    ordered = hashes[order]
    fresh = np.ones(len(hashes), dtype=bool)
    fresh[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = np.empty(len(hashes), dtype=np.int64)
    first[order] = order[fresh][np.cumsum(fresh) - 1] if len(hashes) else order
    return first


def give_copies(catalogue: Catalogue, decision: Decision, weights: Ints) -> None:
    """How often each kept document is written: training documents by weight, the others once.

    weights: of each typed source. A document that stands for others counts with the highest weight among them all.
    """
    own = weights[catalogue.sources].astype(np.float64)
    highest = own.copy()
    gone = np.flatnonzero(decision.kept_id >= 0)
    np.maximum.at(highest, _stand_ins(decision.kept_id)[gone], own[gone])
    copies = copies_of(catalogue.hashes[:, 1], highest)
    decision.copies[:] = np.where(decision.splits == SPLITS.index("train"), copies, 1)
    decision.leave_out(decision.kept & (decision.copies == 0), DOWN_SAMPLED)


def _stand_ins(kept_id: Ints) -> Ints:
    """For each document the one that stands for it in the end, or itself."""
    stands = np.where(kept_id >= 0, kept_id, np.arange(len(kept_id)))
    while not np.array_equal(further := stands[stands], stands):
        stands = further
    return stands


def smallest_in(clusters: Ints, values: Ints) -> Ints:
    """For each document the smallest value in its cluster: it names the cluster, whatever the order of the sources."""
    order = np.argsort(clusters, kind="stable")
    edges = np.flatnonzero(np.diff(clusters[order], prepend=-1)) if len(order) else order
    smallest = np.minimum.reduceat(values[order], edges) if len(order) else values
    found = np.empty_like(values)
    found[order] = np.repeat(smallest, np.diff(edges, append=len(order)))
    return found


def split_of(names: Ints, val_share: float, test_share: float, seed: int) -> Ints:
    """The split (0 train, 1 val, 2 test) of 64-bit names: a document keeps it whatever else is read."""
    place = uniform(names, seed)
    splits = np.zeros(len(names), dtype=np.int8)
    splits[place < val_share + test_share] = SPLITS.index("test")
    splits[place < val_share] = SPLITS.index("val")
    return splits


def uniform(names: Ints, seed: int) -> Ints:
    """A number in [0, 1) of each 64-bit name.

    The seed is mixed in by the finaliser of SplitMix64 (Steele, Lea and Flood 2014), so that every seed holds out
    other documents.
    """
    with np.errstate(over="ignore"):
        value = names.astype(np.uint64) + np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        value ^= value >> np.uint64(31)
    return (value >> np.uint64(11)).astype(np.float64) / 2.0**53  # exact


def copies_of(names: Ints, weights: Ints) -> Ints:
    """How often each document is written: the weight, its fraction decided by the document's own hash."""
    whole = np.floor(weights)
    return (whole + (uniform(names, 1) < weights - whole)).astype(np.int16)


def percentiles(values: Ints, shares: Sequence[int] = (5, 25, 50, 75, 95)) -> dict[str, int]:
    """Whole numbers that stand in `values`; empty for none."""
    if not len(values):
        return {}
    found = np.percentile(values, shares, method="inverted_cdf")
    return {f"p{share}": int(value) for share, value in zip(shares, found, strict=True)}
