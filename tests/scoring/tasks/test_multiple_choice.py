"""Multiple choice: which choice is right, and which one the model takes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptcli.scoring.requests import LikelihoodAnswer
from gptcli.scoring.tasks.few_shot import Unasked
from gptcli.scoring.tasks.multiple_choice import MultipleChoice
from gptcli.scoring.tasks.task import Unposable

CHOICES = ["red", "green", "blue"]


def task(**keys: Any) -> MultipleChoice:
    return MultipleChoice(**{"name": "t", "data": ["d"], "choices": "choices", "answer": "answer", **keys})


def right(row: dict[str, Any], **keys: Any) -> str:
    return task(**keys).item({"choices": CHOICES, **row}, "w", Unasked()).answer


@pytest.mark.parametrize(
    ("answer", "keys", "expected"),
    [
        (1, {}, "green"),
        (1.0, {}, "green"),
        ("1", {}, "green"),
        (1, {"index_from": 1}, "red"),
        (True, {}, "green"),
        ("B", {}, "green"),
        ("(b)", {}, "green"),
        ("C.", {}, "blue"),
        ("blue", {}, "blue"),
        (" blue ", {"answer_as": "text"}, "blue"),
        ("2", {"choices": ["1", "2", "3"]}, "2"),
        ("2", {"choices": ["1", "2", "3"], "answer_as": "index"}, "3"),
        (2, {"choices": ["1", "2", "3"]}, "3"),
        ("A", {"choices": ["B", "A"], "answer_as": "letter"}, "B"),
        ("A", {"choices": ["B", "A"]}, "A"),
        ("y", {"labels": "l"}, "green"),
        ("2", {"labels": "n"}, "green"),
    ],
)
def test_how_the_answer_tells_the_choice(answer: object, keys: dict[str, Any], expected: str) -> None:
    assert right({"answer": answer, "l": ["x", "y", "z"], "n": [1, 2, 3]}, **keys) == expected


@pytest.mark.parametrize(
    ("row", "keys", "reason"),
    [
        ({"answer": 3}, {}, "answer_out_of_range"),
        ({"answer": -1}, {}, "answer_out_of_range"),
        ({"answer": 0}, {"index_from": 1}, "answer_out_of_range"),
        ({"answer": "D"}, {}, "answer_out_of_range"),
        ({"answer": "violet"}, {}, "answer_names_no_choice"),
        ({"answer": 0.5}, {}, "answer_names_no_choice"),
        ({"answer": "9" * 5000}, {}, "answer_names_no_choice"),
        ({"answer": "B"}, {"answer_as": "index"}, "answer_names_no_choice"),
        ({"answer": "1"}, {"answer_as": "text"}, "answer_names_no_choice"),
        ({"answer": "red", "choices": ["red", "red"]}, {}, "answer_names_two_choices"),
        ({"answer": "q", "l": ["x", "y", "z"]}, {"labels": "l"}, "answer_names_no_choice"),
        ({"answer": "z", "l": ["x", "y", "z"], "choices": ["p", "q"]}, {"labels": "l"}, "answer_names_no_choice"),
        ({"answer": 0, "choices": ["only"]}, {}, "fewer_than_two_choices"),
        ({"answer": 0, "choices": []}, {}, "fewer_than_two_choices"),
        ({"answer": 0, "choices": ["a", " "]}, {}, "empty_choice"),
        ({"answer": 0, "choices": "a, b"}, {}, "no_list:choices"),
        ({"answer": 0, "choices": "[broken"}, {}, "no_list:choices"),
        ({"answer": None}, {}, "null_field:answer"),
        ({}, {}, "no_field:answer"),
    ],
)
def test_rows_that_make_no_item(row: dict[str, Any], keys: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unposable, match=f"^{reason}$"):
        right(row, **keys)


def test_where_choices_come_from() -> None:
    assert right({"answer": 0, "choices": '["p", 2]'}) == "p"
    assert right({"answer": 1, "choices": '["p", 2]'}) == "2"
    assert right({"answer": "B", "o": [{"text": "p"}, {"text": "q"}]}, choices="o.text") == "q"
    assert right({"answer": 1, "x": "ex"}, choices=["{x}!", "not {x}"]) == "not ex"
    assert right({"answer": True}, choices=["no", "yes"]) == "yes"


def judged(logprobs: list[float], choices: list[str], answer: int = 0) -> dict[str, float]:
    asked = task()
    item = asked.item({"choices": choices, "answer": answer}, "w", Unasked())
    return asked.judge(item, [LikelihoodAnswer(logprob, False, 1, 2) for logprob in logprobs]).scores


def test_norms_divide_by_the_choice_alone() -> None:
    """ "éé" has 2 characters and 4 bytes, "aaa" 3 of both."""
    assert judged([-6.0, -6.5], ["éé", "aaa"]) == {"acc": 1.0, "acc_norm_bytes": 1.0, "acc_norm_chars": 0.0}
    assert judged([-6.0, -3.5], ["éé", "aaa"]) == {"acc": 0.0, "acc_norm_bytes": 0.0, "acc_norm_chars": 0.0}
    assert judged([-2.0, -2.0], ["aa", "bb"]) == {"acc": 1.0, "acc_norm_bytes": 1.0, "acc_norm_chars": 1.0}  # the first
    assert judged([-2.0, -2.0], ["aa", "bb"], 1)["acc"] == 0.0
    assert judged([math.nan, -2.0], ["aa", "bb"]) == {"acc": 0.0, "acc_norm_bytes": 0.0, "acc_norm_chars": 0.0}


def test_what_is_kept_of_an_item() -> None:
    asked = task(prompt="{q}?")
    item = asked.item({"choices": CHOICES, "answer": 2, "q": "Which"}, "f:3", Unasked())
    row = asked.judge(item, [LikelihoodAnswer(value, False, 2, cut) for value, cut in ((-3, 0), (-1, 5), (-2, 1))])
    assert (row.prompt, row.answer, row.prediction, row.where) == ("Which?", "blue", "green", "f:3")
    assert row.logprobs == (-3, -1, -2) and row.cut == 5


ARC = 'prompt = "{query}\\nAnswer:"'
PIQA = 'prompt = "{query}Answer:"'
COPA = 'prompt = "{query}"'


@pytest.mark.parametrize(("name", "prompt"), [("arc_easy", ARC), ("piqa", PIQA), ("copa", COPA)], ids=str)
def test_real_tasks(run_toml: Callable[..., Any], data_dir: Path, name: str, prompt: str) -> None:
    path = data_dir / "eval-mc-dev" / f"{name}.jsonl"
    run = run_toml(
        f'kind = "multiple_choice"\ndata = "{path}"\n{prompt}\nchoices = "choices"\nanswer = "gold"\nlimit = 24\n'
    )
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:24]]
    assert [row.answer for row in run.judged] == [row["choices"][row["gold"]] for row in rows]
    hits = [max(range(len(one.logprobs)), key=one.logprobs.__getitem__) for one in run.judged]
    assert run.figures["acc"] == sum(hit == row["gold"] for hit, row in zip(hits, rows, strict=True)) / 24
    normed = [
        max(range(len(one.logprobs)), key=lambda k: one.logprobs[k] / len(row["choices"][k]))
        for one, row in zip(run.judged, rows, strict=True)
    ]
    assert run.figures["acc_norm_chars"] == sum(h == row["gold"] for h, row in zip(normed, rows, strict=True)) / 24
    assert tuple(run.figures) == run.task.figure_names and not run.rows.left_out.counts
    assert all(max(one.logprobs) < 0 and one.cut == 0 for one in run.judged)
