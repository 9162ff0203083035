"""--explain: one document's way through every step, whether its source is still there or not."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gptcli.artifacts.project import Project
from gptcli.console import Report
from gptcli.corpus import run
from gptcli.corpus.explain import explain
from gptcli.corpus.lookup import scan
from gptcli.corpus.spec import CorpusSpec, inputs
from gptcli.errors import ArtifactError, SpecError
from gptcli.job import Job
from gptcli.progress import Silent

WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau upsilon"
LONG = f"{WORDS} {WORDS.upper()} and the whole of it once more, with some words behind it"
KEYS: dict[str, Any] = {
    "source": ["rows.jsonl", {"path": "texts", "encoding": "utf-8"}, {"path": "packed.jsonl.gz", "license": "MIT"}],
    "filters": [{"name": "length", "min_words": 3}, "pii", {"name": "regex", "drop": "forbidden"}],
    "min_chars": 5,
    "val_share": 0,
    "test_share": 0,
}
ROWS = [
    {"text": f"{LONG}, far away.", "url": "https://example.org/\u202ea"},
    {"text": "two words"},
    {"text": "x"},
    {"text": "Write to jane.doe@example.org about the forbidden thing"},
    {"text": "Write to jane.doe@example.org about the weather\u0301"},
    {"no": 1},
]


def make(project: Project) -> None:
    root = project.root
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    (root / "texts").mkdir(exist_ok=True)
    (root / "texts" / "near.txt").write_text(f"{LONG}, far away and gone.")
    (root / "texts" / "same.txt").write_text(str(ROWS[0]["text"]))
    (root / "texts" / "bad.txt").write_bytes(b"caf\xe9 au lait for two\r\nand more")
    packed = "".join(json.dumps({"text": f"packed row number {number}"}) + "\n" for number in range(3))
    (root / "packed.jsonl.gz").write_bytes(gzip.compress(packed.encode(), mtime=0))


def build(project: Project, **keys: Any) -> None:
    spec = CorpusSpec.model_validate({**KEYS, **keys})
    place = project.place("corpus", "main")
    place.parent.mkdir(parents=True, exist_ok=True)
    run.run(spec, Job(project, "main", place, inputs(spec, project, None), Silent()))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A corpus whose sources nobody changes."""
    project = Project.open(tmp_path_factory.mktemp("explain"))
    make(project)
    build(project)
    return project


def row(report: Report, label: str) -> str:
    found = [value for name, value in report.table if name.strip() == label]
    assert found, report.table
    return found[-1]


def offset(number: int) -> int:
    return sum(len(json.dumps(row)) + 1 for row in ROWS[:number])


def test_a_kept_document(made: Project) -> None:
    report = explain(made, "main", f"rows.jsonl:{offset(4)}")
    assert report.figures["outcome"]["kept"] and report.figures["outcome"]["split"] == "train"
    assert report.figures["source"] == {"state": "unchanged", "source": "rows.jsonl"}
    assert row(report, "normalised") == "48 → 47 characters  (NFC)"
    assert "rewrote: 1 email" in row(report, "pii") and "[EMAIL]" in row(report, "text")
    assert row(report, "too_few_words") == "ok      6  (min_words = 3)"
    steps = {step["step"]: step for step in report.figures["steps"]}
    assert list(steps) == ["length", "pii", "regex"] and steps["pii"]["changes"] == {"email": 1}
    assert "differs" not in dict(report.table)
    identity = report.figures["document"]["id"]
    assert explain(made, "main", identity[:8].upper()).table == report.table == explain(made, "main", identity).table


