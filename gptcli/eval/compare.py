"""Evaluations side by side: every figure with its better one marked, which differences are more than chance, and the
items on which the models differ.

Each evaluation is tested against the first, on the items (or documents) that both have; Holm's correction is over all
tests of the comparison.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptcli.artifacts.project import Project
from gptcli.console import Report, print_columns, print_json, print_rows
from gptcli.errors import SpecError
from gptcli.scoring.directions import higher_is_better
from gptcli.scoring.evaluations import Evaluation, read_evaluation
from gptcli.scoring.pairing import PairedFigure, pair_figures
from gptcli.scoring.significance import holm

if TYPE_CHECKING:
    from gptcli.scoring.judged import Judged

FOLDER = "evals"
SHOWN = 10  # items that differ
_HEAD = 60  # characters of a prompt that a person sees
_TEST_COLUMNS = ("difference", "p", "smallest effect")  # where just two are compared
_STARS = ((0.01, "**"), (0.05, "*"))


@dataclass(frozen=True)
class Against:
    """A figure of an evaluation against the first one's; `adjusted`: the p-value after Holm."""

    evaluation: str
    tested: PairedFigure
    adjusted: float = math.nan


@dataclass(frozen=True)
class Differing:
    """An item that not all evaluations judge alike, and their judgements in the order of the evaluations."""

    task: str
    judged: tuple[Judged, ...]


@dataclass(frozen=True)
class Comparison:
    """What a comparison found: `report.figures` all of it; `header` and `rows` the table of figures; `notes` and
    `items` what a person reads below it."""

    report: Report
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: list[tuple[str, str]]
    items: list[str]


def compare(project: Project, names: Sequence[str], *, shown: int = SHOWN) -> Comparison:
    """Compare the evaluations evals/NAME of `names` with the first of them; `shown`: items that differ, at most.

    Raises SpecError for fewer than two names or one given twice, ArtifactError where one of them isn't there.
    """
    if len(names) < 2 or len(set(names)) < len(names):
        raise SpecError(
            f"--compare {' '.join(names)}: two or more different evaluations are compared",
            f"there are: {', '.join(standing(project)) or 'none yet'}",
        )
    evaluations = [read_evaluation(project.place(FOLDER, name)) for name in names]
    figures = list(dict.fromkeys(chain.from_iterable(evaluation.figures for evaluation in evaluations)))
    tested = _test(evaluations, figures)
    shared = _shared_items(evaluations)
    differing = list(_differing(evaluations, shared))
    rows = [_row(figure, evaluations, tested) for figure in figures]
    report = Report(
        f"eval: {', '.join(names[1:])} against {names[0]}",
        "",
        _figures(evaluations, figures, tested, shared, differing, shown),
    )
    items = list(_item_lines(evaluations, differing[: max(shown, 0)]))
    if left := len(differing) - len(differing[: max(shown, 0)]):
        items.append(f"and {left:,} more")
    header = ("figure", *names, *(_TEST_COLUMNS if len(names) == 2 else ()))
    return Comparison(report, header, rows, _notes(evaluations, tested, shared, differing), items)


def print_comparison(comparison: Comparison, as_json: bool) -> None:
    """The comparison on stdout."""
    if as_json:
        print_json({"title": comparison.report.title, **comparison.report.figures})
        return
    print(comparison.report.title)
    print_columns(comparison.header, comparison.rows)
    print_rows(comparison.notes)
    for line in comparison.items:
        print(line)


def standing(project: Project) -> list[str]:
    """The names of the project's evaluations, sorted."""
    return sorted(path.parent.name for path in (project.root / FOLDER).glob("[!.]*/manifest.json"))


def _test(evaluations: Sequence[Evaluation], figures: Sequence[str]) -> list[Against]:
    """Every figure of every other evaluation against the first's, where it can be tested."""
    found = [(each.name, tested) for each in evaluations[1:] for tested in pair_figures(evaluations[0], each, figures)]
    adjusted = holm([tested.paired.p_value for _, tested in found])
    return [Against(name, tested, p_value) for (name, tested), p_value in zip(found, adjusted, strict=True)]


