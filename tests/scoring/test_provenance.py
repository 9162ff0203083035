from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gptcli.artifacts.manifest import Input, Inputs, make_manifest, read_manifest, write_manifest
from gptcli.artifacts.project import Project
from gptcli.artifacts.schemas import CORPUS_SCHEMA
from gptcli.artifacts.shards import ShardWriter
from gptcli.corpus.ngrams import write_ngrams
from gptcli.scoring.provenance import (
    corpora_of_model,
    corpus_of_tokens,
    count_words,
    split_origins,
    train_ngrams,
)

LONG = " ".join(f"word {chr(97 + number)}" for number in range(20))
TEXTS = [("a/x.txt", "one two  three\n"), ("b.txt", ""), ("a/y.txt", LONG)]


def make(project: Project, path: str, kind: str, *inputs: Input) -> Input:
    """An artifact that says what it was made of."""
    place = project.root / path
    place.mkdir(parents=True, exist_ok=True)
    write_manifest(place, make_manifest(kind, {"at": path}, Inputs(inputs), (), {}, {}))
    (place / "config.json").write_text("{}")
    return Input(kind, path, read_manifest(place).content_sha256)


def as_(role: str, entry: Input) -> Input:
    return Input(role, entry.path, entry.content_sha256)


def make_corpus(project: Project, name: str, ngrams: bool = True) -> Input:
    entry = make(project, f"corpus/{name}", "corpus", Input("source", name, "0"))
    place = project.root / entry.path
    for split in ("train", "val"):
        writer = ShardWriter(place / f"{split}-00000.arrow", CORPUS_SCHEMA, rows_per_batch=2)
        rows = [{"id": "0", "text": text, "path": path, "source_offset": 0, "source_bytes": 1} for path, text in TEXTS]
        writer.write(pa.Table.from_pylist(rows, schema=CORPUS_SCHEMA))
        writer.close()
    if ngrams:
        (place / "ngrams").mkdir()
        write_ngrams(place / "train-00000.arrow", place / "ngrams" / "train-00000.arrow")
    return entry


@pytest.fixture
def chained(project: Project) -> Project:
    """Two corpora, tokens of each, a run on each (the second begun from the first), an adapter, an average."""
    tokens = [
        make(project, f"tokens/{name}", "tokens", as_("corpus", make_corpus(project, name))) for name in ("one", "two")
    ]
    first = make(project, "runs/first/checkpoints/step-00000005", "checkpoint", as_("tokens", tokens[0]))
    second = make(
        project, "runs/second/checkpoints/step-00000005", "checkpoint", as_("tokens", tokens[1]), as_("base", first)
    )
    make(project, "runs/chat/checkpoints/step-00000005", "checkpoint", as_("base", first), Input("chats", "c", "0"))
    make(project, "runs/mean/checkpoints/step-00000005", "checkpoint", as_("model", first), as_("model", second))
    make(project, "models/m/1.0.0", "version", Input("checkpoint", "runs/gone", "0"), as_("tokens", tokens[0]))
    make(project, "elsewhere", "checkpoint")
    return project


@pytest.mark.parametrize(
    ("ref", "names"),
    [
        ("first", ["one"]),
        ("second", ["two", "one"]),
        ("chat", ["one"]),
        ("mean", ["one", "two"]),
        ("m:1.0.0", ["one"]),
    ],
)
def test_the_corpora_that_a_model_learnt_from(chained: Project, ref: str, names: list[str]) -> None:
    behind = corpora_of_model(chained, ref)
    assert [corpus.name for corpus in behind.corpora] == names and behind.missing == ()
    indexes, missing = train_ngrams(behind)
    assert len(indexes) == len(names) and missing == () and len(indexes[0]) == 28


def test_what_is_not_there_is_told(chained: Project) -> None:
    assert corpora_of_model(chained, "./elsewhere") == ((), ("./elsewhere was not trained on tokens of this project",))
    shutil.rmtree(chained.root / "corpus/one/ngrams")
    indexes, missing = train_ngrams(corpora_of_model(chained, "second"))
    assert len(indexes) == 1 and re.search("no n-grams of the split train in .*corpus/one", missing[0])
    shutil.rmtree(chained.root / "corpus/one")
    assert corpora_of_model(chained, "first") == ((), ("corpus/one is gone",))
    assert corpus_of_tokens(chained, chained.root / "tokens/one").reason == "corpus/one is gone"
    make(chained, "corpus/two", "corpus", Input("source", "others", "1"))
    assert corpora_of_model(chained, "mean").missing == ("corpus/one is gone", "corpus/two has changed since")
    (chained.root / "tokens/one/manifest.json").unlink()
    assert corpora_of_model(chained, "first").reason == "tokens/one does not say what it was made of"
    (chained.root / "tokens/two/manifest.json").write_text("{")
    assert "cannot be read" in corpora_of_model(chained, "second").reason


def test_words_and_paths_of_a_split(chained: Project) -> None:
    (corpus,) = corpus_of_tokens(chained, chained.root / "tokens/two").corpora
    found = split_origins(corpus, "val")
    assert found.paths == [path for path, _ in TEXTS]
    assert found.words.tolist() == [len(re.split(r"\s+", text)) for _, text in TEXTS] == [4, 1, 40]
    assert split_origins(corpus, "val", 2).words.tolist() == [4, 1]
    assert np.array_equal(split_origins(Path(corpus), "test").words, [])
    assert count_words("a\u00a0b c") == 3
