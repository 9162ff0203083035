"""95 % intervals of figures, by resampling the items (or documents) they were measured on.

The percentile bootstrap (Efron 1979): a figure computed again from items drawn with replacement, the middle 95 % of
what comes out. A mean of nothing but zeros and ones has Wilson's interval instead (1927), whatever the number of items:
its coverage is closer to 95 % than the bootstrap's wherever they differ (Brown, Cai, DasGupta 2001), and with no item
right, or every one, it still has a width, where resampling finds none.

Everything is a function of its arguments: the same values and seed give the same interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Interval = tuple[float, float]  # low, high

UNKNOWN: Interval = (math.nan, math.nan)
LEVEL = 0.95
RESAMPLES = 1000
MOST_GROUPS = 1 << 14  # of items that are drawn together, where there are more items than that
_DRAWS_AT_ONCE = 1 << 20


def bootstrap_mean(values: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """The interval of the mean of `values` [N]; NaN, NaN for fewer than two, or where one is NaN.

    Values that are all 0 or 1 have Wilson's interval, which reads neither `seed` nor `resamples`.
    """
    sample = np.asarray(values, np.float64)
    if len(sample) and np.isin(sample, (0.0, 1.0)).all():
        return wilson(int(sample.sum()), len(sample))
    return bootstrap_ratio(sample, np.ones_like(sample), seed=seed, resamples=resamples)


def bootstrap_ratio(
    numerators: ArrayLike, denominators: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """The interval of sum(numerators) / sum(denominators), both [N] by item: nats and bytes of documents, say.

    NaN, NaN for fewer than two items, or where a resample has no ratio (a NaN, denominators that are all 0).
    """
    columns = [np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)]
    if len(columns[0]) < 2:
        return UNKNOWN
    above, below = resampled_sums(columns, seed=seed, resamples=resamples)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _middle(above / below)


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], Mapping[str, float]],
    count: int,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Interval]:
    """The intervals of any figures of `count` items: `statistic` gets the numbers of the items drawn [count], some
    more than once, and gives the figures by name, the same ones each time. It is called `resamples` times.

    None at all for fewer than two items; NaN, NaN where a figure of a resample is not finite.
    """
    if count < 2:
        return {}
    draw = np.random.default_rng(seed)
    drawn = [statistic(draw.integers(0, count, count)) for _ in range(resamples)]
    return {name: _middle(np.array([figures[name] for figures in drawn], np.float64)) for name in drawn[0]}


def wilson(successes: int, count: int) -> Interval:
    """Wilson's score interval of a share, `successes` of `count`; NaN, NaN for a count of 0."""
    if not count:
        return UNKNOWN
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    share, spread = successes / count, z * z / count
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    # At the ends rounding alone would leave the share itself outside.
    return (0.0 if successes == 0 else middle - half, 1.0 if successes == count else middle + half)


def resampled_sums(
    columns: Sequence[NDArray[np.float64]], *, seed: int, resamples: int, most_groups: int = MOST_GROUPS
) -> NDArray[np.float64]:
    """Sums [columns, resamples] of each column [N] over N items drawn with replacement, the same in every column.

    More items than `most_groups` are drawn in that many groups, dealt at random and of one size but for one item: the
    sums vary as with single items (the variance within a relative standard error of sqrt(2 / groups), 1 % for
    MOST_GROUPS, which is less than a thousand resamples show), in bounded memory and time.
    """
    draw = np.random.default_rng(seed)
    parts = np.stack(columns, axis=1)
    if len(parts) > most_groups:
        starts = np.arange(most_groups) * len(parts) // most_groups
        parts = np.add.reduceat(parts[draw.permutation(len(parts))], starts, axis=0)
    count = len(parts)
    sums = np.empty((len(columns), resamples), np.float64)
    at_once = max(_DRAWS_AT_ONCE // count, 1)
    for first in range(0, resamples, at_once):
        drawn = draw.integers(0, count, (min(at_once, resamples - first), count))
        for number in range(len(columns)):
            sums[number, first : first + len(drawn)] = parts[:, number][drawn].sum(axis=1)
    return sums


def _middle(figures: NDArray[np.float64]) -> Interval:
    if not np.isfinite(figures).all():
        return UNKNOWN
    low, high = np.quantile(figures, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)