def test_the_longest_of_a_cluster_stands_for_the_others(made: Project) -> None:
    report = explain(made, "main", "texts/near.txt:0")
    assert report.figures["outcome"]["kept"]
    assert "near_duplicate 0.9" in row(report, "stands for") and "rows.jsonl:0" in row(report, "stands for")
    near = explain(made, "main", "rows.jsonl:0")
    assert near.figures["outcome"]["instead"]["path"] == "texts/near.txt"
    assert row(near, "left out").startswith("near_duplicate; measured 0.9") and "threshold = 0.8" in row(
        near, "left out"
    )
    assert row(near, "metadata") == '{"url":"https://example.org/\\u202ea"}', "no sign a terminal obeys"
    assert [one["path"] for one in near.figures["same_text"]] == ["texts/same.txt"]
    same = explain(made, "main", "texts/same.txt:0")
    assert same.figures["outcome"]["reason"] == "duplicate" and same.figures["outcome"]["value"] == "1"


@pytest.mark.parametrize(
    ("number", "reason", "shown"),
    [
        (1, "filter:length:too_few_words", ("too_few_words", "FAILED  2  (min_words = 3)")),
        (2, "too_short", ("characters", "FAILED  1 characters  (min_chars = 5, max_chars = 20000000)")),
        (3, "filter:regex:drop_found", ("drop_found", "FAILED  forbidden")),
        (5, "bad_row:no_text", ("read", "bad_row:no_text")),
    ],
)
def test_what_was_left_out_while_cleaning(made: Project, number: int, reason: str, shown: tuple[str, str]) -> None:
    report = explain(made, "main", f"rows.jsonl:{offset(number)}")
    assert report.figures["outcome"]["reason"] == report.figures["reason_now"] == reason
    assert row(report, shown[0]) == shown[1] and row(report, "left out").startswith(reason)
    assert "differs" not in dict(report.table)


def test_every_document_comes_to_the_same_end_again(made: Project) -> None:
    """Each row of the shards and of what was left out: found by its place, read again, with the same id or reason."""
    records = list(scan(made.place("corpus", "main"), lambda batch: pa.array([True] * batch.num_rows)))
    assert len(records) == len(ROWS) + 3 + 3
    for record in records:
        report = explain(made, "main", record.place)
        assert report.figures["document"]["id"] == record.id and report.figures["source"]["state"] == "unchanged"
        assert "differs" not in dict(report.table), (record, report.table)
        assert json.loads(json.dumps(report.figures)) == report.figures


def test_invalid_bytes_licence_and_offsets_of_packed_rows(made: Project) -> None:
    assert "1 invalid bytes became U+FFFD" in row(explain(made, "main", "texts/bad.txt:0"), "read")
    report = explain(made, "main", "packed.jsonl.gz:32")
    assert "number 1" in row(report, "text") and row(report, "licence") == "MIT"


def test_what_cannot_be_named(made: Project) -> None:
    with pytest.raises(SpecError, match="names no document"):
        explain(made, "main", "abc")
    with pytest.raises(ArtifactError, match="no document 0000000000 was kept or left out"):
        explain(made, "main", "0000000000")
    with pytest.raises(ArtifactError, match=r"no document rows\.jsonl:1 ") as caught:
        explain(made, "main", "rows.jsonl:1")
    assert caught.value.hint.startswith(f"documents of rows.jsonl begin at 0, {offset(1)}, ")
    with pytest.raises(ArtifactError, match=r"^there is no corpus other$"):
        explain(made, "other", "0000000000")