def _best(figure: str, evaluations: Sequence[Evaluation]) -> list[str]:
    """The evaluations with the best value of a figure; none where no way is better, or all have it alike."""
    is_higher = higher_is_better(figure)
    values = {each.name: each.figures[figure] for each in evaluations if figure in each.figures}
    values = {name: value for name, value in values.items() if not math.isnan(value)}
    if is_higher is None or len(set(values.values())) < 2:
        return []
    best = max(values.values()) if is_higher else min(values.values())
    return [name for name, value in values.items() if value == best]


def _row(figure: str, evaluations: Sequence[Evaluation], tested: Sequence[Against]) -> tuple[str, ...]:
    """A figure's line: values, ▸ before the best, stars where the difference from the first is significant."""
    best = _best(figure, evaluations)
    marks = {each.evaluation: _stars(each.adjusted) for each in tested if each.tested.figure == figure}
    cells = [
        f"{'▸' if each.name in best else ' '}{_shown(figure, each.figures.get(figure))}{marks.get(each.name, '')}"
        for each in evaluations
    ]
    against = next((each for each in tested if each.tested.figure == figure), None)
    return (figure, *cells, *(_test_cells(against) if len(evaluations) == 2 else ()))


def _test_cells(against: Against | None) -> tuple[str, str, str]:
    """Difference, corrected p-value and the smallest effect the sample shows; empty where nothing was tested."""
    if against is None:
        return "", "", ""
    paired = against.tested.paired
    effect = "–" if math.isnan(paired.smallest_effect) else f"{paired.smallest_effect:.4f}"
    return f"{paired.difference:+.4f}", f"{against.adjusted:.2g}", effect


def _shown(figure: str, value: float | None) -> str:
    if value is None:
        return "–"
    is_count = higher_is_better(figure) is None and math.isfinite(value) and value == round(value)
    return f"{value:,.0f}" if is_count else f"{value:.4f}"


def _stars(p_value: float) -> str:
    """`**` below 0.01, `*` below 0.05, nothing above or for NaN."""
    return next((mark for level, mark in _STARS if p_value < level), "")


def _shared_items(evaluations: Sequence[Evaluation]) -> dict[str, list[str]]:
    """Ids of the items that all evaluations have, by task, in the first's order; tasks that all have."""
    first = evaluations[0]
    return {
        task: [item for item in rows if all(item in each.tasks[task] for each in evaluations[1:])]
        for task, rows in first.tasks.items()
        if all(task in each.tasks for each in evaluations[1:])
    }


def _differing(evaluations: Sequence[Evaluation], shared: dict[str, list[str]]) -> Iterator[Differing]:
    for task, ids in shared.items():
        for item in ids:
            judged = tuple(each.tasks[task][item] for each in evaluations)
            if _differ(judged):
                yield Differing(task, judged)


def _differ(judged: Sequence[Judged]) -> bool:
    """Right in one and wrong in another, by the first score that all have; where that is no right or wrong, another
    prediction."""
    name = next(iter(judged[0].scores), None)
    scores = {row.scores.get(name, math.nan) if name else math.nan for row in judged}
    return len(scores) > 1 if scores <= {0.0, 1.0} else len({row.prediction for row in judged}) > 1


