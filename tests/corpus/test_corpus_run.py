"""The corpus stage from sources to shards: what is kept, what is counted, and that the bytes never depend on how."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptcli.artifacts.build import partial_path
from gptcli.artifacts.manifest import Manifest, verify_files
from gptcli.artifacts.project import Project
from gptcli.artifacts.schemas import CORPUS_SCHEMA, SPLITS
from gptcli.artifacts.shards import open_shard, shard_paths
from gptcli.corpus import cleaning, run, units
from gptcli.corpus.inspect import show
from gptcli.corpus.spec import CorpusSpec, disk_needed, inputs, summary
from gptcli.errors import SpecError, StoppedError
from gptcli.job import Job
from gptcli.progress import Silent


def build(project: Project, name: str = "main", **keys: Any) -> Manifest:
    spec = CorpusSpec.model_validate(keys)
    job = Job(project, name, project.place("corpus", name), inputs(spec, project, None), Silent())
    job.place.parent.mkdir(parents=True, exist_ok=True)
    return run.run(spec, job)


def rows(project: Project, name: str = "main") -> list[dict[str, Any]]:
    """Every document with its split, in the shards' order."""
    found = []
    for split in SPLITS:
        for path in shard_paths(project.place("corpus", name), split):
            table = open_shard(path).read_all()
            assert table.schema == CORPUS_SCHEMA
            found += [{"split": split, **row} for row in table.to_pylist()]
    return found


def put(project: Project, name: str, data: bytes | str | list[Any]) -> str:
    path = project.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(data, list):
        data = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in data)
    if isinstance(data, str):
        data = data.encode()
    path.write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
    return name


def adds_up(manifest: Manifest) -> None:
    for stats in [manifest.stats, *manifest.stats["sources"]]:
        assert stats["documents_read"] == stats["documents"] + sum(stats["left_out"].values())
    for key in ("documents_read", "documents", "bytes", "invalid_bytes"):
        assert manifest.stats[key] == sum(source[key] for source in manifest.stats["sources"])
    splits = manifest.stats["splits"].values()
    assert manifest.stats["documents"] == sum(split["documents"] for split in splits)
    assert sum(entry.rows or 0 for entry in manifest.files) == manifest.stats["documents"]


def test_everything_read_is_kept_or_counted(project: Project) -> None:
    put(
        project,
        "a.jsonl",
        [{"text": "one", "n": 1}, {"text": "one"}, "no json", [1], {"no": 1}, {"text": 5}, {"text": " "}],
    )
    put(project, "b/short.txt", "x")
    put(project, "b/one.txt", "one\r\n")
    put(project, "b/long.txt", "y" * 200)
    put(project, "b/zip.txt", b"PK\x03\x04")
    put(project, "b/bad.txt", b"caf\xe9 cafe\xcc\x81")
    manifest = build(project, source=["a.jsonl", "b"], min_chars=2, max_chars=100, val_share=0, test_share=0)
    adds_up(manifest)
    assert manifest.stats["left_out"] == {
        "bad_row:no_text": 1,
        "bad_row:not_json": 1,
        "bad_row:not_object": 1,
        "bad_row:text_not_string": 1,
        "duplicate": 1,
        "empty": 1,
        "not_text": 1,
        "too_long": 1,
        "too_short": 1,
    }
    assert manifest.stats["invalid_bytes"] == 1
    assert [(row["text"], row["path"], row["meta"]) for row in rows(project)] == [
        ("one", "a.jsonl", '{"n":1}'),
        ("caf\ufffd café", "b/bad.txt", None),
        ("one\n", "b/one.txt", None),
    ]
    first = rows(project)[0]
    assert (first["source_offset"], first["source_bytes"], first["member"]) == (0, len('{"text": "one", "n": 1}'), None)
    assert verify_files(project.place("corpus", "main"), manifest) == []
    shown = show(project, "main", 2)
    assert len(shown.figures["shown"]) == 2 and ("left out", "1 duplicate") in shown.table
    assert summary(manifest.stats)[0] == ("read", "12 documents")


