from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptcli.scoring.significance import holm, mcnemar, paired_figures, paired_means, paired_ratios


def exact(first: int, second: int) -> float:
    count = first + second
    tail = sum(math.comb(count, number) for number in range(min(first, second) + 1))
    return float(min(Fraction(2 * tail, 2**count), Fraction(1)))


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_binomial_tail(first: int, second: int) -> None:
    assert mcnemar(first, second) == pytest.approx(exact(first, second), rel=1e-9)


@pytest.mark.parametrize(
    ("first", "second", "p_value"),
    [
        (0, 5, 0.0625),
        (0, 6, 0.03125),
        (1, 9, 22 / 1024),
        (10, 20, 0.0987371),
        (0, 0, 1.0),
        (0, 2000, 0.0),  # 2 / 2^2000
    ],
)
def test_mcnemar_of_known_tables(first: int, second: int, p_value: float) -> None:
    assert mcnemar(first, second) == mcnemar(second, first) == pytest.approx(p_value, rel=1e-3, abs=1e-300)


def test_right_and_wrong_are_compared_item_by_item() -> None:
    first = [1] * 50 + [1] * 2 + [0] * 10 + [0] * 38
    second = [1] * 50 + [0] * 2 + [1] * 10 + [0] * 38
    found = paired_means(first, second)
    assert (found.test, found.items) == ("mcnemar", 100)
    assert found.difference == pytest.approx(0.08)
    assert found.p_value == pytest.approx(exact(2, 10))
    # By hand: the differences are 10 times 1, 2 times -1, 88 times 0.
    variance = (12 - 100 * 0.08**2) / 99
    assert found.smallest_effect == pytest.approx((1.959964 + 0.841621) * math.sqrt(variance / 100), rel=1e-6)


def test_models_that_agree_say_what_they_could_have_shown() -> None:
    found = paired_means([1, 0] * 100, [1, 0] * 100)
    assert (found.difference, found.p_value) == (0.0, 1.0)
    assert found.smallest_effect == 6 / 200  # six items that all go one way are the fewest with p < 0.05


def test_the_smallest_effect_is_found_four_times_in_five() -> None:
    draw = np.random.default_rng(5)
    first = draw.normal(size=(200, 80))
    noise = draw.normal(size=(200, 80))
    effect = 2.801585 / math.sqrt(80)
    found = sum(paired_means(one, one + effect + other).p_value < 0.05 for one, other in zip(first, noise, strict=True))
    assert 0.7 < found / 200 < 0.9


def test_chance_alone_is_called_significant_as_rarely_as_it_should() -> None:
    draw = np.random.default_rng(6)
    p_values = []
    for _ in range(200):
        sizes = draw.integers(50, 500, 60).astype(float)
        first = draw.gamma(2.0, 100.0, 60)
        p_values.append(paired_ratios((first, sizes), (first + draw.normal(0, 10, 60), sizes)).p_value)
    assert 0.01 <= np.mean(np.array(p_values) < 0.05) <= 0.1
    assert 0.4 < np.mean(p_values) < 0.6


def test_pairing_finds_what_the_figures_spread_would_hide() -> None:
    draw = np.random.default_rng(7)
    first = draw.normal(3.0, 2.0, 200)  # the mean's own interval is 0.55 wide
    found = paired_means(first, first + draw.normal(0.05, 0.1, 200))
    assert found.p_value < 0.001 and 0.01 < found.smallest_effect < 0.03


def test_a_perplexity_is_tested_as_its_loss_is() -> None:
    draw = np.random.default_rng(9)
    tokens = draw.integers(50, 500, 100).astype(float)
    first = tokens * draw.normal(3.0, 0.3, 100)
    second = first + tokens * draw.normal(0.02, 0.1, 100)
    loss = paired_ratios((first, tokens), (second, tokens))
    perplexity = paired_ratios((first, tokens), (second, tokens), exponential=True)
    before, after = math.exp(first.sum() / tokens.sum()), math.exp(second.sum() / tokens.sum())
    assert perplexity.difference == pytest.approx(after - before)
    assert perplexity.p_value == pytest.approx(loss.p_value, abs=0.01)
    assert perplexity.smallest_effect == pytest.approx(before * loss.smallest_effect, rel=0.05)
    assert math.isnan(paired_ratios((first * 1e4, tokens), (second * 1e4, tokens), exponential=True).p_value)


@pytest.mark.parametrize("line", [(1.0, 0.3), (1.1, 0.0), (1.0, -0.1)])
def test_a_line_moves_what_a_figure_is_held_against(line: tuple[float, float]) -> None:
    draw = np.random.default_rng(10)
    first = draw.normal(3.0, 1.0, 400)
    second = first + draw.normal(0.3, 0.5, 400)
    found = paired_means(first, second, line=line)
    moved = paired_means(line[0] * first + line[1], second)
    assert (found.difference, found.smallest_effect) == pytest.approx((moved.difference, moved.smallest_effect))
    assert found.p_value == pytest.approx(moved.p_value, abs=1e-3) and (found.p_value > 0.05) == (
        line[1] > 0 or line[0] > 1
    )


def test_a_handful_of_documents_is_never_certain() -> None:
    ones = np.ones(3)
    assert paired_ratios(([1.0, 2.0, 3.0], ones), ([1.1, 2.1, 3.1], ones)).p_value == 0.25
    assert paired_means([0.5], [0.7]).p_value == 1.0


@pytest.mark.parametrize("second", [[], [math.nan, 1.0], [0.5, math.inf]], ids=["nothing", "nan", "infinite"])
def test_what_cannot_be_compared_has_no_p_value(second: list[float]) -> None:
    found = paired_means([0.25, 0.5][: len(second)], second)
    assert math.isnan(found.p_value) and math.isnan(found.difference)


def test_figures_of_any_kind_agree_with_the_means_they_are() -> None:
    draw = np.random.default_rng(8)
    first = draw.normal(size=300)
    second = first + draw.normal(0.1, 0.8, 300)

    def mean(of: np.ndarray) -> np.ndarray:
        return np.array([of.mean(), 2 * of.mean()])

    single, double = paired_figures(lambda items: mean(first[items]), lambda items: mean(second[items]), 300)
    expected = paired_means(first, second)
    assert single.difference == pytest.approx(expected.difference)
    assert single.p_value == pytest.approx(expected.p_value, abs=0.02)
    assert single.smallest_effect == pytest.approx(expected.smallest_effect, rel=0.1)
    assert double.smallest_effect == pytest.approx(2 * single.smallest_effect)
    assert double.p_value == single.p_value


def test_holm() -> None:
    # By hand: 4 times the smallest, 3 times the next, 2 times 0.03, and 0.04 is not below what came before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, math.nan, 0.6])[::2] == [1.0, 1.0]
    assert math.isnan(holm([0.9, math.nan])[1]) and holm([]) == []
