"""The forecast of a dry run: near to what is then built, without a byte written in the project."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from gptcli.artifacts.manifest import Manifest
from gptcli.artifacts.project import Project
from gptcli.corpus import forecast as module
from gptcli.corpus import probe as probing
from gptcli.corpus import run
from gptcli.corpus.forecast import Measured, forecast
from gptcli.corpus.spec import CorpusSpec, inputs
from gptcli.job import Job
from gptcli.progress import Silent

KEYS: dict[str, Any] = {"filters": [{"name": "length", "min_words": 20}], "min_chars": 4, "seconds": 60.0}


def rows(count: int, seed: int) -> bytes:
    """Documents of 1 to 100 words, all unlike."""
    draw = random.Random(seed)
    texts = (
        " ".join("".join(draw.choices("abcdefgh", k=9)) for _ in range(draw.randint(1, 100))) for _ in range(count)
    )
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)


def told(monkeypatch: pytest.MonkeyPatch, project: Project, **keys: Any) -> tuple[list[Measured], dict[str, str]]:
    """What was measured, and what is shown of it."""
    found: list[Measured] = []
    measured = module._measured

    def kept(*given: Any) -> Measured:
        found.append(measured(*given))
        return found[-1]

    monkeypatch.setattr(module, "_measured", kept)
    shown = {**KEYS, **keys}
    seconds = shown.pop("seconds")
    return found, dict(forecast(CorpusSpec.model_validate(shown), project, seconds))


def build(project: Project, **keys: Any) -> Manifest:
    spec = CorpusSpec.model_validate({**{key: value for key, value in KEYS.items() if key != "seconds"}, **keys})
    place = project.place("corpus", "main")
    place.parent.mkdir()
    return run.run(spec, Job(project, "main", place, inputs(spec, project, None), Silent()))


def near(found: float, wanted: float, share: float = 0.1) -> bool:
    return abs(found - wanted) <= share * wanted


def test_a_part_tells_the_whole(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """3 MB, of which a sample of a quarter MB is read: one big file, a packed one, and many small ones."""
    monkeypatch.setattr(probing, "_EACH", 1 << 15)
    monkeypatch.setattr(probing, "_FROM_BEGINNING", 1 << 16)
    monkeypatch.setattr(probing, "BYTES", 1 << 19)
    (project.root / "big.jsonl").write_bytes(rows(2500, 1))
    (project.root / "packed.jsonl.gz").write_bytes(gzip.compress(rows(1000, 2), mtime=0))
    (project.root / "small").mkdir()
    for number in range(300):
        (project.root / "small" / f"{number}.txt").write_bytes(rows(4, 10 + number))
    source = ["big.jsonl", "packed.jsonl.gz", "small"]
    before = sorted(project.root.rglob("*"))
    [found], shown = told(monkeypatch, project, source=source)
    assert sorted(project.root.rglob("*")) == before, "nothing is written into the project"
    stats = build(project, source=source).stats
    assert found.sampled_bytes < 0.4 * sum(path.stat().st_size for path in before if path.is_file())
    assert near(found.read, stats["documents_read"]) and near(found.kept, stats["documents"])
    assert near(found.text_bytes, stats["bytes"])
    reason = "filter:length:too_few_words"
    assert near(found.left_out[reason], stats["left_out"][reason], 0.25) and reason in shown["left out"]
    on_disk = sum(path.stat().st_size for path in (project.root / "corpus/main").glob("*-0*.arrow"))
    assert near(found.shard_bytes, on_disk, 0.2)
    assert set(shown) == {"sample", "documents", "text", "left out", "time", "disk", "memory"}


COLUMNAR = ("parquet", "groups.parquet", "arrow", "packed.arrow", "stream.arrow", "packed.stream.arrow")


@pytest.mark.parametrize("form", COLUMNAR)
def test_columns(project: Project, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """Packed text beside columns that are not read: what is sampled goes by rows, not by the file's bytes."""
    monkeypatch.setattr(probing, "_EACH", 1 << 15)
    monkeypatch.setattr(probing, "_FROM_BEGINNING", 1 << 16)
    monkeypatch.setattr(probing, "BYTES", 1 << 17)
    texts = [json.loads(line)["text"] for line in rows(2000, 5).splitlines()]
    table = pa.table({"text": texts, "other": [random.Random(text).randbytes(200) for text in texts]})
    name = f"a.{form}"
    if form.endswith("parquet"):
        size = 100 if form == "groups.parquet" else 2000
        parquet.write_table(table, project.root / name, compression="zstd", row_group_size=size)
    else:
        options = pa.ipc.IpcWriteOptions(compression="zstd" if "packed" in form else None)
        opened = (pa.ipc.new_stream if "stream" in form else pa.ipc.new_file)(
            project.root / name, table.schema, options=options
        )
        with opened as writer:
            writer.write_table(table, max_chunksize=100)
    [found], _ = told(monkeypatch, project, source=[name])
    stats = build(project, source=[name]).stats
    assert found.sampled_bytes < 0.6 * (project.root / name).stat().st_size
    assert near(found.read, stats["documents_read"]) and near(found.text_bytes, stats["bytes"])


