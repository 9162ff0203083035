"""Logistic regression on hashed words: trained on texts that are wanted and texts that aren't."""

from __future__ import annotations

import heapq
import io
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from gptcli.corpus.filters.hashed_words import BUCKETS, MOST_BYTES, features, is_empty
from gptcli.errors import ArtifactError, SpecError

MOST_DOCUMENTS = 5_000  # of either kind
FEWEST_DOCUMENTS = 20
_HELD_OUT = 5  # one in five
_BATCH = 256  # texts whose products are in memory at once
_STEPS = 60  # of L-BFGS
_MEMORY = 8  # pairs that L-BFGS keeps
_PENALTY = 0.1  # of the squared weights over two, for the whole sum of losses

Objective = Callable[[np.ndarray], tuple[float, np.ndarray]]


@dataclass(frozen=True)
class Weights:
    """One weight a bucket, float32 (262,144,), and the bias behind them; with what training found."""

    values: np.ndarray
    stats: dict[str, float]

    def score(self, text: str) -> float:
        """How likely the text is one of the wanted, 0 to 1; the bias alone where it has no word."""
        return 1 / (1 + math.exp(-min(max(self.margin(text), -50), 50)))

    def margin(self, text: str) -> float:
        """The logarithm of the odds."""
        buckets, values = features(text)
        return float((self.values[buckets] * values).sum() + self.values[-1])

    def to_bytes(self) -> bytes:
        """As .npy."""
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, self.values, version=(1, 0), allow_pickle=False)
        return buffer.getvalue()


def load_weights(path: Path) -> Weights:
    """What `to_bytes` wrote, without the figures of the training. ArtifactError where it is something else."""
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ArtifactError(f"{path}: no weights can be read ({error})", "run the stage with --force") from error
    if not isinstance(values, np.ndarray) or values.shape != (BUCKETS + 1,) or values.dtype != np.float32:
        raise ArtifactError(f"{path}: not the weights of a quality classifier", "run the stage with --force")
    return Weights(values, {})


def train(good: Iterable[str], bad: Iterable[str], seed: int = 0) -> Weights:
    """Weights that tell good texts from bad, and how well they do on a fifth of both that training never saw.

    Of more than 5,000 different texts of a kind those with the lowest hashes (with `seed`) are used, so the texts'
    order changes nothing. Both kinds weigh the same, however many they are. SpecError where a kind has under 20 texts.
    """
    kinds = [_sampled(texts, seed) for texts in (good, bad)]
    for name, texts in zip(("like", "unlike"), kinds, strict=True):
        if len(texts) < FEWEST_DOCUMENTS:
            raise SpecError(
                f"quality: {len(texts)} different documents in {name}; {FEWEST_DOCUMENTS} are the fewest to learn from",
                f"give quality.{name} more documents",
            )
    learning = [[text for place, text in enumerate(texts) if place % _HELD_OUT] for texts in kinds]
    unseen = [texts[::_HELD_OUT] for texts in kinds]
    learned = Weights(_fit(learning).astype(np.float32), {})
    margins = np.array([learned.margin(text) for texts in unseen for text in texts])
    wanted = np.repeat([True, False], [len(texts) for texts in unseen])
    stats = {
        "like": len(kinds[0]),
        "unlike": len(kinds[1]),
        "held_out": len(wanted),
        "accuracy": round(float(((margins > 0) == wanted).mean()), 4),
        "auc": round(auc(margins, wanted), 4),
    }
    return Weights(learned.values, stats)


def _sampled(texts: Iterable[str], seed: int) -> list[str]:
    """Different texts with a word in them, in the order of their hashes: the 5,000 lowest, their heads only."""
    heap: list[tuple[int, str]] = []  # the largest hash first
    seen: set[int] = set()
    for text in texts:
        head = text[:MOST_BYTES]
        key = -xxhash.xxh3_64_intdigest(head.encode("utf-8", "surrogatepass"), seed)
        if key in seen or is_empty(head):
            continue  # seen, or without a word
        if len(heap) < MOST_DOCUMENTS:
            heapq.heappush(heap, (key, head))
        elif key > heap[0][0]:
            seen.discard(heapq.heapreplace(heap, (key, head))[0])
        else:
            continue
        seen.add(key)
    return [head for _, head in sorted(heap, reverse=True)]


