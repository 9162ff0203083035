from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from gptcli import stage
from gptcli.artifacts.build import partial_path
from gptcli.artifacts.manifest import Manifest, read_manifest, verify_files
from gptcli.artifacts.project import Project
from gptcli.artifacts.schemas import TOKENS16_SCHEMA
from gptcli.artifacts.shards import open_shard
from gptcli.errors import ArtifactError, SpecError, StoppedError
from gptcli.options import Shared
from gptcli.runtime.stop import Stop
from gptcli.tokenizer import Tokenizer

WriteCorpus = Callable[..., list[str]]


@pytest.fixture
def shards(code_texts: list[str]) -> dict[str, list[list[str]]]:
    """Three shards of train and one of val, of real lines and awkward ones."""
    lines = [line for text in code_texts for line in text.splitlines(keepends=True) if line.strip()]
    awkward = ["\u2581 \ue000B", "tab\tand\0nul", "", "  spaces  ", "\r\n"]
    return {
        "train": [lines[:2500], lines[2500:3000] + awkward, code_texts[:2]],
        "val": [[*lines[3000:3050], code_texts[3]]],
    }


@pytest.fixture
def root(tmp_path: Path, write_corpus: WriteCorpus, shards: dict[str, list[list[str]]]) -> Path:
    write_corpus(Project.open(tmp_path), shards)
    return tmp_path


def tokenize(root: Path, *settings: str, vocab_size: int | None = 600, name: str = "main", **flags: bool) -> Manifest:
    shared = Shared(project=root, name=name, settings=["workers=1", *settings], quiet=True, **flags)
    stage.execute("tokenize", shared, {"vocab_size": vocab_size})
    return read_manifest(root / "tokens" / name, "tokens")


def test_token_shards_follow_the_corpus(root: Path) -> None:
    manifest = tokenize(root)
    place = root / "tokens" / "main"
    tokenizer = Tokenizer.load(place / "tokenizer")
    assert tokenizer.vocab_size == 600
    names = ["train-00000.arrow", "train-00001.arrow", "train-00002.arrow", "val-00000.arrow"]
    assert sorted(path.name for path in place.glob("*.arrow")) == names
    for name in names:
        reader, source = open_shard(place / name), open_shard(root / "corpus" / "main" / name).read_all()
        assert reader.schema == TOKENS16_SCHEMA
        table = reader.read_all()
        assert table["document"].to_pylist() == source["id"].to_pylist()
        texts = source["text"].to_pylist()
        assert table["bytes"].to_pylist() == [len(text.encode()) for text in texts]
        assert table["tokens"].to_pylist() == [tokenizer.document(text) for text in texts]
    assert verify_files(place, manifest) == []
    rows = {entry.path: entry.rows for entry in manifest.files if entry.rows is not None}
    assert rows == {"train-00000.arrow": 2500, "train-00001.arrow": 505, "train-00002.arrow": 2, "val-00000.arrow": 51}
    train = manifest.stats["splits"]["train"]
    assert train["documents"] == 3007 and train["tokens"] / 3007 > 2 and 1 < train["bytes_per_token"] < 10
    assert train["unknown_share"] == 0 and 0 < train["byte_share"] < 0.01
    assert manifest.stats["checked_documents"] == 3 + 1 + 1 + 1 and manifest.stats["changed_documents"] == 0


def test_any_number_of_workers_gives_the_same_bytes(root: Path) -> None:
    one = tokenize(root, "workers=1")
    four = tokenize(root, "workers=4", name="four")
    assert one.content_sha256 == four.content_sha256 and one.files == four.files


def test_the_same_command_again_does_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenize(root, "workers=2")
    before = (root / "tokens/main/train-00000.arrow").stat().st_mtime_ns
    tokenize(root)
    assert "done already" in capsys.readouterr().out
    assert (root / "tokens/main/train-00000.arrow").stat().st_mtime_ns == before
    with pytest.raises(ArtifactError, match="vocab_size was 600, now 700"):
        tokenize(root, vocab_size=700)
    assert tokenize(root, vocab_size=700, update=True).stats["vocab_size"] == 700


