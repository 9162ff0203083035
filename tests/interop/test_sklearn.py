"""Figures of classification are scikit-learn's, on random predictions with all that real ones have."""

from __future__ import annotations

import random
import warnings
from typing import Any

import pytest

from gptcli.scoring.classes import INVALID, Confusion, confusion

metrics = pytest.importorskip("sklearn.metrics")

SIZES = (2, 3, 5, 14, 40, 77)


def draw(count: int, seed: int, *, gone: bool, invalid: bool) -> tuple[list[str], list[str], list[str]]:
    """Classes, answers and predictions; `gone`: some classes are nobody's answer, others are never predicted;
    `invalid`: some predictions are no class."""
    source = random.Random(f"{count}/{seed}/{gone}/{invalid}")
    classes = [f"class {number}" for number in range(count)]
    source.shuffle(classes)
    answered = classes[: max(count * 2 // 3, 1)] if gone else classes
    predicted = classes[count // 3 :] if gone else classes
    answers = source.choices(answered, [source.random() ** 3 + 0.01 for _ in answered], k=9 * count)
    predictions = [
        answer
        if answer in predicted and source.random() < 0.4
        else "neither"
        if invalid and source.random() < 0.3
        else source.choice(predicted)
        for answer in answers
    ]
    return classes, answers, predictions


def theirs(classes: list[str], answers: list[str], predictions: list[str], zero_division: int) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "report": metrics.classification_report(
                answers, predictions, labels=classes, output_dict=True, zero_division=zero_division
            ),
            "mcc": metrics.matthews_corrcoef(answers, predictions),
            "balanced_acc": metrics.balanced_accuracy_score(answers, predictions),
            "kappa": metrics.cohen_kappa_score(answers, predictions),
            "matrix": metrics.confusion_matrix(answers, predictions, labels=[*classes, "neither"]),
        }


def check(ours: Confusion, wanted: dict[str, Any]) -> None:
    report, tables, figures = wanted["report"], ours.tables(), ours.figures()
    for name, precision, recall, f1, support, predicted in tables["classes"]["rows"]:
        assert report[name] == pytest.approx(
            {"precision": precision, "recall": recall, "f1-score": f1, "support": support}, abs=1e-12
        )
        assert predicted == wanted["matrix"][:, list(ours.classes).index(name)].sum()
    for how in ("macro", "weighted", "micro"):
        row = report.get(f"{how} avg")
        if row is None:  # without invalid predictions scikit-learn tells one number in place of three
            row = {**dict.fromkeys(("precision", "recall", "f1-score"), report["accuracy"]), "support": ours.items}
        told = [figures[f"{how}_{measure}"] for measure in ("precision", "recall", "f1")]
        assert told == pytest.approx([row["precision"], row["recall"], row["f1-score"]], abs=1e-12)
        assert row["support"] == ours.items
    for name in ("mcc", "balanced_acc", "kappa"):
        assert figures[name] == pytest.approx(wanted[name], abs=1e-12), name
    assert [row[1:] for row in tables["confusion"]["rows"]] == wanted["matrix"][:-1].tolist()
    assert wanted["matrix"][-1].sum() == 0


@pytest.mark.parametrize("zero_division", [0, 1])
@pytest.mark.parametrize("invalid", [False, True], ids=["valid", "invalid"])
@pytest.mark.parametrize("gone", [False, True], ids=["all", "gone"])
@pytest.mark.parametrize("count", SIZES)
def test_equals_scikit_learn(count: int, gone: bool, invalid: bool, zero_division: int) -> None:
    for seed in range(3):
        classes, answers, predictions = draw(count, seed, gone=gone, invalid=invalid)
        ours = confusion(answers, predictions, classes, zero_division=zero_division)
        check(ours, theirs(classes, answers, predictions, zero_division))
        assert ours.figures()["acc"] == pytest.approx(metrics.accuracy_score(answers, predictions), abs=1e-15)
        assert ours.invalid == predictions.count("neither")


def test_the_draws_have_what_they_are_for() -> None:
    classes, answers, predictions = draw(77, 0, gone=True, invalid=True)
    valid = set(predictions) - {"neither"}
    assert set(classes) - set(answers) and set(classes) - valid and set(answers) - valid and valid - set(answers)


@pytest.mark.parametrize("zero_division", [0, 1])
def test_nothing_right_and_nothing_valid(zero_division: int) -> None:
    answers = ["a", "b", "b", "c"]
    for predictions in (["b", "c", "a", "a"], ["neither"] * 4, ["b"] * 4):
        ours = confusion(answers, predictions, ["a", "b", "c"], zero_division=zero_division)
        check(ours, theirs(["a", "b", "c"], answers, predictions, zero_division))


def test_one_class_alone() -> None:
    """scikit-learn has no kappa here, and an MCC of 0; ours are 0, as the rule says."""
    ours = confusion(["a", "a"], ["a", "a"], ["a", "b"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert ours.mcc == metrics.matthews_corrcoef(["a", "a"], ["a", "a"]) == 0
        assert ours.kappa == metrics.cohen_kappa_score(["a", "a"], ["a", "a"], replace_undefined_by=0.0) == 0
    assert INVALID in ours.tables()["confusion"]["columns"]
