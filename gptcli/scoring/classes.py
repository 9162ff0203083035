"""Figures of classification from a confusion matrix, as scikit-learn's metrics define them.

A prediction that is none of the classes is INVALID: it counts against the recall of its true class, against accuracy,
MCC and kappa, and has a column in the matrix, never a row; it is no class, so no average has a share for it.

Zero division: precision has no denominator where a class was never predicted, recall where it is nobody's answer, F1
where both hold; there the value is `zero_division` (0 unless told otherwise). MCC and kappa are 0 where they have none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

INVALID = "(invalid)"  # its column's heading; a prediction that is no class is None

Counts = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Averages:
    """Precision, recall and F1 of several classes as one."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, eq=False)
class Confusion:
    """Answers against predictions: `matrix` [K, K + 1] counts items by answer (row) and prediction (column, the last
    one INVALID), classes in the order of `classes` [K]; `zero_division`: see the module."""

    classes: tuple[str, ...]
    matrix: Counts
    zero_division: float = 0.0

    @cached_property
    def support(self) -> Counts:
        """Items of each class [K]."""
        return np.asarray(self.matrix.sum(1), np.int64)

    @cached_property
    def predicted(self) -> Counts:
        """Predictions of each class [K]."""
        return np.asarray(self.matrix[:, :-1].sum(0), np.int64)

    @cached_property
    def right(self) -> Counts:
        """Items of each class that were predicted so [K]."""
        return np.asarray(self.matrix.diagonal(), np.int64)

    @property
    def items(self) -> int:
        return int(self.matrix.sum())

    @property
    def invalid(self) -> int:
        """Predictions that are none of the classes."""
        return int(self.matrix[:, -1].sum())

    @property
    def accuracy(self) -> float:
        """Share of items predicted right; NaN for no items."""
        return int(self.right.sum()) / self.items if self.items else math.nan

    @cached_property
    def precision(self) -> Shares:
        """Of each class's predictions, the share that is right [K]."""
        return self._share(self.right, self.predicted)

    @cached_property
    def recall(self) -> Shares:
        """Of each class's items, the share predicted so [K]."""
        return self._share(self.right, self.support)

    @cached_property
    def f1(self) -> Shares:
        """Harmonic mean of precision and recall of each class, as 2·right / (predicted + support) [K]."""
        return self._share(2 * self.right, self.predicted + self.support)

    @property
    def macro(self) -> Averages:
        """The mean over all classes, those without items too."""
        return Averages(float(self.precision.mean()), float(self.recall.mean()), float(self.f1.mean()))

    @property
    def weighted(self) -> Averages:
        """The mean over classes weighted by their items."""
        if not self.items:
            return Averages(self.zero_division, self.zero_division, self.zero_division)
        weights = self.support / self.items
        return Averages(*(float(each @ weights) for each in (self.precision, self.recall, self.f1)))

    @property
    def micro(self) -> Averages:
        """All classes' counts added first: recall is accuracy; precision is so too where nothing is invalid."""
        right, predicted, support = (np.asarray([each.sum()]) for each in (self.right, self.predicted, self.support))
        shares = (
            self._share(right, predicted),
            self._share(right, support),
            self._share(2 * right, predicted + support),
        )
        return Averages(*(float(each[0]) for each in shares))

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that have items; NaN where none has."""
        present = self.support > 0
        return float(self.recall[present].mean()) if present.any() else math.nan

    @property
    def mcc(self) -> float:
        """Matthews correlation for K classes: R_K of Gorodkin (2004), "Comparing two K-category assignments by a
        K-category correlation coefficient"; INVALID is one more category of predictions. 0 where undefined."""
        items, answers, predictions = self.items, [*self.support.tolist(), 0], self.matrix.sum(0).tolist()
        # Whole numbers of any size up to the root: exact.
        both = int(self.right.sum()) * items - sum(a * p for a, p in zip(answers, predictions, strict=True))
        spread = (items**2 - sum(p * p for p in predictions)) * (items**2 - sum(a * a for a in answers))
        return both / math.sqrt(spread) if spread else 0.0

    @property
    def kappa(self) -> float:
        """Cohen's kappa, (observed - expected) / (1 - expected) agreement by the shares of answers and predictions.

        0 where undefined: all answers and all predictions are one class.
        """
        expected = sum(a * p for a, p in zip(self.support.tolist(), self.predicted.tolist(), strict=True))
        beyond = self.items**2 - expected
        return (int(self.right.sum()) * self.items - expected) / beyond if beyond else 0.0

    @property
    def zero_division_rule(self) -> str:
        """The rule in words, with the classes it was applied to in this matrix."""
        never = [name for name, count in zip(self.classes, self.predicted, strict=True) if not count]
        absent = [name for name, count in zip(self.classes, self.support, strict=True) if not count]
        rule = (
            f"a precision, recall or F1 without denominator is {self.zero_division:g} and counts in the averages; "
            "MCC and kappa without denominator are 0; balanced accuracy leaves out classes without items"
        )
        used = [
            f"{measure} of {len(names)} {'class' if len(names) == 1 else 'classes'} {why}: {_some(names)}"
            for measure, why, names in (
                ("precision", "never predicted", never),
                ("recall", "without items", absent),
            )
            if names
        ]
        return f"{rule}. Applied to {'; '.join(used)}" if used else f"{rule}. Applied to none"

    def figures(self) -> dict[str, float]:
        """Every figure by its name (FIGURES)."""
        averages = {"macro": self.macro, "micro": self.micro, "weighted": self.weighted}
        return {
            "acc": self.accuracy,
            **{
                f"{how}_{measure}": getattr(average, measure)
                for how, average in averages.items()
                for measure in ("precision", "recall", "f1")
            },
            "balanced_acc": self.balanced_accuracy,
            "mcc": self.mcc,
            "kappa": self.kappa,
            "invalid": self.invalid / self.items if self.items else math.nan,
        }

    def tables(self) -> dict[str, Any]:
        """JSON-able tables, {"columns": […], "rows": [[…], …]}: `classes`, as classification_report has its rows, with
        the averages below; `confusion`, answers down and predictions across; and `zero_division`, the rule in words."""
        per_class = zip(self.classes, self.precision, self.recall, self.f1, self.support, self.predicted, strict=True)
        rows: list[list[Any]] = [
            [name, float(p), float(r), float(f), int(items), int(predicted)]
            for name, p, r, f, items, predicted in per_class
        ]
        valid = self.items - self.invalid
        averages = [
            [f"{how} average", average.precision, average.recall, average.f1, self.items, valid]
            for how, average in (("micro", self.micro), ("macro", self.macro), ("weighted", self.weighted))
        ]
        return {
            "classes": {
                "columns": ["class", "precision", "recall", "f1", "support", "predicted"],
                "rows": rows,
                "averages": averages,
            },
            "confusion": {
                "columns": ["answer", *self.classes, INVALID],
                "rows": [[name, *counts] for name, counts in zip(self.classes, self.matrix.tolist(), strict=True)],
            },
            "zero_division": self.zero_division_rule,
        }

    def _share(self, part: Counts, whole: Counts) -> Shares:
        share = np.full(len(whole), self.zero_division, np.float64)
        np.divide(part, whole, out=share, where=whole > 0)
        return share


