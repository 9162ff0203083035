from __future__ import annotations

import json
import math
import random

import pytest

from gptcli.training.anomaly import IN_A_ROW, MOST_SKIPPED, SPAN, WARM_STEPS, Watch
from gptcli.training.ranges import Ranges


def warmed(threshold: float = 8.0, losses: int = 200) -> Watch:
    """A watch that has seen a loss fall from 8 towards 3, with noise."""
    watch, draw = Watch(threshold), random.Random(0)
    for step in range(losses):
        assert watch.judge(3 + 5 * math.exp(-step / 40) + draw.gauss(0, 0.05), 1.0) is None
    return watch


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (3.0, math.nan), (3.0, math.inf)])
def test_what_is_not_finite_is_told_from_the_first_step_on(loss: float, norm: float) -> None:
    for watch in (Watch(0.0), warmed()):
        anomaly = watch.judge(loss, norm)
        assert anomaly is not None and not anomaly.finite


def test_a_spike_is_told_and_does_not_enter_the_mean() -> None:
    watch = warmed()
    before = watch.state()
    anomaly = watch.judge(6.0, 1.0)
    assert anomaly is not None and anomaly.finite and "standard deviations above" in anomaly.reason
    assert watch.state() == {**before, "spikes": 1}
    assert watch.judge(3.1, 1.0) is None and watch.spikes == 0


def test_a_fall_is_no_spike_and_neither_is_a_small_rise() -> None:
    assert warmed().judge(0.1, 1.0) is None
    even = Watch(8.0)
    for _ in range(100):
        assert even.judge(2.0, 1.0) is None
    assert even.judge(2.1, 1.0) is None  # of no variance at all: five hundredths are no spike
    assert even.judge(2.5, 1.0) is not None


def test_nothing_is_a_spike_before_the_mean_is_warm_or_where_none_is_looked_for() -> None:
    young = warmed(losses=WARM_STEPS - 1)
    assert young.judge(100.0, 1.0) is None
    assert warmed(threshold=0.0).judge(100.0, 1.0) is None


def test_a_new_level_is_taken_after_some_spikes_in_a_row() -> None:
    watch = warmed()
    assert all(watch.judge(6.0, 1.0) is not None for _ in range(IN_A_ROW))
    assert watch.judge(6.0, 1.0) is None
    assert (watch.count, watch.mean) == (1, 6.0)
    assert all(watch.judge(6.0, 1.0) is None for _ in range(WARM_STEPS))
    assert watch.judge(12.0, 1.0) is not None


def test_too_many_of_the_latest_steps() -> None:
    watch = Watch(8.0)
    assert [watch.skip(step) for step in range(1, MOST_SKIPPED + 1)] == [True] * (MOST_SKIPPED - 1) + [False]
    apart = Watch(8.0)
    assert all(apart.skip(step) for step in range(1, 1000, SPAN // MOST_SKIPPED + 2))


def test_the_state_comes_back_bit_for_bit_through_json() -> None:
    watch, again = warmed(), Watch(8.0)
    watch.skip(5)
    again.load_state(json.loads(json.dumps(watch.state())))
    assert again == watch


def test_ranges_are_passed_over() -> None:
    ranges = Ranges(4)
    assert [ranges.first_sample(step) for step in range(4)] == [0, 4, 8, 12]
    assert ranges.skip(2, 3) == (8, 16)
    assert [ranges.first_sample(step) for step in range(5)] == [0, 4, 16, 20, 24]
    assert ranges.skip(2, 2, 16) == (16, 32)
    assert [ranges.first_sample(step) for step in range(4)] == [0, 4, 32, 36]
    assert ranges.skip(5, 5) == (44, 48)
    assert [ranges.first_sample(step) for step in range(4, 7)] == [40, 48, 52]
    again = Ranges(4)
    again.load_state(json.loads(json.dumps(ranges.state())))
    assert again == ranges
