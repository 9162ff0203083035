"""The same tokens on a Ray cluster of two workers as in this process, byte for byte."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gptcli.artifacts.project import Project
from gptcli.errors import ArtifactError
from gptcli.job import Job
from gptcli.progress import Silent
from gptcli.tokenize import run
from gptcli.tokenize.spec import TokenizeSpec, inputs

ray = pytest.importorskip("ray")

PACKING = [{"seq_len": 64, "splits": ["train", "val"]}]
WAYS: dict[str, dict[str, Any]] = {
    "bpe": {"vocab_size": 600, "packing": PACKING},
    "a sample": {"vocab_size": 500, "sample_bytes": 40_000, "packing": PACKING},
    "unigram": {"vocab_size": 600, "model_type": "unigram"},
    "taken": {"tokenizer": "./model", "packing": PACKING},
}


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Ended behind the last test; `map_on_ray` starts it."""
    yield
    ray.shutdown()


@pytest.fixture
def corpus(
    project: Project, code_texts: list[str], code_model: bytes, write_corpus: Callable[..., list[str]]
) -> Project:
    """Five shards of train, one of val, and a tokenizer."""
    lines = [text.splitlines(keepends=True) for text in code_texts]
    write_corpus(project, {"train": [*(each[:300] for each in lines), lines[0][300:500]], "val": [lines[1][300:400]]})
    (project.root / "model").mkdir()
    (project.root / "model" / "tokenizer.model").write_bytes(code_model)
    return project


def build(project: Project, name: str, **keys: Any) -> Any:
    spec = TokenizeSpec.model_validate(keys)
    job = Job(project, name, project.place("tokens", name), inputs(spec, project, None), Silent())
    job.place.parent.mkdir(parents=True, exist_ok=True)
    return run.run(spec, job)


@pytest.mark.parametrize("way", WAYS)
def test_same_bytes_as_here(way: str, corpus: Project) -> None:
    here = build(corpus, "here", workers=1, **WAYS[way])
    there = build(corpus, "there", executor="ray", workers=2, **WAYS[way])
    assert there.content_sha256 == here.content_sha256 and there.files == here.files
    assert there.stats == here.stats


def test_a_broken_shard_is_told_from_there(corpus: Project) -> None:
    shard: Path = corpus.place("corpus", "main") / "train-00003.arrow"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match=r"train-00003\.arrow cannot be read"):
        build(corpus, "there", executor="ray", workers=2, **WAYS["taken"])


@pytest.mark.parametrize("way", ["bpe", "taken"])
def test_any_number_of_processes(way: str, corpus: Project) -> None:
    made = [build(corpus, f"with-{workers}", workers=workers, **WAYS[way]) for workers in (1, 2, 3)]
    assert len({manifest.content_sha256 for manifest in made}) == 1
