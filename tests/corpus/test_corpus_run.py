"""The corpus stage from sources to shards: what is kept, what is counted, and that the bytes never depend on how."""

from __future__ import annotations

import gzip
import itertools
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

from gptcli.artifacts.build import cache_path, partial_path
from gptcli.artifacts.manifest import Manifest, verify_files
from gptcli.artifacts.project import Project
from gptcli.artifacts.schemas import CORPUS_SCHEMA, SPLITS
from gptcli.artifacts.shards import open_shard, shard_paths
from gptcli.corpus import cleaning, first_pass, plan, run, units
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
    rows = {entry.path: entry.rows or 0 for entry in manifest.files}
    assert rows.pop("dropped.arrow") == sum(manifest.stats["left_out"].values())
    assert sum(count for name, count in rows.items() if "/" not in name) == manifest.stats["documents"]


WHOLE: dict[str, Any] = {"val_share": 0, "test_share": 0}


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
    manifest = build(project, source=["a.jsonl", "b"], encoding="utf-8", min_chars=2, max_chars=100, **WHOLE)
    adds_up(manifest)
    assert manifest.stats["left_out"] == {
        "bad_row:no_text": 1,
        "bad_row:not_json": 1,
        "bad_row:not_object": 1,
        "bad_row:text_not_string": 1,
        "duplicate": 1,
        "empty": 1,
        "corrupt": 1,
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
    with pytest.raises(SpecError, match=r"no row of a\.jsonl has the text key text; .* question, answer"):
        build(project, source=["a.jsonl"])
    assert build(project, source=["a.jsonl"], text_key="answer").stats["documents"] == 1
    put(project, "b.jsonl", ["[1]", "2"])
    with pytest.raises(SpecError, match=r"no document is left of 2 read from b\.jsonl: 2 bad_row:not_object"):
        build(project, source=["b.jsonl"])


def test_nothing_left(project: Project) -> None:
    with pytest.raises(SpecError, match=r"no document is left of 1 read from a\.txt: 1 too_long") as caught:
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
    monkeypatch.setattr(plan, "UNIT_BYTES", 5000)
    monkeypatch.setattr(plan, "PART_BYTES", 20_000)
    monkeypatch.setattr(units, "_BATCH_ROWS", 64)


SOURCES = ["a.jsonl", "b.jsonl.gz", "little/*.txt"]


def test_workers_units_and_batches_change_nothing(lines: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(lines, "one", source=SOURCES, workers=1, shard_bytes=100_000)
    adds_up(first)
    assert first.stats["splits"]["train"]["shards"] > 2
    monkeypatch.setattr(plan, "UNIT_BYTES", 5000)
    monkeypatch.setattr(plan, "PART_BYTES", 20_000)
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

    def cleans(unit: plan.Unit, *given: Any) -> cleaning.Done:
        cleaned.append(unit.number)
        done = real(unit, *given)
        job.stop.requested = len(cleaned) in (3, 9)
        return done

    monkeypatch.setattr(first_pass, "clean_unit", cleans)
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
    run.run(spec, job)
    first = next(cache_path(job.place).glob("*.done"))
    first.write_bytes(b"half")
    (first.parent / "0001.text.arrow.tmp").write_bytes(b"half")
    assert run.run(spec, job).content_sha256 == whole.content_sha256
    for path in sorted(cache_path(job.place).iterdir()):  # a flipped bit in any file of a finished unit
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert run.run(spec, job).content_sha256 == whole.content_sha256


KILLED = """
import sys
from pathlib import Path
from gptcli.artifacts.project import Project
from gptcli.corpus import plan, run
from gptcli.corpus.spec import CorpusSpec, inputs
from gptcli.job import Job
from gptcli.progress import Silent
plan.UNIT_BYTES, plan.PART_BYTES = 5000, 20_000
project = Project(Path(sys.argv[1]))
spec = CorpusSpec(source=["a.jsonl", "b.jsonl.gz", "little/*.txt"], workers=2)
run.run(spec, Job(project, "cut", project.place("corpus", "cut"), inputs(spec, project, None), Silent()))
"""


@pytest.mark.parametrize("wait", ["unit", "shard"])
def test_killed_and_run_again(lines: Project, small_units: None, wait: str) -> None:
    whole = build(lines, "whole", source=SOURCES)
    place = lines.place("corpus", "cut")
    marks: dict[str, Callable[[], bool]] = {
        "unit": lambda: any(cache_path(place).glob("*.done")),
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


def test_repeated_paragraphs_go_and_the_first_stays(project: Project) -> None:
    notice = "All rights reserved by the people who wrote this page and by nobody else at all."
    texts = [f"{notice}\n\nThe first text.", f"A second text.\n\n{notice}\n\nIts end.", notice, "A third text."]
    put(project, "a.jsonl", [{"text": text} for text in texts])
    manifest = build(project, source="a.jsonl", repeated_paragraphs=60, dedup="exact", **WHOLE)
    assert [row["text"] for row in rows(project)] == [texts[0], "A second text.\n\nIts end.", texts[3]]
    assert manifest.stats["left_out"] == {"repeated_paragraphs": 1} and manifest.stats["paragraphs_removed"] == 2
    assert manifest.stats["bytes"] == sum(len(row["text"]) for row in rows(project))
    adds_up(manifest)
    import hashlib

    for row in rows(project):
        assert row["id"] == hashlib.blake2b(row["text"].encode(), digest_size=16).hexdigest()


def test_near_duplicates_go_and_stay_in_one_split(project: Project) -> None:
    words = ["".join(pair) for pair in itertools.permutations("abcdefghijkl", 2)][:120]
    longest = " ".join(words)
    near = " ".join(words[:110])
    other = " ".join(reversed(words))
    put(project, "a.jsonl", [{"text": near}, {"text": other}, {"text": longest}])
    manifest = build(project, source="a.jsonl", **WHOLE)
    assert [row["text"] for row in rows(project)] == [other, longest]
    assert manifest.stats["left_out"] == {"near_duplicate": 1}
    [dropped] = open_shard(project.place("corpus", "main") / "dropped.arrow").read_all().to_pylist()
    assert dropped["kept_id"] == rows(project)[1]["id"] and 0.8 <= float(dropped["value"]) < 1
    adds_up(manifest)


def test_weights_write_documents_more_or_less_often(project: Project) -> None:
    put(project, "a.jsonl", [{"text": f"often {number}"} for number in range(50)])
    put(project, "b.jsonl", [{"text": f"seldom {number}"} for number in range(400)])
    sources = [{"path": "a.jsonl", "weight": 3}, {"path": "b.jsonl", "weight": 0.25}]
    manifest = build(project, source=sources, **WHOLE)
    texts = [row["text"] for row in rows(project)]
    assert all(texts.count(f"often {number}") == 3 for number in range(50)) and manifest.stats["copies"] == 100
    seldom = [text for text in texts if text.startswith("seldom")]
    assert len(set(seldom)) == len(seldom) and 70 < len(seldom) < 130
    assert manifest.stats["left_out"]["down_sampled"] == 400 - len(seldom)
    assert len({text for text in texts[:60] if text.startswith("often")}) == 50, "copies do not stand side by side"


def test_scores_are_kept_and_judged_again(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    put(project, "a.jsonl", [{"text": "word " * count} for count in (5, 20, 60)])
    keys: dict[str, Any] = {"source": "a.jsonl", "keep_scores": True, "dedup": "none", **WHOLE}
    first = build(project, filters=["length"], **keys)
    assert first.stats["left_out"] == {"filter:length:too_few_words": 2}
    monkeypatch.setattr(first_pass, "clean_unit", None)  # nothing is read again
    second = build(project, filters=[{"name": "length", "min_words": 10}], **keys)
    assert second.stats["left_out"] == {"filter:length:too_few_words": 1} and second.stats["documents"] == 2
    dropped = open_shard(project.place("corpus", "main") / "dropped.arrow").read_all().to_pylist()
    assert [row["value"] for row in dropped] == ["5"]
    monkeypatch.undo()
    fresh = build(project, "fresh", filters=[{"name": "length", "min_words": 10}], **keys)
    assert fresh.content_sha256 == second.content_sha256


def test_only_what_changed_is_cleaned_again(lines: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    build(lines, source=SOURCES)
    put(lines, "c.txt", "something new")
    cleaned: list[str] = []
    real = cleaning.clean_unit

    def cleans(unit: plan.Unit, *given: Any) -> cleaning.Done:
        cleaned.extend(file.name for file in unit.files)
        return real(unit, *given)

    monkeypatch.setattr(first_pass, "clean_unit", cleans)
    more = build(lines, source=[*SOURCES, "c.txt"])
    assert cleaned == ["c.txt"]
    assert build(lines, "fresh", source=[*SOURCES, "c.txt"]).content_sha256 == more.content_sha256


def test_kept_scores_let_nothing_through_that_cannot_be_judged(project: Project) -> None:
    item = "what is the name of the tall grey bird that stands in the shallow river all day long"
    put(project, "items.jsonl", [{"question": item}])
    texts = [f"Before it. {item} And behind it.", "No sentence ends here", "word " * 60]
    put(project, "a.jsonl", [{"text": text} for text in texts])
    keys: dict[str, Any] = {"source": "a.jsonl", "decontaminate": ["items.jsonl"], **WHOLE}
    filters = [{"name": "length", "min_words": 50}, {"name": "c4", "min_sentences": 0}]
    for keep_scores in (False, True):
        name = f"scores-{keep_scores}".lower()
        manifest = build(project, name, filters=filters[:1], keep_scores=keep_scores, **keys)
        assert [row["text"] for row in rows(project, name)] == [texts[2]]
        adds_up(manifest)
    with pytest.raises(SpecError, match="1 contaminated, 2 filter:c4:empty"):
        build(project, filters=filters, keep_scores=True, **keys)
