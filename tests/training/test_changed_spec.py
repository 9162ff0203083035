"""Which keys of a spec a run that has not ended may go on with."""

from __future__ import annotations

from typing import Any

import pytest

from gptcli.pretrain.spec import PretrainSpec
from gptcli.stage import Standing, goes_on_with
from gptcli.training.spec import HARMLESS, TrainingSpec

WARMED = {"schedule": "cosine", "warmup_steps": 9}


@pytest.mark.parametrize("key", sorted(HARMLESS))
def test_the_listed_keys_are_keys(key: str) -> None:
    assert key in PretrainSpec.model_fields
    assert PretrainSpec().may_change(key, PretrainSpec().content(), 10)


@pytest.mark.parametrize("key", ["seq_len", "lr", "seed", "global_batch_tokens", "hidden_size", "dtype", "tokens"])
def test_a_changed_meaning_is_refused(key: str) -> None:
    assert not PretrainSpec().may_change(key, PretrainSpec().content(), 10)


@pytest.mark.parametrize(
    ("before", "after", "step", "expected"),
    [
        ({"steps": 100}, {"steps": 200}, 40, True),  # on the plateau of both
        ({"steps": 100}, {"steps": 200}, 41, True),
        ({"steps": 100}, {"steps": 200}, 42, False),  # its cooldown had begun
        ({"steps": 200}, {"steps": 100}, 40, True),
        ({"steps": 200}, {"steps": 100}, 60, False),  # what had been learnt would have been at another rate
        ({"steps": 200}, {"steps": 20}, 40, False),
        ({"steps": 100, "cooldown": 0.0}, {"steps": 200, "cooldown": 0.0}, 100, True),
        ({"steps": 100, "schedule": "cosine"}, {"steps": 200, "schedule": "cosine"}, 2, False),
        ({"steps": 100, **WARMED}, {"steps": 200, **WARMED}, 9, True),
        ({}, {"steps": 400}, 100, True),  # 300 by default
        ({"epochs": 2}, {"steps": 400}, 1, False),
    ],
)
def test_another_number_of_steps_where_the_past_stays(
    before: dict[str, Any], after: dict[str, Any], step: int, expected: bool
) -> None:
    made = TrainingSpec(**before).content()
    assert TrainingSpec(**after).may_change("steps", made, step) is expected


def test_only_what_has_not_ended_goes_on(tmp_path: Any) -> None:
    before, after = PretrainSpec(save_every=100, seed=1), PretrainSpec(save_every=50, keep=9, seed=2)
    started = Standing(None, before.content(), ())
    assert goes_on_with(started, after, tmp_path) == ["save_every", "keep"]
    assert goes_on_with(Standing(None, None, ()), after, tmp_path) == []


def test_another_stages_spec_is_no_change_of_this_one() -> None:
    assert not PretrainSpec(steps=5).may_change("steps", {"chats": ["a.jsonl"], "steps": 9}, 3)