FIGURES = (
    "acc",
    *(f"{how}_{measure}" for how in ("macro", "micro", "weighted") for measure in ("precision", "recall", "f1")),
    "balanced_acc",
    "mcc",
    "kappa",
    "invalid",
)


def confusion(
    answers: Sequence[str],
    predictions: Sequence[str | None],
    classes: Sequence[str] = (),
    *,
    zero_division: float = 0.0,
) -> Confusion:
    """The confusion matrix of answers and predictions, item by item; a prediction that is None or none of `classes` is
    INVALID.

    `classes` in the order they are shown in; none given: the distinct answers, sorted. Raises ValueError for an answer
    that is none of them, for classes named twice, and where answers and predictions differ in number.
    """
    names = tuple(classes) or tuple(sorted(set(answers)))
    numbers = {name: number for number, name in enumerate(names)}
    if len(numbers) < len(names):
        raise ValueError("a class is named twice")
    foreign = sorted(set(answers) - numbers.keys())
    if foreign:
        raise ValueError(f"answer {foreign[0]!r} is none of the classes")
    invalid = len(names)
    cells = [
        numbers[answer] * (invalid + 1) + (invalid if prediction is None else numbers.get(prediction, invalid))
        for answer, prediction in zip(answers, predictions, strict=True)
    ]
    counts = np.bincount(np.asarray(cells, np.int64), minlength=invalid * (invalid + 1))
    return Confusion(names, counts.reshape(invalid, invalid + 1).astype(np.int64), zero_division)


def _some(names: Sequence[str], shown: int = 5) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