def test_a_stop_keeps_finished_units(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = tokenize(root, name="undisturbed")
    calls = []

    def check(self: Stop) -> None:
        calls.append(1)
        if len(calls) == 7:  # before the inputs, three counted shards, the training, two encoded shards
            raise StoppedError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(Stop, "check", check)
        with pytest.raises(StoppedError):
            tokenize(root)
    units = partial_path(root / "tokens" / "main") / "units"
    kept = {path.name: path.stat().st_mtime_ns for path in units.glob("*.json")}
    assert set(kept) == {"train-00000.json", "train-00001.json"} and (units / "tokenizer").is_dir()
    monkeypatch.setattr("gptcli.tokenize.learning.learn.learn_tokenizer", None)  # it is not trained a second time
    assert tokenize(root).content_sha256 == undisturbed.content_sha256
    assert not units.exists()


def test_killed_and_run_again(root: Path) -> None:
    undisturbed = tokenize(root, name="undisturbed")
    command = [sys.executable, "-c", _RUN_AND_DIE, str(root)]
    for fsyncs in ("1", "12", "24"):
        died = subprocess.run(
            [*command, fsyncs], env={**os.environ, "PYTHONPATH": str(Path(stage.__file__).parents[1])}, check=False
        )
        assert died.returncode == -signal.SIGKILL
        assert not (root / "tokens" / "main").exists()
    again = tokenize(root)
    assert (again.content_sha256, again.files) == (undisturbed.content_sha256, undisturbed.files)


_RUN_AND_DIE = """
import os, signal, sys
from pathlib import Path
from gptcli import stage
from gptcli.options import Shared
left, fsync = int(sys.argv[2]), os.fsync
def dying(descriptor):
    global left
    fsync(descriptor)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
os.fsync = dying
shared = Shared(project=Path(sys.argv[1]), settings=["workers=1"], quiet=True)
stage.execute("tokenize", shared, {"vocab_size": 600})
"""


def test_a_taken_tokenizer_is_carried_as_it_is(root: Path, shards: dict[str, list[list[str]]]) -> None:
    trained = tokenize(root)
    by_name = tokenize(root, "tokenizer=main", vocab_size=None, name="by-name")
    by_path = tokenize(root, "tokenizer=./tokens/main", vocab_size=None, name="by-path")
    for manifest in (by_name, by_path):
        assert manifest.files == trained.files
        assert [entry.role for entry in manifest.inputs] == ["corpus", "tokenizer"]
        assert "vocab_size" not in manifest.spec and manifest.stats["trained"] is False
    with pytest.raises(SpecError, match="vocab_size would not be read"):
        tokenize(root, "tokenizer=main", name="both")
    with pytest.raises(ArtifactError, match="no tokens nowhere"):
        tokenize(root, "tokenizer=nowhere", vocab_size=None, name="none")


def test_a_tokenizer_that_rewrites_text_is_counted(
    root: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stats = tokenize(root, f"tokenizer={data_dir}/stories260K-hf", vocab_size=None).stats
    assert 0 < stats["changed_documents"] <= stats["checked_documents"] == 6
    assert "rewrites text" in capsys.readouterr().err


def test_a_sample_is_chosen_by_content(root: Path, tmp_path: Path, write_corpus: WriteCorpus) -> None:
    whole = tokenize(root, vocab_size=400).stats
    some = tokenize(root, "sample_bytes=60000", vocab_size=400, name="some").stats
    other = tokenize(root, "sample_bytes=60000", "seed=1", vocab_size=400, name="other").stats
    assert len({stats["tokenizer_sha256"] for stats in (whole, some, other)}) == 3
    everything = tokenize(root, "sample_bytes=99000000", vocab_size=400, name="everything").stats
    assert everything["tokenizer_sha256"] == whole["tokenizer_sha256"]


def test_a_broken_corpus_is_named(root: Path) -> None:
    path = root / "corpus/main/train-00001.arrow"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ArtifactError, match=r"train-00001\.arrow cannot be read"):
        tokenize(root)


def test_bad_specs(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no corpus nothing"):
        tokenize(root, "corpus=nothing")
    with pytest.raises(SpecError, match="vocab_size"):
        tokenize(root, vocab_size=100)
    with pytest.raises(SpecError, match="largest feasible is"):
        tokenize(root, vocab_size=1_000_000)
    assert not (root / "tokens" / "main").exists()


def test_a_document_that_does_not_come_back_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tokenizer, "decode", lambda self, ids: "something else")
    with pytest.raises(ArtifactError, match="does not decode to itself") as caught:
        tokenize(root)
    first = open_shard(root / "corpus/main/train-00000.arrow").get_batch(0).column("id")[0].as_py()
    assert first in caught.value.message


def test_every_thousandth_document_is_checked(
    root: Path, shards: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    decode = Tokenizer.decode

    def spy(self: Tokenizer, ids: list[int]) -> str:
        seen.append(decode(self, ids))
        return seen[-1]

    monkeypatch.setattr(Tokenizer, "decode", spy)
    tokenize(root)
    train, val = shards["train"], shards["val"]
    assert seen == [train[0][0], train[0][1000], train[0][2000], train[1][0], train[2][0], val[0][0]]


def test_json_report(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenize(root, as_json=True)
    figures = json.loads(capsys.readouterr().out)
    assert figures["path"] == "tokens/main" and figures["splits"]["val"]["documents"] == 51


def test_wide_ids_take_32_bits(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gptcli.tokenize.encoding import encode

    monkeypatch.setattr(encode, "WIDE_FROM", 500)
    tokenize(root)
    table = open_shard(root / "tokens/main/val-00000.arrow").read_all()
    assert table["tokens"].type == pa.large_list(pa.uint32())