def auc(margins: np.ndarray, wanted: np.ndarray) -> float:
    """The share of pairs of a wanted and an unwanted one in which the wanted has the higher margin; ties are half."""
    _, places, counts = np.unique(margins, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    positive, negative = int(wanted.sum()), int((~wanted).sum())
    return float((ranks[wanted].sum() - positive * (positive + 1) / 2) / (positive * negative))


@dataclass(frozen=True)
class _Batch:
    """Some texts' features, one text behind the other; `starts` are their places, `signs` 1 (good) or -1 (bad)."""

    buckets: np.ndarray
    values: np.ndarray
    starts: np.ndarray
    signs: np.ndarray
    shares: np.ndarray  # what each text counts in the loss: both kinds sum to one half

    def add_loss(self, point: np.ndarray, gradient: np.ndarray) -> float:
        """The batch's part of the logistic loss at `point`; its gradient is added to `gradient`."""
        margins = np.add.reduceat(point[self.buckets] * self.values, self.starts) + point[-1]
        slopes = -self.shares * self.signs / (1 + np.exp(np.clip(self.signs * margins, -50, 50)))
        spread = np.repeat(slopes, np.diff(self.starts, append=len(self.buckets)))
        gradient[:-1] += np.bincount(self.buckets, weights=spread * self.values, minlength=BUCKETS)
        gradient[-1] += slopes.sum()
        return float((self.shares * np.logaddexp(0, -self.signs * margins)).sum())


def _batches(texts: list[str], sign: int) -> Iterator[_Batch]:
    for first in range(0, len(texts), _BATCH):
        rows = [features(text) for text in texts[first : first + _BATCH]]
        lengths = [len(buckets) for buckets, _ in rows]
        yield _Batch(
            np.concatenate([buckets for buckets, _ in rows]),
            np.concatenate([values for _, values in rows]),
            np.cumsum([0, *lengths[:-1]]),
            np.full(len(rows), sign),
            np.full(len(rows), 0.5 / len(texts)),
        )


def _fit(kinds: list[list[str]]) -> np.ndarray:
    """float64 (BUCKETS + 1,): where the mean logistic loss, both kinds weighing the same, and the penalty are least."""
    batches = [batch for texts, sign in zip(kinds, (1, -1), strict=True) for batch in _batches(texts, sign)]
    penalty = _PENALTY / sum(map(len, kinds))

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        gradient = penalty * point
        gradient[-1] = 0.0
        total = penalty / 2 * _dot(point[:-1], point[:-1])
        for batch in batches:
            total += batch.add_loss(point, gradient)
        return total, gradient

    return _minimum(loss, np.zeros(BUCKETS + 1))


def _minimum(objective: Objective, point: np.ndarray) -> np.ndarray:
    """L-BFGS (Nocedal 1980) with steps halved until the loss falls enough (Armijo)."""
    pairs: list[tuple[np.ndarray, np.ndarray, float]] = []
    loss, gradient = objective(point)
    for _ in range(_STEPS):
        direction = _direction(gradient, pairs)
        slope = _dot(direction, gradient)
        step = 1.0 if pairs else 1.0 / max(float(np.sqrt(_dot(gradient, gradient))), 1e-12)
        for _ in range(20):
            tried = point + step * direction
            new_loss, new_gradient = objective(tried)
            if new_loss <= loss + 1e-4 * step * slope:
                break
            step /= 2
        else:
            return point
        moved, turned = tried - point, new_gradient - gradient
        if (curvature := _dot(moved, turned)) > 1e-12:
            pairs = [*pairs[-_MEMORY + 1 :], (moved, turned, curvature)]
        small = loss - new_loss < 1e-6 * max(loss, 1e-12)
        point, loss, gradient = tried, new_loss, new_gradient
        if small:
            break
    return point


def _direction(gradient: np.ndarray, pairs: list[tuple[np.ndarray, np.ndarray, float]]) -> np.ndarray:
    """Down the slope as the kept pairs of moves and turns bend it."""
    direction = -gradient
    shares = []
    for moved, turned, curvature in reversed(pairs):
        share = _dot(moved, direction) / curvature
        direction -= share * turned
        shares.append(share)
    if pairs:
        _, turned, curvature = pairs[-1]
        direction *= curvature / _dot(turned, turned)
    for (moved, turned, curvature), share in zip(pairs, reversed(shares), strict=True):
        direction += (share - _dot(turned, direction) / curvature) * moved
    return direction


def _dot(first: np.ndarray, second: np.ndarray) -> float:
    """Without BLAS, whose sums hang on the number of threads."""
    return float((first * second).sum())
