"""Two evaluations, paired: every figure that both measured, tested on the items that both have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptcli.scoring.classes import FIGURES, confusion
from gptcli.scoring.evaluations import Evaluation, Sample
from gptcli.scoring.judged import Judged
from gptcli.scoring.significance import AS_IT_IS, Line, Paired, paired_figures, paired_means, paired_ratios

_SAME = 1e-9


@dataclass(frozen=True)
class PairedFigure:
    """A figure's paired test, second evaluation against the first; `left_out`: items that only one of them has."""

    figure: str
    paired: Paired
    left_out: int


def pair_figures(
    first: Evaluation, second: Evaluation, figures: Sequence[str], line: Line = AS_IT_IS
) -> list[PairedFigure]:
    """The tests of those `figures` that can be tested, in no other order: means of items' scores, ratios over
    documents, and figures of a classification (macro F1, MCC, …).

    With a `line` (times, plus) the second's figure is held against times the first's, plus.
    """
    found = {}
    rest: dict[str, list[str]] = {}
    for figure in figures:
        before, after = first.sample(figure), second.sample(figure)
        task = first.task_of(figure)
        if before is not None and after is not None:
            ids = _shared(before.ids, after.ids)
            if ids:
                paired = _paired_samples(before.only(ids), after.only(ids), line)
                found[figure] = PairedFigure(figure, paired, len(before.ids) + len(after.ids) - 2 * len(ids))
        elif task is not None and task == second.task_of(figure) and figure[len(task) + 1 :] in FIGURES:
            rest.setdefault(task, []).append(figure)
    for task, names in rest.items():
        found |= {tested.figure: tested for tested in _test_classes(first, second, task, names, line)}
    return [found[figure] for figure in figures if figure in found]


def _shared(first: Sequence[str], second: Sequence[str]) -> list[str]:
    known = set(second)
    return [name for name in first if name in known]


def _paired_samples(first: Sample, second: Sample, line: Line) -> Paired:
    if first.exponential or any(weight != 1.0 for weight in (*first.below, *second.below)):
        before, after = (first.above, first.below), (second.above, second.below)
        return paired_ratios(before, after, exponential=first.exponential, line=line)
    return paired_means(first.above, second.above, line=line)


def _test_classes(
    first: Evaluation, second: Evaluation, task: str, figures: Sequence[str], line: Line
) -> Iterator[PairedFigure]:
    """Figures of a confusion matrix, whose shares no item has: answers and predictions are resampled.

    Only where the matrix of all items gives the very figures that were reported: another rule for zero division, say,
    is not in the items.
    """
    ids = _shared(tuple(first.tasks[task]), tuple(second.tasks[task]))
    left_out = len(first.tasks[task]) + len(second.tasks[task]) - 2 * len(ids)
    tables = [_Answers(list(each.tasks[task].values()), task, each.classes(task)) for each in (first, second)]
    names = [
        figure
        for figure in figures
        if all(
            abs(table.figures()[figure[len(task) + 1 :]] - each.figures.get(figure, np.nan)) < _SAME
            for table, each in zip(tables, (first, second), strict=True)
        )
    ]
    if not names or not ids:
        return
    before, after = (
        _Answers([each.tasks[task][item] for item in ids], task, each.classes(task)) for each in (first, second)
    )
    times, plus = line
    tests = paired_figures(
        lambda items: times * before.values(names, items) + plus, lambda items: after.values(names, items), len(ids)
    )
    for figure, paired in zip(names, tests, strict=True):
        yield PairedFigure(figure, paired, left_out)


class _Answers:
    """The answers and predictions of judged items, from which figures of any resample can be made."""

    def __init__(self, rows: Sequence[Judged], task: str, classes: Sequence[str]) -> None:
        self.answers = np.array([row.answer for row in rows], object)
        self.predictions = np.array([None if row.scores.get("invalid") else row.prediction for row in rows], object)
        seen = {*self.answers, *(text for text in self.predictions if text is not None)}
        self.classes = (*classes, *sorted(seen - set(classes)))
        self.task = task

    def figures(self, items: NDArray[np.int64] | None = None) -> dict[str, float]:
        """Figures by their names without the task's, of the items numbered, or of all."""
        chosen: Any = slice(None) if items is None else items
        return confusion(self.answers[chosen].tolist(), self.predictions[chosen].tolist(), self.classes).figures()

    def values(self, figures: Sequence[str], items: NDArray[np.int64]) -> NDArray[np.float64]:
        found = self.figures(items)
        return np.array([found[figure[len(self.task) + 1 :]] for figure in figures])
