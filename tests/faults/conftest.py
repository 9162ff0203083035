"""Corpora written directly, of any texts and any number of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from gptcli.artifacts.build import Build
from gptcli.artifacts.manifest import Inputs
from gptcli.artifacts.project import Project
from gptcli.artifacts.schemas import CORPUS_SCHEMA
from gptcli.artifacts.shards import ShardWriter, shard_name

ROWS = 1 << 16  # of a shard made at once
Texts = Callable[[int, int], list[str]]  # the texts numbered from a first one up to, and without, a last one


@pytest.fixture(scope="session")
def write_texts() -> Callable[[Path, dict[str, list[tuple[int, Texts]]]], None]:
    return write_corpus


def write_corpus(root: Path, splits: dict[str, list[tuple[int, Texts]]]) -> None:
    """A finished corpus: for each split its shards, each so many texts of a kind."""
    project = Project.open(root)
    build = Build.open(
        project.place("corpus", "main"), kind="corpus", spec={"made": "for a test"}, inputs=Inputs(), say=print
    )
    rows = {}
    for split, shards in splits.items():
        for number, (count, texts) in enumerate(shards):
            name = shard_name(split, number)
            writer = ShardWriter(build.directory / name, CORPUS_SCHEMA, "zstd")
            for first in range(0, count, ROWS):
                last = min(first + ROWS, count)
                writer.write(table(texts(first, last), first))
            rows[name] = writer.close()
    build.commit({}, {}, rows)


def table(texts: list[str], first: int) -> pa.Table:
    count = len(texts)
    nothing, zeros = pa.nulls(count, pa.string()), pa.array([0] * count, pa.int64())
    ids = pa.array([f"{number:032x}" for number in range(first, first + count)])
    paths = pa.array(["x.txt"] * count)
    columns = [ids, pa.array(texts, pa.large_string()), paths, nothing, zeros, zeros, nothing, nothing]
    return pa.table(columns, schema=CORPUS_SCHEMA)
