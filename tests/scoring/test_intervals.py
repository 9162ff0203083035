from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from gptcli.scoring.intervals import MOST_GROUPS, bootstrap, bootstrap_mean, bootstrap_ratio, wilson


def normal(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(2.0, 3.0, count)


@pytest.mark.parametrize("count", [400, MOST_GROUPS + 1, 1_000_000])
def test_the_interval_of_a_mean_is_that_of_its_standard_error(count: int) -> None:
    values = normal(count)
    low, high = bootstrap_mean(values, seed=3)
    error = values.std() / math.sqrt(count)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.25 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.25 * error)


def test_it_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(300):
        low, high = bootstrap_mean(normal(60, seed), seed=seed, resamples=400)
        covered += low <= 2.0 <= high
    assert 0.91 <= covered / 300 <= 0.98


def test_the_same_seed_gives_the_same_interval_and_another_another() -> None:
    values = normal(50)
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(list(values), seed=1) != bootstrap_mean(values, seed=2)


@pytest.mark.parametrize(
    ("right", "count", "interval"),
    [
        # The score interval without continuity correction, as Newcombe (1998), table I, has it.
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
        # By hand: of n of n it is n / (n + z²) to 1.
        (10, 10, (10 / (10 + 1.959964**2), 1.0)),
    ],
)
def test_wilson(right: int, count: int, interval: tuple[float, float]) -> None:
    assert wilson(right, count) == pytest.approx(interval, abs=5.1e-5)
    assert bootstrap_mean([1.0] * right + [0.0] * (count - right), seed=9) == wilson(right, count)


def test_a_ratio_is_not_a_mean_of_ratios() -> None:
    nats, sizes = [10.0, 2000.0] * 50, [10.0, 1000.0] * 50
    low, high = bootstrap_ratio(nats, sizes)
    assert 1.5 < low < 2010 / 1010 < high < 2.0  # a mean of ratios would be 1.5
    assert bootstrap_ratio([3.0] * 5, [2.0] * 5) == (1.5, 1.5)


def test_any_figure_can_be_resampled() -> None:
    values = normal(200)

    def mean(items: np.ndarray) -> dict[str, float]:
        assert items.shape == (200,)
        return {"mean": float(values[items].mean())}

    assert bootstrap(mean, 200)["mean"] == pytest.approx(bootstrap_mean(values), abs=0.1)
    assert bootstrap(mean, 200) == bootstrap(mean, 200)
    assert bootstrap(mean, 1) == {}


@pytest.mark.parametrize(
    "interval",
    [
        lambda: bootstrap_mean([]),
        lambda: bootstrap_mean([0.5]),
        lambda: bootstrap_mean([0.5, math.nan]),
        lambda: bootstrap_ratio([1.0, 2.0], [0.0, 0.0]),
        lambda: bootstrap(lambda items: {"figure": math.nan}, 5)["figure"],
    ],
    ids=["nothing", "one", "nan", "no_ratio", "no_figure"],
)
def test_what_has_no_interval_has_none(interval: Callable[[], tuple[float, float]]) -> None:
    assert all(math.isnan(end) for end in interval())