def _notes(
    evaluations: Sequence[Evaluation],
    tested: Sequence[Against],
    shared: dict[str, list[str]],
    differing: Sequence[Differing],
) -> list[tuple[str, str]]:
    notes = [("▸", "the better one")]
    if tested:
        against = f"against {evaluations[0].name}, paired, after Holm over {len(tested)} tests"
        notes.append(("*, **", f"p < 0.05, p < 0.01 {against}"))
    else:
        notes.append(("no test", "they share no items or documents on which a figure could be tested"))
    partly = {
        f"{each.tested.figure.rpartition('.')[0] or 'documents'} of {each.evaluation}": each.tested.left_out
        for each in tested
        if each.tested.left_out
    }
    notes += [(what, f"tested on what both have; {left:,} are in one of the two only") for what, left in partly.items()]
    for each in evaluations[1:]:
        first = evaluations[0]
        only = sorted(set(first.tasks) ^ set(each.tasks))
        notes += [(task, f"a task of {first.name if task in first.tasks else each.name} only") for task in only]
    notes += _other_data(evaluations)
    if shared:
        notes.append(
            ("items", f"{sum(map(len, shared.values())):,} in all of them, {len(differing):,} judged otherwise")
        )
    return notes


def _other_data(evaluations: Sequence[Evaluation]) -> list[tuple[str, str]]:
    """Which evaluations measured text or chats other than the first's, by the figure that shows it."""
    first = evaluations[0]
    return [
        (figure, f"{each.name} has it of other data than {first.name}")
        for each in evaluations[1:]
        for figure in ("bits_per_byte", "chat_loss")
        if figure in first.figures and figure in each.figures and first.measured_on(figure) != each.measured_on(figure)
    ]


def _item_lines(evaluations: Sequence[Evaluation], differing: Sequence[Differing]) -> Iterator[str]:
    width = max(len(each.name) for each in evaluations)
    for each in differing:
        first = each.judged[0]
        yield f"{each.task}  {first.where}  {_head(first.prompt)}"
        yield f"  {'answer':<{width}}  {_head(first.answer)}"
        for evaluation, row in zip(evaluations, each.judged, strict=True):
            score = next(iter(row.scores.values()), math.nan)
            mark = {1.0: "✓", 0.0: "✗"}.get(score, " ")
            yield f"  {evaluation.name:<{width}}  {mark} {_head(row.prediction)}"


def _head(text: str) -> str:
    """The end of a text on one line: of a prompt the question stands last."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= _HEAD else f"…{line[1 - _HEAD :]}"


def _figures(
    evaluations: Sequence[Evaluation],
    figures: Sequence[str],
    tested: Sequence[Against],
    shared: dict[str, list[str]],
    differing: Sequence[Differing],
    shown: int,
) -> dict[str, Any]:
    """All of it as --json prints it; what is no number is null."""
    return {
        "evaluations": [{"name": each.name, "model": each.model, "path": _path(each)} for each in evaluations],
        "figures": {
            figure: {each.name: _number(each.figures[figure]) for each in evaluations if figure in each.figures}
            for figure in figures
        },
        "intervals": {
            each.name: {name: [_number(end) for end in ends] for name, ends in each.intervals.items()}
            for each in evaluations
        },
        "best": {figure: best for figure in figures if (best := _best(figure, evaluations))},
        "tests": [_test_json(each, evaluations[0].name) for each in tested],
        "shared_items": {task: len(ids) for task, ids in shared.items()},
        "differing_items": len(differing),
        "items": [_item_json(evaluations, each) for each in differing[: max(shown, 0)]],
    }


def _path(evaluation: Evaluation) -> str:
    return (Path(FOLDER) / evaluation.name).as_posix()


def _test_json(against: Against, first: str) -> dict[str, Any]:
    tested = asdict(against.tested)
    paired = {key: _number(value) if isinstance(value, float) else value for key, value in tested.pop("paired").items()}
    return {
        "evaluation": against.evaluation,
        "against": first,
        **tested,
        **paired,
        "p_value_holm": _number(against.adjusted),
        "significant": _stars(against.adjusted),
    }


def _item_json(evaluations: Sequence[Evaluation], differing: Differing) -> dict[str, Any]:
    first = differing.judged[0]
    return {
        "task": differing.task,
        "item": first.item,
        "where": first.where,
        "prompt": first.prompt,
        "answer": first.answer,
        "predictions": {
            evaluation.name: {"prediction": row.prediction, "scores": row.scores}
            for evaluation, row in zip(evaluations, differing.judged, strict=True)
        },
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
