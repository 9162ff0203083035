"""Parquet and Arrow files: rows, types, metadata, damage."""

from __future__ import annotations

import datetime
import json
import random
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as parquet
import pytest

from gptcli.errors import SpecError
from gptcli.records.columnar import groups, read_columnar
from gptcli.records.pieces import Notes, Piece, ReadOptions

FORMS = ["parquet", "file", "stream"]
COUNTS = {"train-00000-of-00001.parquet": 2411, "test-00000-of-00001.parquet": 1047}  # ORIGIN.txt


def write(tmp_path: Path, columns: Any, form: str = "parquet", rows: int = 100) -> Path:
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    path = tmp_path / f"x.{form}"
    if form == "parquet":
        parquet.write_table(table, path, row_group_size=rows, compression="zstd")
        return path
    with (ipc.new_file if form == "file" else ipc.new_stream)(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


def read(path: Path, notes: Notes | None = None, start: int = 0, end: int | None = None, **options: Any) -> list[Piece]:
    asked = ReadOptions(**options)
    return list(read_columnar(path, path.name, asked, notes or Notes(), start=start, end=end))


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_every_row_is_a_document(data_dir: Path, name: str) -> None:
    path, notes = data_dir / "parquet-angry-tweets" / name, Notes()
    pieces = read(path, notes)
    table = parquet.read_table(path)
    assert [piece.text for piece in pieces] == table["text"].to_pylist()
    assert [json.loads(piece.meta or "") for piece in pieces] == [{"label": v} for v in table["label"].to_pylist()]
    assert [piece.offset for piece in pieces] == list(range(COUNTS[name]))
    assert all(piece.size == len(piece.text.encode()) and not piece.reason for piece in pieces)
    assert notes.faults == [] and notes.with_text == {name}
    assert len(groups(path)) == 1


@pytest.mark.parametrize("form", FORMS)
def test_a_missing_column_is_told_with_those_there_are(tmp_path: Path, form: str) -> None:
    notes = Notes()
    path = write(tmp_path, {"body": ["a", "b", "c"], "n": [1, 2, 3]}, form, rows=2)
    assert Counter(piece.reason for piece in read(path, notes)) == {"bad_row:no_text": 3}
    assert notes.columns == {path.name: ["body", "n"]} and not notes.with_text


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)
def test_types_of_text(tmp_path: Path, form: str, kind: pa.DataType) -> None:
    values = ["grün", "", None, " \n", "lang genug für mehr als zwölf Bytes"]
    source = [v.encode() if v is not None and pa.types.is_binary(kind) else v for v in values]
    column = pa.array(values).dictionary_encode() if pa.types.is_dictionary(kind) else pa.array(source, kind)
    found = read(write(tmp_path, {"text": column}, form, rows=5))
    assert [piece.text for piece in found] == ["grün", "", "", "", values[4]]
    assert [piece.reason for piece in found] == ["", "empty", "bad_row:no_text", "empty", ""]
    assert [piece.size for piece in found] == [5, 0, 0, 2, 37]
    assert all(piece.meta is None for piece in found)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_no_text(tmp_path: Path, form: str) -> None:
    path = write(tmp_path, {"text": [1, 2, 3], "bytes": [b"ok", b"\xff", None]}, form)
    assert [piece.reason for piece in read(path)] == ["bad_row:text_not_string"] * 3
    reasons = [piece.reason for piece in read(path, text_key="bytes")]
    assert reasons == ["", "bad_row:text_not_string", "bad_row:no_text"]
    assert read(write(tmp_path, {"text": ["abc"]}, form), max_chars=2)[0].reason == "too_long"


@pytest.mark.parametrize("form", FORMS)
def test_a_string_column_that_is_not_utf8(tmp_path: Path, form: str) -> None:
    raw = pa.array([b"gr\xfc\xfcn", b"ok"], pa.binary())
    column = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    found = read(write(tmp_path, {"text": column, "more": column}, form))
    assert [(piece.text, piece.invalid_bytes) for piece in found] == [("gr\ufffd\ufffdn", 2), ("ok", 0)]
    assert found[0].meta == '{"more":"gr\ufffd\ufffdn"}'


