"""Tasks measured: items posed to the model in groups, each group kept as soon as it is judged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gptcli.artifacts.manifest import Source
from gptcli.artifacts.ngrams import NgramIndex
from gptcli.errors import ArtifactError
from gptcli.eval.kept import KeptItems
from gptcli.eval.task_files import NamedTask
from gptcli.job import Job
from gptcli.records.sources import require_unchanged
from gptcli.scoring.contamination import figures_by_group, item_text, overlaps
from gptcli.scoring.intervals import Interval, bootstrap, bootstrap_mean
from gptcli.scoring.judged import Judged
from gptcli.scoring.tasks.posing import Manner, TokenPosing
from gptcli.scoring.tasks.rows import TaskRows, read_rows
from gptcli.scoring.tasks.running import Answering, run_task
from gptcli.scoring.tasks.task import Task
from gptcli.tokenizer import Tokenizer

_RESAMPLES = 200  # of figures that are no mean over items, which are computed anew for each


@dataclass(frozen=True)
class Asked:
    """A model that can be asked: its engine and tokenizer, whether it was tuned on chats, and `decides`, all that its
    answers depend on beside the task."""

    engine: Answering
    tokenizer: Tokenizer
    chat_tuned: bool
    decides: Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """A task's items, its figures with their intervals, and what else a report tells of it."""

    judged: list[Judged]
    figures: dict[str, float]
    intervals: dict[str, Interval]
    told: dict[str, Any]


def measure_task(named: NamedTask, asked: Asked, job: Job, train: Sequence[NgramIndex]) -> Measured:
    """Ask a model a task's items; those it has answered before are taken as they were judged then.

    `train`: the n-grams of train splits that items are looked for in; none: they are not. Raises SpecError for data
    that make no item or changed while they were read.
    """
    task = named.task
    rows = read_rows(task, named.files)
    _require_unchanged(named, job.inputs.sources)
    for name, fault in rows.faults:
        job.progress.warn(f"{task.name}: {name}: {fault}; what could be read of it is asked")
    kept = KeptItems(job.place.parent, {"task": task.content(), "data": _hashes(named, job), **asked.decides})
    task = task.prepared(row.value for row in rows.items)
    known = kept.read()
    posing = TokenPosing(asked.tokenizer, Manner.of(task, asked.chat_tuned))
    judged: list[Judged] = []
    with job.progress.bar(task.name, rows.most_items(task), "items") as bar:
        for group in run_task(task, rows, posing, asked.engine, known=known, advance=bar.advance):
            _require_finite(group)
            new = [row for row in group if row.item not in known]
            if new:
                kept.add(new)
            judged += group
            job.stop.check()
    kept.tidy()
    kept.forget_others()
    return _measured(task, rows, judged, train, job)


def _require_finite(judged: Sequence[Judged]) -> None:
    broken = next((row for row in judged if not all(map(math.isfinite, row.logprobs))), None)
    if broken is not None:
        raise ArtifactError(
            f"{broken.task}: the likelihoods of {broken.where} are no numbers: the weights are no trained model's",
            "gptcli checkpoint verify names the tensors that are not finite",
        )


def _require_unchanged(named: NamedTask, sources: Sequence[Source]) -> None:
    recorded = {source.path: source for source in sources}
    for file in named.files.every:
        require_unchanged(file.path, recorded[file.name])


def _hashes(named: NamedTask, job: Job) -> list[str]:
    recorded = {source.path: source.sha256 for source in job.inputs.sources}
    return [recorded[file.name] for file in named.files.every]


def _measured(task: Task, rows: TaskRows, judged: list[Judged], train: Sequence[NgramIndex], job: Job) -> Measured:
    figures = dict(task.figures(judged))
    intervals = _intervals(task, judged, figures)
    told: dict[str, Any] = {
        "kind": task.kind,
        "first": task.figure_names[0],
        "items": len(judged),
        "left_out": dict(rows.left_out.counts),
        "examples_left_out": dict(rows.examples_left_out.counts),
        "cut": sum(bool(row.cut) for row in judged),
        "tables": task.tables(judged),
    }
    for rule in ("method", "zero_division"):
        if rule in told["tables"]:
            job.progress.say(f"{task.name}: {told['tables'][rule]}")
    for reason, where in rows.left_out.first.items():
        job.progress.warn(
            f"{task.name}: rows left out: {rows.left_out.counts[reason]:,} {reason}, the first {where} "
            f"{rows.details.get(reason, '')}".rstrip()
        )
    if told["cut"]:
        job.progress.warn(
            f"{task.name}: items that lost their beginning, being longer than the context: {told['cut']:,}"
        )
    if train:
        groups = contamination(judged, train)
        told["contamination"] = groups
        figures |= {name: value for name, value in groups.items() if name.endswith(("_clean", "_dirty"))}
    return Measured(judged, figures, intervals, {**told, "figures": figures})


def contamination(judged: Sequence[Judged], indexes: Sequence[NgramIndex]) -> dict[str, float]:
    """How many items are clean, dirty and untold by the n-grams of train splits, and the means of each group."""
    overlap = overlaps([item_text(row.prompt, row.answer) for row in judged], indexes)
    names = _means(judged)
    return figures_by_group(overlap, {name: [row.scores[name] for row in judged] for name in names})


def _means(judged: Sequence[Judged]) -> list[str]:
    """The scores that every item has: figures that are means."""
    return [name for name in judged[0].scores if all(name in row.scores for row in judged)] if judged else []


def _intervals(task: Task, judged: Sequence[Judged], figures: Mapping[str, float]) -> dict[str, Interval]:
    """95 % intervals by resampling items; corpus-level scores of generated text have none, each taking too long."""
    means = [name for name in _means(judged) if name in figures]
    found = {name: bootstrap_mean([row.scores[name] for row in judged]) for name in means}
    rest = {name for name in figures if name not in found}
    if rest and task.kind != "generation":
        together = bootstrap(
            lambda numbers: task.figures([judged[number] for number in numbers]), len(judged), resamples=_RESAMPLES
        )
        found |= {name: ends for name, ends in together.items() if name in rest}
    return {name: ends for name, ends in found.items() if all(map(math.isfinite, ends))}
