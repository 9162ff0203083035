"""Figures of each document, from the same pass that makes a text's: what intervals and figures per source stand on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gptcli.artifacts.tokens import Bounds
from gptcli.scoring.intervals import Interval, bootstrap_ratio
from gptcli.scoring.language_modelling import TOP, TokenFigures, TokenScore, bits_per_byte

NATS, TOKENS, CORRECT, CORRECT_TOP5 = range(4)
OTHERS = "(others)"
_LARGEST = 700  # exp of more is no float


class DocumentSums:
    """A collector of what each document of a stream adds to its figures.

    `sums` fp64 [4, documents]: nats, predicted tokens, right ones, those among the first five. A predicted token
    belongs to the document it stands in, whatever it was predicted from. `bounds` as TokenStream.bounds has them.
    """

    confident = False

    def __init__(self, bounds: Bounds, sums: npt.NDArray[np.float64] | None = None) -> None:
        self.bounds = bounds
        self.sums = np.zeros((4, len(bounds) - 1)) if sums is None else sums

    def add(self, places: npt.NDArray[np.int64], figures: TokenFigures) -> None:
        if not len(places):
            return
        owners = np.searchsorted(self.bounds, places, side="right") - 1
        first = int(owners.min())
        owners -= first
        ranks = figures.ranks.numpy()
        for row, weights in enumerate((figures.nats.double().numpy(), None, ranks == 0, ranks < TOP)):
            found = np.bincount(owners, weights)
            self.sums[row, first : first + len(found)] += found

    @property
    def score(self) -> TokenScore:
        """The sum over all documents."""
        return total(self.sums)


def total(sums: npt.NDArray[np.float64]) -> TokenScore:
    """The score of documents' sums [4, N] together."""
    counts = sums[TOKENS:].sum(axis=1)
    return TokenScore(math.fsum(sums[NATS].tolist()), int(counts[0]), int(counts[1]), int(counts[2]))


def text_figures(score: TokenScore, text_bytes: int) -> dict[str, float]:
    """loss, perplexity, bits_per_byte (end-of-document tokens over the bytes of text too), accuracy, top5_accuracy and
    tokens of a score."""
    return {
        "loss": score.loss,
        "perplexity": score.perplexity,
        "bits_per_byte": bits_per_byte(score, text_bytes),
        "accuracy": score.accuracy,
        "top5_accuracy": score.top5_accuracy,
        "tokens": score.tokens,
    }


def word_perplexity(nats: float, words: int) -> float:
    """exp(nats / words); infinity where that exceeds a float, NaN where there are no words."""
    if not words:
        return math.nan
    return _exp(nats / words)


def text_intervals(
    sums: npt.NDArray[np.float64],
    document_bytes: npt.NDArray[np.int64],
    words: npt.NDArray[np.int64] | None = None,
    *,
    seed: int = 0,
) -> dict[str, Interval]:
    """95 % intervals of loss, perplexity, bits_per_byte, accuracy, top5_accuracy and, with each document's `words`,
    word_perplexity, by resampling documents; `sums` [4, N] of the N documents. A figure is the ratio of two sums over
    the documents drawn, as it is over all of them. Left out is what has none (fewer than two documents, say)."""
    nats, tokens = sums[NATS], sums[TOKENS]
    found = {
        "loss": bootstrap_ratio(nats, tokens, seed=seed),
        "bits_per_byte": bootstrap_ratio(nats / math.log(2), document_bytes, seed=seed),
        "accuracy": bootstrap_ratio(sums[CORRECT], tokens, seed=seed),
        "top5_accuracy": bootstrap_ratio(sums[CORRECT_TOP5], tokens, seed=seed),
    }
    found["perplexity"] = (_exp(found["loss"][0]), _exp(found["loss"][1]))
    if words is not None:
        low, high = bootstrap_ratio(nats, words, seed=seed)
        found["word_perplexity"] = (_exp(low), _exp(high))
    return {name: ends for name, ends in found.items() if all(map(math.isfinite, ends))}


def _exp(power: float) -> float:
    return math.inf if power > _LARGEST else math.exp(power)


@dataclass(frozen=True)
class Origins:
    """Where each document of a stream comes from (a path), and its words as white space parts them."""

    paths: Sequence[str]
    words: npt.NDArray[np.int64]


def per_source(
    sums: npt.NDArray[np.float64], document_bytes: npt.NDArray[np.int64], names: Sequence[str], at_most: int = 50
) -> list[dict[str, Any]]:
    """One row a source, those with most tokens first: source, documents, text_bytes and text_figures.

    `names`: each document's source. Beyond `at_most` rows the rest is one, `(others)`; the rows add up to the whole.
    """
    numbers: dict[str, int] = {}
    owners = np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)
    tokens = np.bincount(owners, sums[TOKENS], len(numbers))
    largest = sorted(numbers, key=lambda name: (-tokens[numbers[name]], name))
    shown = largest if len(largest) <= at_most else largest[: at_most - 1]
    rows = [_row(name, owners == numbers[name], sums, document_bytes) for name in shown]
    if len(shown) < len(largest):
        rest = ~np.isin(owners, [numbers[name] for name in shown])
        rows.append({**_row(OTHERS, rest, sums, document_bytes), "sources": len(largest) - len(shown)})
    return rows


def _row(
    name: str, mine: npt.NDArray[np.bool_], sums: npt.NDArray[np.float64], document_bytes: npt.NDArray[np.int64]
) -> dict[str, Any]:
    size = int(document_bytes[mine].sum())
    figures = text_figures(total(sums[:, mine]), size)
    return {"source": name, "documents": int(mine.sum()), "text_bytes": size, **figures}


def source_names(paths: Sequence[str]) -> list[str]:
    """Each document's source: the shortest leading part of its path by which not all documents are alike.

    Files of two folders are told apart by folder, those of one folder (or of python:stdlib) by what lies in it; where
    all paths are one, that is the name.
    """
    parts = {path: path.split("/") for path in Counter(paths)}
    depth, deepest = 1, max(map(len, parts.values()), default=1)
    while depth < deepest and len({tuple(each[:depth]) for each in parts.values()}) < 2:
        depth += 1
    names = {path: "/".join(each[:depth]) for path, each in parts.items()}
    return [names[path] for path in paths]
