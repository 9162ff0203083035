"""An evaluation that stands, read for comparing it: its figures, and what each item contributed to them.

Only `figures`, `intervals` and what the manifest says are read at once; items and documents when they are asked for.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptcli.artifacts.manifest import Input, read_manifest, verify_files
from gptcli.errors import ArtifactError

if TYPE_CHECKING:
    from gptcli.scoring.judged import Judged

KIND = "evaluation"
REPORT = "report.json"
ITEMS = "items.arrow"
DOCUMENTS = "documents.arrow"

# Figures that are a ratio of sums over documents, or exp of one: what is above, what is below, and the factor between.
_NAT_BITS = 1 / math.log(2)
_RATIOS = {
    "loss": ("nats", "tokens", 1.0),
    "perplexity": ("nats", "tokens", 1.0),
    "word_perplexity": ("nats", "words", 1.0),
    "bits_per_byte": ("nats", "bytes", _NAT_BITS),
    "accuracy": ("correct", "tokens", 1.0),
    "top5_accuracy": ("correct_top5", "tokens", 1.0),
}
_EXPONENTIAL = ("perplexity", "word_perplexity")


@dataclass(frozen=True)
class Sample:
    """What each item contributed to a figure, which is sum(above) / sum(below), or exp of it; `ids` tell items
    apart."""

    ids: tuple[str, ...]
    above: tuple[float, ...]
    below: tuple[float, ...]
    exponential: bool = False

    def only(self, ids: Iterable[str]) -> Sample:
        """These items alone, in this order; KeyError for one that is not there."""
        at = {name: number for number, name in enumerate(self.ids)}
        order = [at[name] for name in ids]
        return Sample(
            tuple(self.ids[number] for number in order),
            tuple(self.above[number] for number in order),
            tuple(self.below[number] for number in order),
            self.exponential,
        )


@dataclass(frozen=True)
class Evaluation:
    """One evaluation. `figures` by flat name, NaN for what is no number; `records`: when and how it was made;
    `tables`: what the report shows beside the figures, by task; `directory`: where its rows lie, None for figures
    without any."""

    name: str
    figures: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    model: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[Input, ...] = ()
    records: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, Any] = field(default_factory=dict)
    directory: Path | None = None

    @cached_property
    def tasks(self) -> dict[str, dict[str, Judged]]:
        """Judged items by task and id. Of items that say the same the second has `#2` after its id, and so on."""
        from gptcli.scoring.judged import from_batch

        found: dict[str, dict[str, Judged]] = {}
        seen: Counter[tuple[str, str]] = Counter()
        for batch in _batches(self.directory, ITEMS):
            for row in from_batch(batch):
                seen[row.task, row.item] += 1
                number = seen[row.task, row.item]
                found.setdefault(row.task, {})[row.item if number == 1 else f"{row.item}#{number}"] = row
        return found

    @cached_property
    def documents(self) -> dict[str, dict[str, float]]:
        """Sums over each document (nats, tokens, bytes, …) by its id, else by its number and bytes; empty where none
        were written."""
        found: dict[str, dict[str, float]] = {}
        seen: Counter[str] = Counter()
        for batch in _batches(self.directory, DOCUMENTS):
            for row in batch.to_pylist():
                name = str(row.get("document", f"{len(found)}:{row.get('bytes')}"))
                seen[name] += 1
                sums = {key: float(value) for key, value in row.items() if _is_number(value)}
                found[name if seen[name] == 1 else f"{name}#{seen[name]}"] = sums
        return found

    def task_of(self, figure: str) -> str | None:
        """The task that `TASK.FIGURE` is a figure of; None for figures of text and chats."""
        if "." not in figure:
            return None
        return max((task for task in self.tasks if figure.startswith(f"{task}.")), key=len, default=None)

    def sample(self, figure: str) -> Sample | None:
        """What each item, or document, contributed to a figure; None where it is no mean or ratio over them."""
        task = self.task_of(figure)
        if task is not None:
            score = figure[len(task) + 1 :]
            rows = self.tasks[task]
            if any(score not in row.scores for row in rows.values()):
                return None
            return Sample(tuple(rows), tuple(row.scores[score] for row in rows.values()), (1.0,) * len(rows))
        above, below, factor = _RATIOS.get(figure, ("", "", 0.0))
        if not self.documents or any(not {above, below} <= sums.keys() for sums in self.documents.values()):
            return None
        sums = self.documents.values()
        return Sample(
            tuple(self.documents),
            tuple(factor * row[above] for row in sums),
            tuple(row[below] for row in sums),
            figure in _EXPONENTIAL,
        )

    def classes(self, task: str) -> tuple[str, ...]:
        """The labels of a classification in the order of its report; none where it has no such table."""
        return tuple(str(row[0]) for row in self.tables.get(task, {}).get("classes", {}).get("rows", ()))

    def measured_on(self, figure: str) -> tuple[str, ...]:
        """What tells the data of a figure from other data: ids of its items or documents, sorted; where there are
        none the content hashes of the data and the keys that choose from it."""
        task = self.task_of(figure)
        if task is not None:
            return tuple(sorted(self.tasks[task]))
        is_chat = figure.startswith("chat")
        if self.documents and not is_chat:
            return tuple(sorted(self.documents))
        roles = ("chats",) if is_chat else ("tokens", "text")
        keys = ("val_share",) if is_chat else ("split", "limit", "separator")
        hashes = sorted(entry.content_sha256 for entry in self.inputs if entry.role in roles)
        return (*hashes, *(f"{key}={self.spec[key]}" for key in keys if key in self.spec))


def read_evaluation(directory: Path) -> Evaluation:
    """The evaluation in `directory` (evals/NAME). ArtifactError where there is none or it cannot be read."""
    manifest = read_manifest(directory, KIND)
    problems = verify_files(directory, manifest)
    if problems:
        raise ArtifactError(f"{directory} is damaged: {problems[0]}", "measure it again with --force")
    report = _read_report(directory)
    figures = {**_numbers(manifest.stats), **_numbers(report.get("figures", {}))}
    intervals = {
        name: (_number(ends[0]), _number(ends[1])) for name, ends in report.get("intervals", {}).items() if ends
    }
    return Evaluation(
        directory.name,
        figures,
        intervals,
        str(manifest.spec.get("model", report.get("model", ""))),
        manifest.spec,
        manifest.inputs,
        manifest.records,
        {task: told.get("tables", {}) for task, told in report.get("tasks", {}).items()},
        directory,
    )


def _read_report(directory: Path) -> dict[str, Any]:
    path = directory / REPORT
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(report, dict):
            raise ValueError("it is no table")
        return report
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}", "measure it again with --force") from error


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Figures: what is a number, or is none where one was to be (null)."""
    return {name: _number(value) for name, value in values.items() if value is None or _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _batches(directory: Path | None, name: str) -> list[Any]:
    """The record batches of an Arrow file; none where there is no such file."""
    if directory is None or not (directory / name).is_file():
        return []
    import pyarrow as pa

    try:
        with pa.memory_map(str(directory / name)) as source, pa.ipc.open_file(source) as reader:
            return [reader.get_batch(number) for number in range(reader.num_record_batches)]
    except (pa.ArrowInvalid, OSError) as error:
        raise ArtifactError(f"{directory / name} cannot be read: {error}", "measure it again with --force") from error
