from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gptcli import stage
from gptcli.artifacts.manifest import Inputs, content_sha256, list_files, read_manifest, write_manifest
from gptcli.artifacts.project import Project
from gptcli.artifacts.shards import ShardWriter, open_shard
from gptcli.console import Report
from gptcli.errors import ArtifactError
from gptcli.options import Shared
from gptcli.progress import Silent
from gptcli.tokenize.views import checks, pieces, verify
from gptcli.tokenize.views.awkward import AWKWARD
from gptcli.tokenizer import Tokenizer

WriteCorpus = Callable[..., list[str]]

FIRST, SECOND, VAL = "train-00000.arrow", "train-00001.arrow", "val-00000.arrow"
FORGED = "\ue000B, which a decoder would take for another character"


@pytest.fixture(scope="module")
def built() -> dict[str, Path]:
    """Where the first test that needed it made the artifact."""
    return {}


@pytest.fixture
def root(
    built: dict[str, Path],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    write_corpus: WriteCorpus,
    code_texts: list[str],
) -> Path:
    """A project with a corpus and its tokens, by a tokenizer trained on it, to be damaged at will."""
    if "home" not in built:
        home = tmp_path_factory.mktemp("made")
        lines = [line for line in code_texts[0].splitlines(keepends=True) if line.strip()]
        train = [[*lines[:250], FORGED, *AWKWARD], lines[250:300]]
        write_corpus(Project.open(home), {"train": train, "val": [[code_texts[3], "x"]]})
        tokenize(home, "vocab_size=700", "character_coverage=0.98")
        built["home"] = home
    shutil.copytree(built["home"], tmp_path / "project")
    return tmp_path / "project"


def tokenize(root: Path, *settings: str) -> None:
    shared = Shared(project=root, settings=["workers=1", *settings], quiet=True)
    stage.execute("tokenize", shared, {})


def look(root: Path) -> Report:
    return verify.verify(Project.open(root), None, Silent())


def found(root: Path) -> dict[str, tuple[int, str]]:
    """Kind → count and first example."""
    return {fault["kind"]: (fault["count"], fault["example"]) for fault in look(root).figures["faults"]}


def repair(place: Path) -> None:
    """Give a manifest the checksums of the files as they now are, and its own."""
    manifest = read_manifest(place)
    rows = {entry.path: entry.rows for entry in manifest.files if entry.rows is not None}
    files = list_files(place, rows)
    told = content_sha256(manifest.kind, manifest.format_version, manifest.spec, files, Inputs(manifest.inputs))
    write_manifest(place, replace(manifest, files=files, content_sha256=told))


