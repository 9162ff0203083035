"""Tasks of lm-evaluation-harness as part of an evaluation: figures, intervals, and items that can be paired."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gptcli.errors import SpecError
from gptcli.eval.measurement import Measurement
from gptcli.scoring.engine import Answering
from gptcli.scoring.harness import run_harness
from gptcli.scoring.intervals import Interval, bootstrap_mean
from gptcli.scoring.judged import Judged

_STDERR = "_stderr"


def measure_harness(measurement: Measurement, engine: Answering) -> None:
    """Run the harness's tasks of the spec. Raises SpecError as `run_harness` does."""
    spec, job = measurement.spec, measurement.job
    job.progress.say(f"lm-evaluation-harness: {', '.join(spec.harness)}")
    found = run_harness(
        spec.harness,
        measurement.tokenizer,
        engine,
        max_positions=measurement.model.config.max_position_embeddings,
        num_fewshot=None if spec.harness_shots < 0 else spec.harness_shots,
        limit=spec.harness_limit,
        include_path=job.project.path(spec.harness_path) if spec.harness_path else None,
        offline=spec.offline,
        chat=measurement.chat_tuned if spec.harness_chat == "auto" else spec.harness_chat,
    )
    twice = sorted(found.samples.keys() & measurement.judged.keys())
    if twice:
        raise SpecError(f"{twice[0]} is a task of the harness and a task file", 'give the task file another name = "…"')
    measurement.figures |= {name: value for name, value in found.figures.items() if _STDERR not in name}
    for task, rows in found.samples.items():
        items = list(_items(task, rows))
        measurement.judged[task] = items
        measurement.figures[f"{task}.items"] = len(items)
        measurement.first[task] = [name.partition(".")[2] for name in found.figures if _is_of(name, task)]
        ends = _intervals(task, items)
        measurement.intervals |= {name: ends[name] for name in ends if name in measurement.figures}
    measurement.told["harness"] = {
        "version": found.harness,
        "versions": found.versions,
        "shots": found.shots,
        "figures": {name: value for name, value in found.figures.items() if _STDERR not in name},
    }


def _intervals(task: str, items: Sequence[Judged]) -> dict[str, Interval]:
    """Of the figures that are means over items; the harness may aggregate others in ways of its own."""
    names = {name for row in items for name in row.scores}
    whole = [name for name in sorted(names) if all(name in row.scores for row in items)]
    found = {f"{task}.{name}": bootstrap_mean([row.scores[name] for row in items]) for name in whole}
    return {name: ends for name, ends in found.items() if all(map(math.isfinite, ends))}


def _is_of(name: str, task: str) -> bool:
    return name.startswith(f"{task}.") and _STDERR not in name


def _items(task: str, samples: Sequence[Mapping[str, Any]]) -> Iterator[Judged]:
    """The harness's logged samples, one a document, the scores of all its filters together."""
    documents: dict[int, list[Mapping[str, Any]]] = {}
    for sample in samples:
        documents.setdefault(sample["doc_id"], []).append(sample)
    for number, rows in documents.items():
        first = rows[0]
        yield Judged(
            task,
            f"{first['doc_hash']}-{number}",
            f"{task} document {number}",
            _prompt(first),
            str(first["target"]),
            str(first["filtered_resps"]),
            dict(score for row in rows for score in _scores(row)),
        )


def _scores(sample: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    chosen = sample.get("filter", "none")
    for metric in sample.get("metrics", ()):
        value = sample.get(metric)
        if isinstance(value, bool | int | float):
            yield (metric if chosen == "none" else f"{metric}.{chosen}"), float(value)


def _prompt(sample: Mapping[str, Any]) -> str:
    """The first request's context."""
    arguments = sample["arguments"]
    first = next(iter(arguments.values())) if isinstance(arguments, Mapping) else arguments[0]
    return str(next(iter(first.values())) if isinstance(first, Mapping) else first[0])
