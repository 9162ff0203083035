"""Whether two evaluations of the same items differ by more than chance: paired tests, item against item.

Zeros and ones: McNemar's test in its exact form, the binomial tail of the items on which just one is right (McNemar
1947). All other figures: the paired bootstrap (Berg-Kirkpatrick, Burkett, Klein 2012), two-sided: how often the
difference of resampled items lies at least as far from the observed difference as that lies from none.

The smallest effect is the true difference that a sample of this size and this spread shows with 80 % power at the
two-sided 5 % level (Card et al. 2020): a difference that is not significant below it says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gptcli.scoring.intervals import resampled_sums

LEVEL = 0.05
POWER = 0.8
RESAMPLES = 10_000
_GROUPS = 1 << 12  # what they add to a p-value's noise is less than that of 10,000 resamples

FIGURE_RESAMPLES = 1000  # of figures that are computed anew for each

Line = tuple[float, float]  # times, plus
AS_IT_IS: Line = (1.0, 0.0)

Column = NDArray[np.float64]
Figures = Callable[[NDArray[np.int64]], Column]


@dataclass(frozen=True)
class Paired:
    """One figure of two evaluations on the same items. `difference`: second less first; `p_value`: two-sided;
    `smallest_effect`: in the figure's unit (of a share, above 1: so few items show none). NaN where the items do not
    tell."""

    test: str  # mcnemar or paired_bootstrap
    items: int
    difference: float
    p_value: float
    smallest_effect: float


def paired_means(first: ArrayLike, second: ArrayLike, *, line: Line = AS_IT_IS, seed: int = 0) -> Paired:
    """Compare the means of two columns [N] whose rows are the same items: McNemar's test where all are 0 or 1."""
    before, after = np.asarray(first, np.float64), np.asarray(second, np.float64)
    is_binary = len(before) > 0 and all(np.isin(column, (0.0, 1.0)).all() for column in (before, after))
    if line != AS_IT_IS or not is_binary:
        ones = np.ones_like(before)
        return paired_ratios((before, ones), (after, ones), line=line, seed=seed)
    only_first, only_second = int((before > after).sum()), int((after > before).sum())
    count = len(before)
    return Paired(
        "mcnemar",
        count,
        (only_second - only_first) / count,
        mcnemar(only_first, only_second),
        # Below 6 items that all go one way the exact test says nothing, however little the sample spreads.
        max(_fewest_discordant() / count, _smallest_effect(after - before)),
    )


def paired_ratios(
    first: tuple[ArrayLike, ArrayLike],
    second: tuple[ArrayLike, ArrayLike],
    *,
    exponential: bool = False,
    line: Line = AS_IT_IS,
    seed: int = 0,
) -> Paired:
    """Compare sum(numerators) / sum(denominators) of two evaluations, each (numerators [N], denominators [N]) by the
    same items: nats and bytes of documents, say. `exponential`: exp of the ratios is compared, as of a perplexity. By
    paired bootstrap.

    With a `line` (times, plus) the second's figure is compared with times the first's, plus. The p-value is never
    below 2 / 2^N, what N items can say at most when each may have gone either way by chance: a handful of documents
    would else look certain.
    """
    columns = [np.asarray(column, np.float64) for column in (*first, *second)]
    count, unknown = len(columns[0]), math.nan
    nothing = Paired("paired_bootstrap", count, unknown, unknown, unknown)
    if not count or not all(np.isfinite(column).all() for column in columns):
        return nothing
    times, plus = line
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        whole = np.array([column.sum() for column in columns])[:, None]
        before, after = _figures(whole, exponential)
        difference = float((after - times * before - plus)[0])
        if not math.isfinite(difference):
            return nothing
        drawn = np.empty(0)
        if difference:
            sums = resampled_sums(columns, seed=seed, resamples=RESAMPLES, most_groups=_GROUPS)
            figures = _figures(sums, exponential)
            drawn = figures[1] - times * figures[0] - plus
    slopes = (times * before[0], after[0]) if exponential else (times, 1.0)
    influence = slopes[1] * _influence(columns[2], columns[3]) - slopes[0] * _influence(columns[0], columns[1])
    p_value = max(_share_beyond(drawn, difference), _lowest_p(count))
    return Paired("paired_bootstrap", count, difference, p_value, _smallest_effect(influence))


