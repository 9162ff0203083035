from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from gptcli.artifacts.build import Build
from gptcli.artifacts.manifest import Inputs
from gptcli.artifacts.project import Project
from gptcli.artifacts.schemas import CORPUS_SCHEMA
from gptcli.artifacts.shards import ShardWriter, shard_name
from gptcli.tokenize.learning.train import count_words, train_model


@pytest.fixture(scope="session")
def code_texts() -> list[str]:
    """Real text that every machine has: some of the standard library's own source."""
    folder = Path(ast.__file__).parent
    return [(folder / name).read_text(encoding="utf-8") for name in ("ast.py", "inspect.py", "argparse.py", "heapq.py")]


@pytest.fixture(scope="session")
def code_model(code_texts: list[str]) -> bytes:
    """A lossless model of ours, 1,000 ids."""
    return train_model(count_words([pa.array(code_texts, pa.large_string())]), vocab_size=1000)


@pytest.fixture
def write_corpus() -> Callable[[Project, dict[str, list[list[str]]]], list[str]]:
    return _write_corpus


def _write_corpus(project: Project, shards: dict[str, list[list[str]]], name: str = "main") -> list[str]:
    """A finished corpus artifact; returns every text in shard order."""
    build = Build.open(
        project.place("corpus", name), kind="corpus", spec={"made": "for a test"}, inputs=Inputs(), say=print
    )
    rows = {}
    for split, parts in shards.items():
        for number, texts in enumerate(parts):
            file = shard_name(split, number)
            writer = ShardWriter(build.directory / file, CORPUS_SCHEMA, "zstd", rows_per_batch=64)
            for text in texts:
                data = text.encode()
                row = {
                    "id": hashlib.sha256(data).hexdigest()[:32],
                    "text": text,
                    "path": "x.txt",
                    "member": None,
                    "source_offset": 0,
                    "source_bytes": len(data),
                    "license": None,
                    "meta": None,
                }
                writer.write(pa.Table.from_pylist([row], CORPUS_SCHEMA))
            rows[file] = writer.close()
    build.commit({}, {}, rows)
    return [text for parts in shards.values() for texts in parts for text in texts]
