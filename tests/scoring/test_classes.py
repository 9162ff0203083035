"""Figures of classification by hand, where each is small enough to be counted."""

from __future__ import annotations

import json
import math

import pytest

from gptcli.scoring.classes import FIGURES, INVALID, confusion

ANSWERS = ["spam", "spam", "ham", "ham", "ham", "ham"]
PREDICTIONS = ["spam", None, "ham", "ham", "spam", "something"]


def test_an_invalid_answer_counts_against_recall_alone() -> None:
    found = confusion(ANSWERS, PREDICTIONS, ["spam", "ham", "eggs"])
    assert found.matrix.tolist() == [[1, 0, 0, 1], [1, 2, 0, 1], [0, 0, 0, 0]]
    assert found.precision.tolist() == [1 / 2, 1.0, 0.0]
    assert found.recall.tolist() == [1 / 2, 2 / 4, 0.0]
    assert found.f1.tolist() == pytest.approx([1 / 2, 2 / 3, 0.0])
    assert found.accuracy == 3 / 6 and found.invalid == 2
    assert found.micro.precision == 3 / 4 and found.micro.recall == 3 / 6
    assert found.balanced_accuracy == 1 / 2  # eggs has no items


def test_the_zero_division_rule_is_told_with_the_classes_it_met() -> None:
    found = confusion(ANSWERS, PREDICTIONS, ["spam", "ham", "eggs"], zero_division=1)
    assert found.precision[2] == found.recall[2] == found.f1[2] == 1.0
    rule = found.tables()["zero_division"]
    assert "is 1 and" in rule and "precision of 1 class never predicted: eggs" in rule
    assert "recall of 1 class without items: eggs" in rule
    many = confusion(["00"], ["00"], [f"{number:02d}" for number in range(9)]).zero_division_rule
    assert "is 0 and" in many and "8 classes without items: 01, 02, 03, 04, 05 and 3 more" in many
    assert confusion(["a", "b"], ["b", "a"]).zero_division_rule.endswith("Applied to none")


def test_classes_keep_their_order_or_are_sorted() -> None:
    assert confusion(ANSWERS, PREDICTIONS, ["spam", "ham"]).classes == ("spam", "ham")
    assert confusion(ANSWERS, PREDICTIONS).classes == ("ham", "spam")


def test_tables_are_json() -> None:
    tables = json.loads(json.dumps(confusion(ANSWERS, PREDICTIONS, ["spam", "ham"]).tables(), allow_nan=False))
    assert tables["confusion"] == {
        "columns": ["answer", "spam", "ham", INVALID],
        "rows": [["spam", 1, 0, 1], ["ham", 1, 2, 1]],
    }
    assert tables["classes"]["rows"][0] == ["spam", 0.5, 0.5, 0.5, 2, 2]
    assert [row[0] for row in tables["classes"]["averages"]] == ["micro average", "macro average", "weighted average"]
    assert all(len(row) == len(tables["classes"]["columns"]) for row in tables["classes"]["averages"])


def test_no_items() -> None:
    figures = confusion([], [], ["a", "b"]).figures()
    assert tuple(figures) == FIGURES
    assert math.isnan(figures["acc"]) and math.isnan(figures["balanced_acc"]) and figures["mcc"] == 0.0


def test_millions_of_items_overflow_nothing() -> None:
    found = confusion(["a", "b"] * 50_000, ["a", "b"] * 50_000)
    big = type(found)(found.classes, found.matrix * 10**12)
    assert big.mcc == 1.0 and big.kappa == 1.0


@pytest.mark.parametrize(
    ("answers", "classes", "what"), [(["c"], ["a", "b"], "'c' is none"), (["a"], ["a", "a"], "named twice")]
)
def test_what_cannot_be_counted_is_refused(answers: list[str], classes: list[str], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        confusion(answers, answers, classes)