@pytest.mark.parametrize("form", FORMS)
def test_metadata_is_json(tmp_path: Path, form: str) -> None:
    moment = datetime.datetime(2024, 5, 6, 7, 8, 9)
    columns = {
        "when": pa.array([moment], pa.timestamp("ms")),
        "day": [moment.date()],
        "price": [Decimal("1.10")],
        "nan": [float("nan")],
        "nested": [[{"a": float("inf"), "b": b"x", "c": "ü"}]],
        "text": ["x"],
        "picture": [b"\x89PNG"],
        "n": [7],
    }
    path = write(tmp_path, columns, form)
    told = {
        "when": "2024-05-06T07:08:09.000",
        "day": "2024-05-06",
        "price": "1.10",
        "nan": None,
        "nested": [{"a": None, "b": None, "c": "ü"}],
        "n": 7,
    }
    assert read(path)[0].meta == json.dumps(told, ensure_ascii=False, separators=(",", ":"))
    assert read(path, metadata=("n", "absent", "day"))[0].meta == '{"n":7,"day":"2024-05-06"}'
    assert read(path, metadata=())[0].meta is None


@pytest.mark.parametrize("form", FORMS)
def test_groups_cut_a_file_into_the_same_rows(tmp_path: Path, form: str) -> None:
    path = write(tmp_path, {"text": [f"row {k}" for k in range(250)]}, form, rows=100)
    whole = read(path)
    assert [piece.offset for piece in whole] == list(range(250))
    assert [piece for k in range(3) for piece in read(path, start=k, end=k + 1)] == whole
    assert len(groups(path)) == (1 if form == "stream" else 3) and all(groups(path))


def test_a_damaged_row_group_costs_only_itself(tmp_path: Path) -> None:
    draw = random.Random(2)
    texts = ["".join(draw.choices("abcdefgh ", k=200)) for _ in range(300)]
    path = write(tmp_path, {"text": texts}, rows=100)
    chunk = parquet.ParquetFile(path).metadata.row_group(1).column(0)
    begin = min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset)
    data = bytearray(path.read_bytes())
    data[begin + 60 : begin + chunk.total_compressed_size - 60] = bytes(chunk.total_compressed_size - 120)
    path.write_bytes(data)
    notes = Notes()
    found = read(path, notes)
    assert [piece.text for piece in found if not piece.reason] == texts[:100] + texts[200:]
    assert [(p.reason, p.offset, p.size) for p in found if p.reason] == [("corrupt", 100, 100)]
    assert notes.faults == [("x.parquet", "corrupt")]


def test_a_truncated_stream_gives_the_batches_there_are(tmp_path: Path) -> None:
    path = write(tmp_path, {"text": [f"row {k}" for k in range(30)]}, "stream", rows=10)
    path.write_bytes(path.read_bytes()[:-200])
    notes = Notes()
    found = read(path, notes)
    assert [piece.reason for piece in found] == [""] * 20 + ["corrupt"]
    assert notes.faults == [("x.stream", "corrupt")]


def test_a_file_without_its_footer_is_read_as_the_stream_it_holds(tmp_path: Path) -> None:
    path = write(tmp_path, {"text": [f"row {k}" for k in range(30)]}, "file", rows=10)
    path.write_bytes(path.read_bytes()[:-100])
    notes = Notes()
    assert [piece.text for piece in read(path, notes) if not piece.reason] == [f"row {k}" for k in range(30)]
    assert ("x.file", "truncated") in notes.faults
    assert groups(path) == [path.stat().st_size]


def test_a_group_that_claims_more_rows_than_its_file_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, notes = write(tmp_path, {"n": [1] * 50}), Notes()
    monkeypatch.setattr("gptcli.records.columnar._MOST_ROWS", 10)
    monkeypatch.setattr("gptcli.records.columnar._MOST_ROWS_A_BYTE", 0)
    assert [(piece.reason, piece.size) for piece in read(path, notes)] == [("corrupt", 0)]
    assert notes.faults == [("x.parquet", "corrupt")]


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_file_is_counted(tmp_path: Path, form: str) -> None:
    path = write(tmp_path, {"text": ["a"]}, form)
    path.write_bytes(path.read_bytes()[:20])
    notes = Notes()
    found = list(read_columnar(path, "x", ReadOptions(), notes, "inner"))
    assert found == [Piece("", 0, 0, "inner", reason="corrupt")]
    assert notes.faults == [("x!inner", "corrupt")] and groups(path) == [20]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none\.parquet"):
        read(tmp_path / "none.parquet")
