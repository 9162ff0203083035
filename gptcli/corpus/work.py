"""Where a corpus's work runs: in processes here, or in tasks on a Ray cluster; the results are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from gptcli.corpus.spec import CorpusSpec
from gptcli.runtime.executor import default_workers, map_where

Item = TypeVar("Item")
Result = TypeVar("Result")

SMALL = 16_000_000  # bytes of text; starting worker processes costs more than it saves below


def workers_of(spec: CorpusSpec, size: int) -> int:
    """The processes asked for, or as many as are worth starting for `size` bytes."""
    return spec.workers or (default_workers() if size >= SMALL else 1)


def mapped(
    spec: CorpusSpec, function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """`function` of every item, in the items' order."""
    return map_where(spec.executor, function, items, spec.workers if spec.executor == "ray" else workers)