def rewrite(place: Path, name: str, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Change the rows of a shard in place, and repair the manifest."""
    table = open_shard(place / name).read_all()
    rows = table.to_pylist()
    change(rows)
    writer = ShardWriter(place / name, table.schema)
    writer.write(pa.Table.from_pylist(rows, table.schema))
    writer.close()
    repair(place)


def with_tokens(rows: list[dict[str, Any]], number: int, tokens: list[int]) -> None:
    rows[number]["tokens"] = tokens


def test_what_is_whole_is_told_to_be(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = look(root)
    told = report.figures
    assert told["whole"] and told["faults"] == [] and told["unchecked"] == [] and told["remarks"] == []
    assert told["documents"] == told["compared_documents"] == 250 + 1 + 40 + 50 + 2 and told["changed_documents"] == 0
    assert told["encoded_again"] == 3 + 1 + 1  # rows 0, 97 and 194, or the first alone
    stats = read_manifest(root / "tokens/main").stats["splits"]
    assert told["tokens"] == sum(split["tokens"] for split in stats.values())
    assert told["bytes"] == sum(split["bytes"] for split in stats.values())
    assert told["awkward_texts"] == 40 and told["injected_texts"] > 6 * 20
    verify.require_whole(report)
    verify.print_shown(report, as_json=False)
    assert capsys.readouterr().out.startswith("tokens/main: whole\n")
    verify.print_shown(report, as_json=True)
    assert json.loads(capsys.readouterr().out)["whole"] is True


def test_several_processes_find_the_same(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite(root / "tokens/main", SECOND, lambda rows: rows.reverse())
    one = look(root).figures
    monkeypatch.setattr(verify, "WORTH_A_WORKER", 1)
    monkeypatch.setattr(verify, "default_workers", lambda: 2)
    assert look(root).figures == one and not one["whole"]


def test_a_flipped_byte_fails_the_command(root: Path, gptcli: Any) -> None:
    path = root / "tokens/main" / VAL
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    done = gptcli(root, "tokenize", "--verify", "--json")
    done.failed(3, "val-00000.arrow: its bytes do not match their SHA-256")
    assert done.figures["faults"][0]["kind"] == "checksum"


def test_a_shorter_file_and_a_missing_one(root: Path) -> None:
    place = root / "tokens/main"
    (place / VAL).write_bytes((place / VAL).read_bytes()[:-7])
    (place / SECOND).unlink()
    (place / "tokenizer/chat_template.jinja").unlink()
    faults = found(root)
    assert faults["checksum"][0] == 3 and faults["checksum"][1].startswith("tokenizer/chat_template.jinja: No such")
    assert faults["files"] == (1, "train-00001.arrow: the corpus has this shard, the tokens lack it")
    assert faults["shard"][1].startswith("val-00000.arrow: cannot be read")
    assert faults["figures"][1].startswith("train: 291 documents where the manifest has 341")


def test_what_the_manifest_does_not_name(root: Path) -> None:
    place = root / "tokens/main"
    shutil.copyfile(place / FIRST, place / "train-00002.arrow")
    (place / "notes.txt").write_text("mine")
    assert found(root) == {"files": (2, "notes.txt: the manifest does not name it")}


def test_a_manifest_that_was_changed(root: Path) -> None:
    place = root / "tokens/main"
    manifest = read_manifest(place)
    write_manifest(place, replace(manifest, spec={**manifest.spec, "vocab_size": 501}))
    assert list(found(root)) == ["manifest"]


def test_a_foreign_shard(root: Path) -> None:
    place = root / "tokens/main"
    shutil.copyfile(place / SECOND, place / FIRST)
    repair(place)
    faults = found(root)
    count, example = faults["rows"]
    assert count == 291 + 1 and example.startswith("train-00000.arrow: row 0: document ")
    assert list(faults) == ["rows", "figures"]


def test_rows_in_another_order(root: Path) -> None:
    rewrite(root / "tokens/main", SECOND, lambda rows: rows.append(rows.pop(0)))
    faults = found(root)
    assert list(faults) == ["rows"] and faults["rows"][0] == 50  # no text is compared with another document's


def test_a_row_too_many_and_one_too_few(root: Path) -> None:
    rewrite(root / "tokens/main", SECOND, lambda rows: rows.append(rows[0]))
    rewrite(root / "tokens/main", VAL, lambda rows: rows.pop())
    faults = found(root)
    assert faults["rows"][0] == 4  # each beside the corpus, and against the manifest's count
    assert "row 50: the corpus has no document for it" in faults["rows"][1]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("round_trip", "row 3: document"),
        ("vocabulary", "row 3: document"),
        ("control", "holds a control id"),
        ("frame", "does not stand between bos and eos"),
        ("encoding", "encodes to other ids now"),
    ],
)
def test_changed_tokens_with_their_checksum_mended(root: Path, kind: str, words: str) -> None:
    place = root / "tokens/main"
    tokenizer = Tokenizer.load(place / "tokenizer")
    number = 0 if kind == "encoding" else 3  # the first of a shard is encoded again

    def change(rows: list[dict[str, Any]]) -> None:
        bos, *inside, eos = rows[number]["tokens"]
        text = tokenizer.decode(inside)
        others = {
            "round_trip": [bos, *tokenizer.encode("?"), *inside[1:], eos],
            "vocabulary": [bos, 65_535, *inside[1:], eos],
            "control": [bos, inside[0], tokenizer.eos_id, *inside[1:], eos],
            "frame": [bos, *inside, inside[0]],
            "encoding": [bos, *(token for sign in text for token in tokenizer.encode(sign)), eos],
        }
        assert others[kind] != rows[number]["tokens"]
        rows[number]["tokens"] = others[kind]

    rewrite(place, FIRST, change)
    faults = found(root)
    assert [name for name in faults if name != "figures"] == [kind]
    assert faults[kind][0] == 1 and words in faults[kind][1]
    with pytest.raises(ArtifactError, match=r"tokens/main: train-00000\.arrow: row "):
        verify.require_whole(look(root))


def test_joined_pieces_that_only_look_like_the_text(root: Path) -> None:
    tokenizer = Tokenizer.load(root / "tokens/main/tokenizer")
    single = {tokenizer.piece(number): number for number in range(tokenizer.vocab_size)}

    def forge(rows: list[dict[str, Any]]) -> None:
        row = next(row for row in rows if row["bytes"] == len(FORGED.encode()))
        ids = [single[f"<0x{byte:02X}>"] for byte in FORGED.encode()]
        assert tokenizer.decode(ids) != FORGED
        row["tokens"] = [tokenizer.bos_id, *ids, tokenizer.eos_id]

    rewrite(root / "tokens/main", FIRST, forge)
    assert list(found(root)) == ["round_trip", "figures"]


def test_other_numbers_of_bytes(root: Path) -> None:
    rewrite(root / "tokens/main", VAL, lambda rows: rows[1].update(bytes=2))
    faults = found(root)
    assert faults["bytes"] == (1, "val-00000.arrow: row 1: 2 bytes for a text of 1") and "figures" in faults


def test_a_shard_of_something_else(root: Path) -> None:
    shutil.copyfile(root / "corpus/main" / SECOND, root / "tokens/main" / SECOND)
    repair(root / "tokens/main")
    assert found(root)["shard"] == (1, "train-00001.arrow: its columns are not those of such a shard")


def test_a_damaged_corpus_is_named(root: Path) -> None:
    path = root / "corpus/main" / SECOND
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    report = look(root)
    assert [fault["kind"] for fault in report.figures["faults"]] == ["corpus"]
    with pytest.raises(ArtifactError) as caught:
        verify.require_whole(report)
    assert "gptcli corpus" in caught.value.hint


@pytest.mark.parametrize("how", ["gone", "changed"])
def test_without_the_corpus_the_rest_is_verified(root: Path, write_corpus: WriteCorpus, how: str) -> None:
    shutil.rmtree(root / "corpus/main")
    if how == "changed":
        write_corpus(Project.open(root), {"train": [["another text"]]})
    rewrite(root / "tokens/main", SECOND, lambda rows: with_tokens(rows, 1, [1, 1, 2]))
    told = look(root).figures
    assert how in told["unchecked"][0] and told["compared_documents"] == 0
    assert [fault["kind"] for fault in told["faults"]] == ["control", "figures"]


def test_a_tokenizer_json_that_is_another(root: Path) -> None:
    path = root / "tokens/main/tokenizer/tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["normalizer"] = None
    path.write_text(json.dumps(content), encoding="utf-8")
    repair(root / "tokens/main")
    faults = found(root)
    assert list(faults) == ["parity"] and "tokenizer.model gives" in faults["parity"][1]
    path.write_text("{", encoding="utf-8")
    repair(root / "tokens/main")
    assert found(root)["parity"][1].startswith("tokenizer.json cannot be read")


def test_a_tokenizer_that_cannot_be_opened(root: Path) -> None:
    (root / "tokens/main/tokenizer/tokenizer.model").write_bytes(b"nothing")
    repair(root / "tokens/main")
    report = look(root)
    assert [fault["kind"] for fault in report.figures["faults"]] == ["tokenizer"]
    assert "no tokenizer to read them with" in report.figures["unchecked"][0]


def test_control_tokens_in_texts_are_tried(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = Tokenizer.encode

    def parsing(self: Tokenizer, text: str) -> list[int]:
        return [self.eos_id if part == "</s>" else token for part in [text] for token in encode(self, part)]

    monkeypatch.setattr(Tokenizer, "encode", parsing)
    faults = found(root)
    assert faults["injection"][1].endswith("from tokenizer.model") and "'</s>'" in faults["injection"][1]


def test_a_tokenizer_that_rewrites_text_is_counted(root: Path, data_dir: Path) -> None:
    shutil.rmtree(root / "tokens/main")
    tokenize(root, f"tokenizer={data_dir}/stories260K-hf")
    told = look(root).figures
    assert told["whole"] and 0 < told["changed_documents"] < told["compared_documents"]
    assert "rewrites what it reads" in " ".join(told["remarks"])


def test_long_documents_are_compared_in_parts(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "LONGEST_DECODED", 4)
    monkeypatch.setattr(pieces, "_AT_ONCE", 3)
    assert look(root).figures["whole"]
    rewrite(root / "tokens/main", VAL, lambda rows: with_tokens(rows, 0, [1, *([300] * 50), 2]))
    assert "round_trip" in found(root)


def test_there_is_nothing_to_verify(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="there are no tokens/main"):
        look(tmp_path)
