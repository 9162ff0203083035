"""Which examples stand before which item."""

from __future__ import annotations

from typing import Any

import pytest

from gptcli.errors import SpecError
from gptcli.records.items import ItemRow, LeftOut
from gptcli.scoring.tasks.cloze import Cloze
from gptcli.scoring.tasks.few_shot import Examples, Unasked
from gptcli.scoring.tasks.task import Item, Unposable


def task(shots: int, seed: int = 0) -> Cloze:
    return Cloze(name="t", data=["d"], prompt="{q}", answer="a", shots=shots, seed=seed)


def rows(count: int) -> list[ItemRow]:
    return [ItemRow({"q": f"question {number}", "a": f"answer {number}"}, f"f:{number}") for number in range(count)]


def item(row: dict[str, Any]) -> Item:
    return task(1).item(row, "w", Unasked())


def test_all_items_share_their_examples_but_the_examples_themselves() -> None:
    pool = rows(20)
    examples = Examples(task(3), pool, LeftOut())
    shared = {example.id for example in examples.shared}
    assert len(shared) == 3
    for row in pool:
        own = item(row.value)
        before = examples.before(own)
        assert len(before) == 3 and own.id not in {example.id for example in before}
        assert before == examples.shared or own.id in shared
        assert all(example.answer == example.prompt.replace("question", "answer") for example in before)


def test_draws_depend_on_the_seed_and_not_on_the_order_or_the_rest() -> None:
    pool = rows(30)
    drawn = Examples(task(3), pool, LeftOut()).shared
    assert Examples(task(3), pool[::-1], LeftOut()).shared == drawn
    assert Examples(task(2), pool, LeftOut()).shared == drawn[:2]
    assert Examples(task(3), [*pool[:10], *rows(30)], LeftOut()).shared == drawn  # the same rows twice
    seeds = {Examples(task(3, seed), pool, LeftOut()).shared for seed in range(5)}
    assert len(seeds) == 5
    assert [example.prompt for example in drawn] == ["question 15", "question 28", "question 1"]  # in every process


def test_rows_without_an_example_are_counted() -> None:
    left_out = LeftOut()
    pool = [*rows(2), ItemRow({"q": "no answer"}, "f:7"), ItemRow({"q": "null", "a": None}, "f:8")]
    examples = Examples(task(2), pool, left_out)
    assert left_out.counts == {"no_field:a": 1, "null_field:a": 1} and left_out.first["no_field:a"] == "f:7"
    with pytest.raises(Unposable, match="too_few_other_examples"):
        examples.before(item(pool[0].value))
    assert len(examples.before(item({"q": "another", "a": "item"}))) == 2
    with pytest.raises(SpecError, match="shots = 3, and there are 2 different examples"):
        Examples(task(3), pool, LeftOut())