def test_a_small_source_is_read_whole(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.root / "a.jsonl").write_bytes(rows(50, 3) + rows(50, 3))
    (project.root / "b.txt").write_text("x")
    [found], shown = told(monkeypatch, project, source=["a.jsonl", {"path": "b.txt", "weight": 0.5}])
    stats = build(project, source=["a.jsonl", "b.txt"]).stats
    assert (found.read, found.kept) == (stats["documents_read"], stats["documents"]) == (101, stats["documents"])
    assert found.left_out == stats["left_out"] and found.text_bytes == stats["bytes"]
    assert "100 %" in shown["sample"]


def test_what_cannot_be_known(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.root / "rows.jsonl").write_text('{"question": "?"}\n')
    source = ["rows.jsonl", "https://example.org/a.jsonl", "-", "gone.txt"]
    spec = CorpusSpec.model_validate({"source": source})
    shown = forecast(spec, project)
    assert [label.removeprefix("unknown ") for label, _ in shown if label.startswith("unknown ")] == source[1:]
    assert ("unknown https://example.org/a.jsonl", "not downloaded yet") in shown
    assert ("no text key in rows.jsonl", "it has the columns question") in shown
    assert len(dict(shown)) == len(shown)
    assert forecast(CorpusSpec(source=["-"]), project) == [
        ("unknown -", "standard input is read only when the work is done")
    ]


def test_errors_are_told_not_raised(project: Project) -> None:
    (project.root / "a.txt").write_text("some words")
    (project.root / "none.jsonl").write_text("")
    shown = dict(forecast(CorpusSpec(source=["a.txt"], decontaminate=["none.jsonl"]), project))
    assert "none.jsonl holds no evaluation items" in shown["cannot be told"]


def test_one_document_that_is_too_long_is_not_read(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.root / "a.txt").write_text("words " * 1000)
    monkeypatch.setattr(probing, "read", None)
    [found], _ = told(monkeypatch, project, source=["a.txt"], max_chars=100)
    assert (found.read, found.kept, found.left_out) == (1, 0, {"too_long": 1})


def test_time_ends_a_sample(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.root / "a.jsonl").write_bytes(rows(500, 4))
    [found], shown = told(monkeypatch, project, source=["a.jsonl"], seconds=0.0)
    assert 0 < found.sampled_bytes < 2000 and "at 1 place in 1 file" in shown["sample"]


def test_places_are_spread(tmp_path: Path) -> None:
    files = [probing.ProbedFile(tmp_path, f"{number}", number // 5, 100 + number) for number in range(10)]
    places = list(probing._places(files))
    assert [file.name for file, _ in places[:2]] == ["4", "9"], "the largest of each source first"
    assert {file.name for file, _ in places} == {file.name for file in files}
    assert all(0 <= place <= 1 for _, place in places)
