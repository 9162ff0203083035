from __future__ import annotations

from gptcli.training.schedule import factor, warmup_cosine, warmup_stable_decay


def test_warmup_plateau_and_cooldown() -> None:
    factors = [warmup_stable_decay(step, 100, 10, 0.5) for step in range(100)]
    assert factors[0] == 0.1 and factors[9] == 1.0
    assert set(factors[10:50]) == {1.0}
    assert factors[51] == 0.98 and abs(factors[99] - 0.02) < 1e-12
    assert factors[50:] == sorted(factors[50:], reverse=True)


def test_no_cooldown_stays_at_the_peak() -> None:
    assert {warmup_stable_decay(step, 10, 0, 0.0) for step in range(10)} == {1.0}


def test_half_a_cosine_wastes_no_step_at_either_end() -> None:
    factors = [warmup_cosine(step, 100, 10) for step in range(100)]
    assert factors[0] == 0.1 and factors[9] == factors[10] == 1.0
    assert abs(factors[55] - 0.5) < 1e-12 and 0 < factors[99] < 0.001
    assert [factor("cosine", step, 100, 10, 0.5) for step in range(100)] == factors
