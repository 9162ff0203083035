from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gptcli import stage
from gptcli.artifacts.build import Build
from gptcli.artifacts.manifest import Inputs, read_manifest
from gptcli.artifacts.project import Project
from gptcli.artifacts.schemas import CORPUS_SCHEMA
from gptcli.artifacts.shards import ShardWriter, open_shard
from gptcli.errors import ArtifactError
from gptcli.options import Shared
from gptcli.progress import Silent
from gptcli.tokenize.views import inspect, measures, sample
from gptcli.tokenize.views.sample import Sources
from gptcli.tokenizer import Tokenizer


def write_corpus(root: Path, splits: dict[str, list[dict[str, Any]]], source: Any) -> None:
    build = Build.open(
        Project.open(root).place("corpus", "main"), kind="corpus", spec={"source": source}, inputs=Inputs(), say=print
    )
    rows = {}
    for split, documents in splits.items():
        writer = ShardWriter(build.directory / f"{split}-00000.arrow", CORPUS_SCHEMA, "zstd", rows_per_batch=64)
        for number, document in enumerate(documents):
            size = len(document["text"].encode())
            row = {"id": f"{number:032x}", "member": None, "source_offset": 0, "source_bytes": size, "license": None}
            writer.write(pa.Table.from_pylist([{"meta": None, **row, **document}], CORPUS_SCHEMA))
        rows[f"{split}-00000.arrow"] = writer.close()
    build.commit({}, {}, rows)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, code_texts: list[str]) -> Path:
    """Code from one source, and two languages from another; nobody changes it."""
    home = tmp_path_factory.mktemp("made")
    lines = [line for line in code_texts[0].splitlines(keepends=True) if line.strip()][:600]
    code = [{"text": line, "path": "code/ast.py"} for line in lines]
    english = {"text": "the quick brown fox", "path": "texts/a.txt", "meta": json.dumps({"language": "en"})}
    german = {"text": "Äpfel über Öfen\u2581", "path": "texts/b.txt", "meta": json.dumps({"lang": "de", "n": 1})}
    texts = [english, german, english]
    write_corpus(home, {"train": [*code, *texts], "val": [*code[:40], *texts]}, ["code", {"path": "texts/*.txt"}])
    stage.execute("tokenize", Shared(project=home, settings=["workers=1", "vocab_size=500"], quiet=True), {})
    return home


def report(root: Path, *others: str) -> dict[str, Any]:
    return inspect.report(Project.open(root), None, others, Silent()).figures


def test_the_report(root: Path) -> None:
    told = report(root)
    own = told["tokenizers"][0]
    tokenizer = Tokenizer.load(root / "tokens/main/tokenizer")
    texts = open_shard(root / "corpus/main/val-00000.arrow").read_all()["text"].to_pylist()
    ids = [tokenizer.encode(text) for text in texts]
    size, count = sum(len(text.encode()) for text in texts), sum(map(len, ids))
    assert told["sample"] == {"split": "val", "documents": 43, "bytes": size, "every": 1, "cut": 0}
    assert own["tokenizer"] == "tokens/main" and own["vocab_size"] == 500
    assert (own["bytes"], own["tokens"], own["documents"]) == (size, count, 43)
    assert own["bytes_per_token"] == round(size / count, 4)
    assert own["chars_per_token"] == round(sum(map(len, texts)) / count, 4)
    assert own["tokens_per_word"] == round(count / sum(len(text.split()) for text in texts), 4)
    singles = sum(tokenizer.piece(token).startswith("<0x") for row in ids for token in row)
    assert own["byte_share"] == round(singles / count, 6) and singles > 0 and own["unknown_share"] == 0
    assert own["lossless_share"] == 1
    assert [(one["source"], one["documents"]) for one in own["by_source"]] == [("code", 40), ("texts/*.txt", 3)]
    assert [(one["language"], one["documents"]) for one in own["by_language"]] == [("en", 2), ("de", 1)]
    assert sum(one["tokens"] for one in own["by_source"]) == count
    assert told["trained"]["is_trained"] and told["trained"]["spec"]["vocab_size"] == 500
    assert told["not_told"] == []