def paired_figures(first: Figures, second: Figures, count: int, *, seed: int = 0) -> list[Paired]:
    """Compare figures of any kind by paired bootstrap: `first` and `second` get the numbers of the items drawn [count]
    and give the figures [F] of their evaluation. Both are called FIGURE_RESAMPLES times."""
    whole = np.arange(count)
    differences = second(whole) - first(whole)
    draw = np.random.default_rng(seed)
    drawn = np.empty((FIGURE_RESAMPLES, len(differences)))
    for number in range(FIGURE_RESAMPLES):
        items = draw.integers(0, count, count)
        drawn[number] = second(items) - first(items)
    return [
        Paired(
            "paired_bootstrap",
            count,
            float(difference),
            max(_share_beyond(drawn[:, number], difference), _lowest_p(count)),
            _detectable(float(drawn[:, number].std(ddof=1))),
        )
        for number, difference in enumerate(differences.tolist())
    ]


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value of McNemar's test, from the numbers of items that only one of two gets right."""
    count, fewer = only_first + only_second, min(only_first, only_second)
    if only_first == only_second:
        return 1.0
    log_term = math.lgamma(count + 1) - math.lgamma(fewer + 1) - math.lgamma(count - fewer + 1) - count * math.log(2)
    tail = term = 1.0  # P(X ≤ fewer) over P(X = fewer), X binomial with p = 1/2
    for successes in range(fewer, 0, -1):
        term *= successes / (count - successes + 1)
        tail += term
        if term < 1e-17 * tail:
            break
    return min(2 * tail * math.exp(log_term), 1.0)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values of tests made at once, in the order given; NaN is no test and stays."""
    order = sorted((number for number, p in enumerate(p_values) if not math.isnan(p)), key=lambda n: p_values[n])
    adjusted = list(p_values)
    highest = 0.0
    for rank, number in enumerate(order):
        highest = max(highest, min((len(order) - rank) * p_values[number], 1.0))
        adjusted[number] = highest
    return adjusted


def _figures(sums: Column, exponential: bool) -> tuple[Column, Column]:
    """The two figures [R] from the sums [4, R] of their numerators and denominators."""
    first, second = sums[0] / sums[1], sums[2] / sums[3]
    return (np.exp(first), np.exp(second)) if exponential else (first, second)


def _share_beyond(drawn: Column, difference: float) -> float:
    """How often a resample's difference lies at least as far from the observed one as that lies from 0.

    A resample without a figure counts against a difference. The one added is the sample itself (Davison, Hinkley 1997,
    4.2): no p-value is 0.
    """
    if difference == 0:
        return 1.0
    beyond = ~(np.abs(drawn - difference) < abs(difference))
    return float(beyond.sum() + 1) / (len(drawn) + 1)


def _lowest_p(count: int) -> float:
    """What `count` items can say at most when each may have gone either way by chance."""
    return min(2.0 ** (1 - count), 1.0)


def _influence(above: Column, below: Column) -> Column:
    """Each item's share in the error of sum(above) / sum(below), to first order."""
    shares: Column = (above - above.sum() / below.sum() * below) / below.mean()
    return shares


def _smallest_effect(differences: Column) -> float:
    """Of a mean difference, from the items' own; NaN where they do not vary."""
    if len(differences) < 2:
        return math.nan
    return _detectable(float(differences.std(ddof=1)) / math.sqrt(len(differences)))


def _detectable(standard_error: float) -> float:
    """The true difference found with 80 % power at 5 %, two-sided; NaN where there is no error to go by."""
    normal = NormalDist()
    z = normal.inv_cdf(1 - LEVEL / 2) + normal.inv_cdf(POWER)
    return z * standard_error if standard_error else math.nan


def _fewest_discordant() -> int:
    """The fewest items, all going one way, on which McNemar's test is significant: 6 at 5 %."""
    return math.ceil(math.log2(2 / LEVEL))
