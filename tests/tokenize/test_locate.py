from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gptcli import stage
from gptcli.artifacts.project import Project
from gptcli.artifacts.shards import open_shard
from gptcli.artifacts.tokens import TokenStream
from gptcli.errors import ArtifactError, SpecError
from gptcli.options import Shared
from gptcli.tokenize.views import locate as view
from gptcli.tokenize.views.awkward import AWKWARD
from gptcli.tokenizer import Tokenizer

WriteCorpus = Callable[..., list[str]]


@pytest.fixture(scope="module")
def built() -> dict[str, Path]:
    """Where the first test that needed it made the artifact; nobody changes it."""
    return {}


@pytest.fixture
def root(
    built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, write_corpus: WriteCorpus, code_texts: list[str]
) -> Path:
    """Two shards of train, more rows than one batch has, escapes and an empty document among them."""
    if "home" not in built:
        home = tmp_path_factory.mktemp("made")
        lines = [line for line in code_texts[1].splitlines(keepends=True) if line.strip()]
        write_corpus(Project.open(home), {"train": [[*lines[:1500], *AWKWARD], [code_texts[3], ""]], "val": [["one"]]})
        shared = Shared(project=home, settings=["workers=1", "vocab_size=500"], quiet=True)
        stage.execute("tokenize", shared, {})
        built["home"] = home
    return built["home"]


def locate(root: Path, wanted: str) -> dict[str, Any]:
    return view.locate(Project.open(root), None, wanted).figures


def rows_of(root: Path, split: str) -> list[dict[str, Any]]:
    paths = sorted((root / "tokens/main").glob(f"{split}-*.arrow"))
    return [
        {**row, "shard": path.name, "row": number}
        for path in paths
        for number, row in enumerate(open_shard(path).read_all().to_pylist())
    ]


def test_every_kind_of_position_leads_back(root: Path) -> None:
    tokenizer = Tokenizer.load(root / "tokens/main/tokenizer")
    stream = TokenStream.open(root / "tokens/main", "train")
    texts = {
        row["id"]: row["text"].encode()
        for name in ("train-00000.arrow", "train-00001.arrow")
        for row in open_shard(root / "corpus/main" / name).read_all().to_pylist()
    }
    position = 0
    for number, row in enumerate(rows_of(root, "train")):
        size = len(row["tokens"])
        inside = {0, 1, size // 2, size - 1} if number % 500 == 0 or row["row"] > 1515 else set()
        for token in sorted(inside):
            told = locate(root, f"train:{position + token}")
            assert (told["shard"], told["row"], told["document"]) == (row["shard"], row["row"], row["document"])
            assert (told["token"], told["tokens"]) == (token, size) and told["batch"] == row["row"] // 1024
            assert told["id"] == int(stream.read(position + token, position + token + 1)[0]) == row["tokens"][token]
            data = texts[row["document"]]
            before = row["tokens"][:token]
            if not data.decode().count("\ue000") + data.decode().count("\u2581"):
                assert told["offset"] == len(tokenizer.decode(before).encode()) or "\ufffd" in tokenizer.decode(before)
            assert 0 <= told["offset"] <= told["offset"] + told["bytes"] <= len(data) == told["text_bytes"]
            assert told["source"]["path"] == "x.txt" and told["source"]["source_bytes"] == len(data)
            assert told["not_told"] == []
        position += size
    assert position == len(stream)


def test_tokens_of_a_document_tile_its_text(root: Path) -> None:
    rows = rows_of(root, "train")
    wanted = AWKWARD[20]  # full of escapes
    number = next(number for number, row in enumerate(rows) if row["row"] == 1500 + 20)
    begin = sum(len(row["tokens"]) for row in rows[:number])
    parts, at = [], 0
    for token in range(len(rows[number]["tokens"])):
        told = locate(root, f"train:{begin + token}")
        assert told["offset"] == at or told["is_control"]
        at += told["bytes"]
        parts.append(wanted.encode()[told["offset"] : told["offset"] + told["bytes"]])
    assert b"".join(parts) == wanted.encode()


def test_what_a_person_reads(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = view.locate(Project.open(root), None, "val:1")
    view.print_shown(report, as_json=False)
    out = capsys.readouterr().out
    assert out.startswith("tokens/main val:1\n") and "val-00000.arrow, batch 0, row 0" in out and "⟦o" in out
    view.print_shown(report, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["split"] == "val" and told["offset"] == 0 and told["path"] == "tokens/main"
    first = view.locate(Project.open(root), None, "val:0")
    assert first.figures["is_control"]
    view.print_shown(first, as_json=False)
    assert "⟦<s>⟧one" in capsys.readouterr().out


@pytest.mark.parametrize("wanted", ["val", "val:", ":3", "val:-1", "val:x", "all:1", "val:1:2", "val:٣", "val:1e3"])
def test_words_that_name_no_token(root: Path, wanted: str) -> None:
    with pytest.raises(SpecError, match="names no token"):
        locate(root, wanted)


def test_positions_that_are_not_there_name_the_range(root: Path) -> None:
    count = len(TokenStream.open(root / "tokens/main", "train"))
    assert locate(root, f"train:{count - 1}")["piece"] == "</s>"
    with pytest.raises(SpecError, match=f"positions go from 0 to {count - 1:,}"):
        locate(root, f"train:{count}")
    with pytest.raises(SpecError, match="behind the end"):
        locate(root, f"train:{10**17}")
    with pytest.raises(SpecError, match="no test split") as caught:
        locate(root, "test:0")
    assert "train, val" in caught.value.hint


def test_without_the_corpus_the_document_is_told(root: Path, tmp_path: Path, write_corpus: WriteCorpus) -> None:
    copied = tmp_path / "project"
    shutil.copytree(root, copied)
    shutil.rmtree(copied / "corpus")
    told, before = locate(copied, "train:5000"), locate(root, "train:5000")
    assert told["source"] is None and "is gone" in told["not_told"][0]
    same = ("document", "row", "token", "offset", "bytes", "before", "text", "after")
    assert all(told[key] == before[key] for key in same)
    write_corpus(Project.open(copied), {"train": [["something else"]]})
    assert "has changed" in locate(copied, "train:5000")["not_told"][0]


def test_a_tokenizer_that_joins_with_spaces(root: Path, tmp_path: Path, data_dir: Path) -> None:
    copied = tmp_path / "project"
    shutil.copytree(root / "corpus", copied / "corpus")
    shared = Shared(project=copied, settings=["workers=1", f"tokenizer={data_dir}/stories260K-hf"], quiet=True)
    stage.execute("tokenize", shared, {})
    first, second = locate(copied, "val:1"), locate(copied, "val:2")
    assert not first["exact"] and first["offset"] == 0 and second["offset"] == first["bytes"]


def test_a_broken_shard_is_named(root: Path, tmp_path: Path) -> None:
    copied = tmp_path / "project"
    shutil.copytree(root, copied)
    path = copied / "tokens/main/train-00000.arrow"
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ArtifactError, match=r"train-00000\.arrow cannot be read"):
        locate(copied, "train:1")
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, pa.schema([("x", pa.int64())])) as writer:
        writer.write_batch(pa.record_batch({"x": [1]}))
    with pytest.raises(ArtifactError, match="cannot be read"):
        locate(copied, "train:1")