def test_the_vocabulary_in_use(root: Path) -> None:
    told = report(root)
    rows = open_shard(root / "tokens/main/train-00000.arrow").read_all()["tokens"].to_pylist()
    counts = np.bincount([token for row in rows for token in row], minlength=500)
    used = told["vocabulary"]
    assert used["pieces"] == 500 - 22 - 256 and used["byte_ids"] == 256
    assert used["unused_pieces"] == int((counts[278:] == 0).sum())
    assert used["unused_byte_ids"] == int((counts[22:278] == 0).sum()) < 256
    tokenizer = Tokenizer.load(root / "tokens/main/tokenizer")
    longest = max(len(tokenizer.piece(token).replace("\u2581", " ").encode()) for token in range(278, 500))
    assert used["longest"][0]["bytes"] == longest
    assert all(one["count"] == counts[one["id"]] for one in used["longest"])
    lengths = np.sort([len(row) for row in rows])
    expected = {f"p{percent}": int(lengths[-(-percent * len(rows) // 100) - 1]) for percent in (5, 50, 95)}
    assert told["tokens_per_document"] == expected and told["foreign_ids"] == 0


def test_tokenizers_beside_it(root: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = (f"{data_dir}/gpt2-bpe-vocab", f"{data_dir}/stories260K-hf", "main")
    shown = inspect.report(Project.open(root), None, others, Silent())
    own, gpt2, stories, again = shown.figures["tokenizers"]
    assert gpt2["vocab_size"] == 50257 and gpt2["lossless_share"] == 1 and gpt2["bytes"] == own["bytes"]
    assert stories["lossless_share"] < 1 and [one["language"] for one in stories["by_language"]] == ["en", "de"]
    assert {**again, "tokenizer": "", "path": ""} == {**own, "tokenizer": "", "path": ""}
    inspect.print_shown(shown, as_json=False)
    out = capsys.readouterr().out
    assert "bytes a token" in out and "  texts/*.txt" in out and "every" not in out
    inspect.print_shown(shown, as_json=True)
    assert json.loads(capsys.readouterr().out)["vocabulary"]["size"] == 500


def test_without_the_corpus_the_rest_is_told(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(root / "tokens", tmp_path / "tokens")
    shown = inspect.report(Project.open(tmp_path), None, ["main"], Silent())
    told = shown.figures
    assert told["sample"] is None and "is gone" in told["not_told"][0]
    assert told["vocabulary"] == report(root)["vocabulary"]
    assert told["tokenizers"][0] == {"tokenizer": "tokens/main", "path": "tokens/main/tokenizer", "vocab_size": 500}
    inspect.print_shown(shown, as_json=False)
    assert "not told" in capsys.readouterr().out
    with pytest.raises(ArtifactError, match="there are no tokens/other"):
        inspect.report(Project.open(tmp_path), "other", [], Silent())


def test_a_sample_is_spread_and_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "SAMPLE_BYTES", 4000)
    told = report(root)["sample"]
    whole = read_manifest(root / "tokens/main").stats["splits"]["val"]
    assert told["every"] == -(-whole["bytes"] // 4000) and told["documents"] == -(-43 // told["every"])
    monkeypatch.setattr(sample, "SAMPLE_DOCUMENTS", 1)
    one = report(root)["sample"]
    assert one["every"] == 43 and one["documents"] == 3  # every 16th of the one batch
    monkeypatch.setattr(sample, "SAMPLE_DOCUMENTS", 1000)
    monkeypatch.setattr(sample, "SAMPLE_BYTES", 8_000_000)
    monkeypatch.setattr(sample, "MOST_OF_ONE", 17)
    cut = report(root)
    assert cut["sample"]["cut"] > 10 and cut["tokenizers"][0]["lossless_share"] == 1


def test_train_is_measured_where_there_is_no_val(tmp_path: Path, root: Path) -> None:
    write_corpus(tmp_path, {"train": [{"text": "def f(x): return x\n" * 3, "path": "y.py"}]}, ["x.py"])
    shutil.copytree(root / "tokens/main/tokenizer", tmp_path / "tokenizer")
    stage.execute("tokenize", Shared(project=tmp_path, settings=["workers=1", "tokenizer=./tokenizer"], quiet=True), {})
    told = report(tmp_path)
    assert told["sample"]["split"] == "train" and not told["trained"]["is_trained"]
    assert [one["source"] for one in told["tokenizers"][0]["by_source"]] == ["(other)"]
    assert "names no languages" in told["not_told"][0]


def test_texts_without_tokens_divide_nothing() -> None:
    told = measures.figures(np.zeros((0, len(measures.COLUMNS)), np.int64))
    assert told["bytes_per_token"] is None and told["lossless_share"] is None and told["documents"] == 0


@pytest.mark.parametrize(
    ("typed", "path", "source"),
    [
        (["a", "a/b"], "a/b/c.txt", "a/b"),
        (["a/", "b"], "a/x.txt", "a/"),
        (["a.txt", "a"], "a.txt", "a.txt"),
        (["a"], "ab/x.txt", None),
        (["notes/*.jsonl"], "notes/x.jsonl", "notes/*.jsonl"),
        (["notes/*.jsonl"], "notes/deep/x.jsonl", None),
        (["notes/**"], "notes/deep/x.jsonl", "notes/**"),
        (["n[!x]te?/*"], "notes/x", "n[!x]te?/*"),
        (["*"], "folder/inside.txt", "*"),
        (["python:stdlib"], "python:stdlib/json/decoder.py", "python:stdlib"),
        (
            ["https://u:p@x.org/a?b=[1]#sha256=" + "0" * 64],
            "https://x.org/a?b=[1]",
            "https://u:p@x.org/a?b=[1]#sha256=",
        ),
        ([{"path": "a", "weight": 2.0}, "-"], "-", "-"),
        (None, "a", None),
        ("a", "a/b", "a"),
    ],
    ids=str,
)
def test_the_source_of_a_path(typed: Any, path: str, source: str | None) -> None:
    sources = Sources(typed)
    number = sources.number(path)
    name = None if number == len(sources.names) else sources.names[number]
    assert name == source or (source is not None and name is not None and name.startswith(source))
