"""Where a corpus's work runs: in processes here, or in tasks on a Ray cluster; the results are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from gptcli.corpus.spec import CorpusSpec
from gptcli.job import Job
from gptcli.runtime.cluster import map_on_ray
from gptcli.runtime.executor import default_workers, map_ordered

Item = TypeVar("Item")
Result = TypeVar("Result")

_SMALL = 32_000_000  # raw bytes; starting worker processes costs more than it saves below


def workers_of(spec: CorpusSpec, job: Job) -> int:
    """The processes asked for, or as many as are worth starting."""
    if spec.workers:
        return spec.workers
    return default_workers() if sum(source.bytes for source in job.inputs.sources) >= _SMALL else 1


def mapped(
    spec: CorpusSpec, function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """`function` of every item, in the items' order."""
    if spec.executor == "ray":
        return map_on_ray(function, items, spec.workers)
    return map_ordered(function, items, workers)