def test_a_prefix_of_several(made: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from gptcli.corpus import lookup

    monkeypatch.setattr(lookup, "with_prefix", lambda prefix: lambda batch: pa.array([True] * batch.num_rows))
    with pytest.raises(SpecError, match=r"000000 fits 11 documents: ") as caught:
        explain(made, "main", "000000")
    assert caught.value.hint == "give more digits of the id"


@pytest.mark.parametrize(
    ("change", "state"),
    [
        pytest.param(lambda path: path.unlink(), "gone: ", id="gone"),
        pytest.param(lambda path: path.write_text(path.read_text() + "\n"), "changed: it has", id="longer"),
        pytest.param(lambda path: path.write_text(path.read_text().replace("two", "TWO")), "changed since", id="other"),
        pytest.param(lambda path: os.utime(path, (1, 1)), "unchanged", id="touched"),
    ],
)
def test_a_source_that_is_not_as_it_was(project: Project, change: Callable[[Path], None], state: str) -> None:
    make(project)
    build(project)
    change(project.root / "rows.jsonl")
    report = explain(project, "main", f"rows.jsonl:{offset(1)}")
    assert report.figures["source"]["state"].startswith(state)
    assert row(report, "left out").startswith("filter:length:too_few_words; measured 2  (min_words = 3)")
    assert (report.figures["read"] is None) == (state != "unchanged")


def test_members_of_an_archive_are_told_apart(project: Project) -> None:
    import zipfile

    with zipfile.ZipFile(project.root / "a.zip", "w") as archive:
        for name in ("one.txt", "two.txt"):
            archive.writestr(name, f"this is the text of {name[:3]}, which is its own")
    build(project, source=["a.zip"], dedup="exact")
    with pytest.raises(SpecError, match="fits 2 documents") as caught:
        explain(project, "main", "a.zip:0")
    assert "PATH!MEMBER:OFFSET" in caught.value.hint
    report = explain(project, "main", "a.zip!one.txt:0")
    assert row(report, "from").startswith("a.zip, member one.txt, offset 0") and "text of one" in row(report, "text")


def test_a_row_of_a_big_file_is_found_in_its_part(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from gptcli.corpus import retrace as module

    lines = [json.dumps({"text": f"document number {number} has these words"}) + "\n" for number in range(400)]
    (project.root / "big.jsonl").write_text("".join(lines))
    build(project, source=["big.jsonl"], dedup="exact")
    whole = module.parts_of
    monkeypatch.setattr(module, "parts_of", lambda path, name, options: whole(path, name, options, 1 << 12))
    read_parts, reading = [], module.read

    def counted(path: Path, name: str, options: Any, notes: Any, part: Any) -> Any:
        read_parts.append(part.start)
        return reading(path, name, options, notes, part)

    monkeypatch.setattr(module, "read", counted)
    report = explain(project, "main", f"big.jsonl:{sum(map(len, lines[:300]))}")
    assert "number 300" in row(report, "text") and len(read_parts) == 1 and read_parts[0] > 0


def test_paragraphs_taken_out(project: Project) -> None:
    first, second = f"{LONG}, and that was all there was.", "Another paragraph, which only the second document has."
    (project.root / "a.txt").write_text(first)
    (project.root / "b.txt").write_text(f"{first}\n\n{second}")
    build(project, source=["a.txt", "b.txt"], dedup="exact", repeated_paragraphs=40)
    report = explain(project, "main", "b.txt:0")
    assert row(report, "text") == repr(second) and "differs" not in dict(report.table)
    assert row(report, "paragraphs") == f"{len(first) + 2:,} characters that earlier documents have, taken out"
    assert row(explain(project, "main", "a.txt:0"), "paragraphs") == "none stands in an earlier document"


def test_a_trained_filter_is_trained_again(project: Project) -> None:
    def texts(word: str) -> str:
        return "".join(json.dumps({"text": f"{word} " * (10 + n) + f"number{n}"}) + "\n" for n in range(40))

    (project.root / "good.jsonl").write_text(texts("good fine nice"))
    (project.root / "all.jsonl").write_text(texts("bad poor ugly") + texts("good fine nice"))
    build(project, source=["all.jsonl"], filters=[], dedup="none", quality={"like": "good.jsonl"})
    records = list(scan(project.place("corpus", "main"), lambda batch: pa.array([True] * batch.num_rows)))
    assert {record.reason for record in records} == {"", "filter:quality:low_quality"}
    for record in records[::30]:
        report = explain(project, "main", record.place)
        assert report.figures["reason_now"] == record.reason and "(min_score = 0.5)" in row(report, "low_quality")
        assert record.value in (None, f"{report.figures['steps'][0]['rules'][0]['value']:g}")