def test_ids_name_the_text(project: Project) -> None:
    import hashlib

    build(project, source=[put(project, "a.txt", "e\u0301t\u00e9")], val_share=0, test_share=0, license="CC0-1.0")
    [row] = rows(project)
    assert row["id"] == hashlib.blake2b("été".encode(), digest_size=16).hexdigest() and row["license"] == "CC0-1.0"
    build(project, "raw", source=["a.txt"], normalize="none", val_share=0, test_share=0)
    assert rows(project, "raw")[0]["text"] == "e\u0301t\u00e9"


def test_truncated_gzip_is_named_and_the_rest_kept(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    name = put(project, "a.jsonl.gz", [{"text": f"row {n} {os.urandom(40).hex()}"} for n in range(2000)])
    whole = (project.root / name).read_bytes()
    (project.root / name).write_bytes(whole[: len(whole) // 2])
    manifest = build(project, source=[name])
    adds_up(manifest)
    assert manifest.stats["left_out"] == {"truncated": 1} and 500 < manifest.stats["documents"] < 1500
    assert manifest.stats["faults"] == [{"path": name, "fault": "truncated"}]
    assert "a.jsonl.gz is damaged (truncated)" in capsys.readouterr().err


def test_no_text_key(project: Project) -> None:
    put(project, "a.jsonl", [{"question": "?", "answer": "!"}] * 3)
    with pytest.raises(SpecError, match=r"no row of a\.jsonl has the text key text; .*a\.jsonl:1.*: question, answer"):
        build(project, source=["a.jsonl"])
    assert build(project, source=["a.jsonl"], text_key="answer").stats["documents"] == 1
    put(project, "b.jsonl", ["[1]", "2"])
    with pytest.raises(SpecError, match=r"no row of b\.jsonl is a JSON object; b\.jsonl:1 is not_object"):
        build(project, source=["b.jsonl"])


def test_nothing_left(project: Project) -> None:
    with pytest.raises(SpecError, match="no document is left of 1 read: 1 too_long") as caught:
        build(project, source=[put(project, "a.txt", "word " * 100)], max_chars=50)
    assert "separator" in caught.value.hint
    assert not project.place("corpus", "main").exists()


def test_a_tiny_corpus_warns_of_empty_splits(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    build(project, source=[put(project, "a.txt", "x")], val_share=0.01, test_share=0)
    told = capsys.readouterr().err
    assert "val split is empty" in told and "test split" not in told


def test_filters(project: Project) -> None:
    texts = ["word " * 60, "few words", "lorem ipsum " * 60]
    put(project, "a.jsonl", [{"text": text} for text in texts])
    manifest = build(
        project,
        source="a.jsonl",
        filters=["length", {"name": "regex", "drop": "^lorem ipsum"}],
        val_share=0,
        test_share=0,
    )
    adds_up(manifest)
    assert manifest.stats["left_out"] == {"filter:length:too_few_words": 1, "filter:regex:drop_found": 1}
    assert manifest.spec["filters"][0] == {"name": "length", "min_words": 50, "max_words": 100_000}


@pytest.fixture
def lines(project: Project, data_dir: Path) -> Project:
    """Two jsonl files and a folder of little ones, cut into many units."""
    texts = next((data_dir / "tinyshakespeare").glob("[!O]*.txt")).read_text().split("\n\n")[:3000]
    put(project, "a.jsonl", [{"text": text} for text in texts[:2000]])
    put(project, "b.jsonl.gz", [{"text": text} for text in texts[1500:2500]])
    for number, text in enumerate(texts[2400:2600]):
        put(project, f"little/{number:03d}.txt", text)
    return project


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "UNIT_BYTES", 5000)
    monkeypatch.setattr(units, "_BATCH_ROWS", 64)


SOURCES = ["a.jsonl", "b.jsonl.gz", "little/*.txt"]


def test_workers_units_and_batches_change_nothing(lines: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(lines, "one", source=SOURCES, workers=1, shard_bytes=100_000)
    adds_up(first)
    assert first.stats["splits"]["train"]["shards"] > 2
    monkeypatch.setattr(units, "UNIT_BYTES", 5000)
    second = build(lines, "four", source=SOURCES, workers=4, shard_bytes=100_000)
    assert second.content_sha256 == first.content_sha256 and second.stats == first.stats
    monkeypatch.setattr(units, "_BATCH_ROWS", 7)
    third = build(lines, "seven", source=SOURCES, shard_bytes=100_000)
    assert third.content_sha256 == first.content_sha256
    sizes = [
        sum(len(row["text"].encode()) for row in open_shard(path).read_all().to_pylist())
        for path in shard_paths(lines.place("corpus", "one"), "train")
    ]
    assert all(100_000 <= size < 105_000 for size in sizes[:-1])
    texts = [row["text"] for row in rows(lines, "one")]
    assert len(set(texts)) == len(texts)


@pytest.mark.usefixtures("small_units")
def test_stopped_and_run_again(
    lines: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = build(lines, "whole", source=SOURCES)
    spec = CorpusSpec(source=SOURCES)
    job = Job(lines, "cut", lines.place("corpus", "cut"), inputs(spec, lines, None), Silent())
    cleaned: list[int] = []
    real = cleaning.clean_unit

    def cleans(unit: units.Unit, **kept: Any) -> None:
        cleaned.append(unit.number)
        real(unit, **kept)
        job.stop.requested = len(cleaned) in (3, 9)

    monkeypatch.setattr(run, "clean_unit", cleans)
    for _ in range(2):
        with pytest.raises(StoppedError):
            run.run(spec, job)
        assert not job.place.exists()
        job.stop.requested = False
    again = run.run(spec, job)
    assert len(cleaned) == len(set(cleaned)), "a finished unit was made again"
    assert again.content_sha256 == whole.content_sha256 and again.stats == whole.stats
    assert not partial_path(job.place).exists()


@pytest.mark.usefixtures("small_units")
def test_broken_and_foreign_units_are_made_again(lines: Project) -> None:
    whole = build(lines, "whole", source=SOURCES)
    spec = CorpusSpec(source=SOURCES)
    job = Job(lines, "cut", lines.place("corpus", "cut"), inputs(spec, lines, None), Silent())
    job.stop.requested = True
    with pytest.raises(StoppedError):
        run.run(spec, job)
    job.stop.requested = False
    kept = partial_path(job.place) / "units"
    (kept / "00000.index.arrow").write_bytes(b"half")
    (kept / "00001.arrow.tmp").write_bytes(b"half")
    assert run.run(spec, job).content_sha256 == whole.content_sha256


KILLED = """
import sys
from pathlib import Path
from gptcli.artifacts.project import Project
from gptcli.corpus import run, units
from gptcli.corpus.spec import CorpusSpec, inputs
from gptcli.job import Job
from gptcli.progress import Silent
units.UNIT_BYTES = 5000
project = Project(Path(sys.argv[1]))
spec = CorpusSpec(source=["a.jsonl", "b.jsonl.gz", "little/*.txt"], workers=2)
run.run(spec, Job(project, "cut", project.place("corpus", "cut"), inputs(spec, project, None), Silent()))
"""


@pytest.mark.parametrize("wait", ["unit", "shard"])
def test_killed_and_run_again(lines: Project, small_units: None, wait: str) -> None:
    whole = build(lines, "whole", source=SOURCES)
    place = lines.place("corpus", "cut")
    marks: dict[str, Callable[[], bool]] = {
        "unit": lambda: any(partial_path(place).glob("units/*.index.arrow")),
        "shard": lambda: any(partial_path(place).glob("train-*")),
    }
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(lines.root)])
    while not marks[wait]() and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = build(lines, "cut", source=SOURCES)
    assert again.content_sha256 == whole.content_sha256
    mine, theirs = (lines.place("corpus", name) for name in ("whole", "cut"))
    for entry in whole.files:
        assert (mine / entry.path).read_bytes() == (theirs / entry.path).read_bytes()


def test_split_is_the_documents_own(lines: Project) -> None:
    build(lines, "all", source=SOURCES)
    build(lines, "some", source=["little"])
    place = {row["id"]: row["split"] for row in rows(lines, "all")}
    assert all(place[row["id"]] == row["split"] for row in rows(lines, "some"))
    build(lines, "other", source=SOURCES, split_seed=1)
    moved = {row["id"]: row["split"] for row in rows(lines, "other")}
    assert moved.keys() == place.keys() and moved != place


def test_dedup_off_keeps_all(lines: Project) -> None:
    manifest = build(lines, source=SOURCES, dedup="none")
    assert "duplicate" not in manifest.stats["left_out"] and manifest.stats["documents"] == 3200


def test_books(project: Project, data_dir: Path) -> None:
    latin = build(project, "latin", source=str(data_dir / "multilingual-dev" / "*-8.txt"), encoding="latin-1")
    adds_up(latin)
    assert latin.stats["invalid_bytes"] == 0 and latin.stats["documents"] == 2
    books = build(project, "books", source=str(data_dir / "gutenberg-dev"), separator="blank_lines")
    adds_up(books)
    texts = [row["text"] for row in rows(project, "books")]
    assert not any("\r" in text or "\ufeff" in text for text in texts)
    for row in rows(project, "books")[::50]:
        raw = Path(row["path"]).read_bytes()[row["source_offset"] : row["source_offset"] + row["source_bytes"]]
        assert raw.decode().replace("\r\n", "\n") == row["text"]


def test_stdlib(project: Project) -> None:
    manifest = build(project, source="python:stdlib")
    adds_up(manifest)
    assert manifest.stats["bytes"] > 8_000_000 and manifest.stats["splits"]["val"]["documents"] > 10
    found = {row["path"]: row for row in rows(project)}
    assert found["python:stdlib/json/decoder.py"]["license"] == "PSF-2.0"
    assert (
        disk_needed(
            CorpusSpec(source="python:stdlib"), project, inputs(CorpusSpec(source="python:stdlib"), project, None)
        )
        > 16_000_000
    )  # type: ignore[arg-type]


def test_what_came_or_changed_after_hashing_does_not_get_in(project: Project) -> None:
    put(project, "a/1.txt", "one")
    put(project, "a/2.txt", "two")
    spec = CorpusSpec(source=["a"], val_share=0, test_share=0)
    job = Job(project, "main", project.place("corpus", "main"), inputs(spec, project, None), Silent())
    put(project, "a/0.txt", "later")
    job.place.parent.mkdir()
    assert run.run(spec, job).stats["documents_read"] == 2
    assert [row["path"] for row in rows(project)] == ["a/1.txt", "a/2.txt"]
    put(project, "a/2.txt", "another")
    late = Job(project, "late", project.place("corpus", "late"), job.inputs, Silent())
    with pytest.raises(SpecError, match=r"a/2\.txt changed while it was read"):
        run.run(spec, late)
    assert not late.place.exists()
    (project.root / "a" / "2.txt").unlink()
    with pytest.raises(SpecError, match="files of a are no longer there"):
        run.run(spec, late)


def test_the_licence_of_every_source_is_told(project: Project) -> None:
    put(project, "a.txt", "one")
    free = build(project, source=["a.txt", "python:stdlib"], filters=[{"name": "regex", "drop": "x"}])
    assert [source["license"] for source in free.stats["sources"]] == [None, "PSF-2.0"]
    named = build(project, "named", source=["a.txt"], license="CC0-1.0")
    assert named.stats["sources"][0]["license"] == "CC0-1.0"
