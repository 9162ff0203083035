"""Rows of evaluation files of every form, with their places; what can't be read is counted or refused."""

from __future__ import annotations

import bz2
import datetime
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import zstandard

from gptcli.errors import SpecError
from gptcli.records.headers import Shape, is_header
from gptcli.records.items import REPLACED, ItemRows
from gptcli.records.sources import SourceFile

ROWS: list[dict[str, Any]] = [{"text": "a, b", "label": "x"}, {"text": "émoji 😀", "label": "y"}]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS)
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}


def source(path: Path) -> SourceFile:
    return SourceFile(path, path.name, path.name)


def rows_of(folder: Path, name: str, data: str | bytes, shape: Shape | None = None) -> ItemRows:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return ItemRows([source(path)], shape)


def values(rows: ItemRows) -> list[dict[str, Any]]:
    return [row.value for row in rows]


@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize(
    ("name", "text", "places"),
    [
        ("a.jsonl", JSONL, [":1", ":2"]),
        ("a.json", json.dumps(ROWS), [":1", ":1"]),
        ("b.json", "\n".join(json.dumps(row, indent=1) for row in ROWS), [":1", ":5"]),
        ("a.csv", 'text,label\r\n"a, b",x\r\némoji 😀,y\r\n', [" row 2", " row 3"]),
        ("b.csv", '\ufefftext;label\n"a, b";x\némoji 😀;y\n', [" row 2", " row 3"]),
        ("a.tsv", "text\tlabel\na, b\tx\némoji 😀\ty\n", [" row 2", " row 3"]),
    ],
    ids=["jsonl", "list", "objects", "csv", "csv-bom-semicolon", "tsv"],
)
def test_every_form_gives_the_same_rows(tmp_path: Path, name: str, text: str, places: list[str], packed: str) -> None:
    rows = rows_of(tmp_path, name + packed, PACKERS[packed](text.encode()))
    assert values(rows) == ROWS
    assert [row.where for row in rows] == [f"{name}{packed}{place}" for place in places]
    assert rows.left_out.counts == {} and rows.faults == []


def test_columnar_files_give_json_values(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": pa.array(["a", None], pa.large_string()),
            "raw": pa.array([b"bytes", b"\xff"]),
            "choices": pa.array([["p", "q"], []]),
            "deep": pa.array([{"n": 1, "at": datetime.date(2020, 1, 2)}, None]),
            "share": pa.array([0.5, float("nan")]),
            "which": pa.array(["u", "v"]).dictionary_encode(),
        }
    )
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    with pa.ipc.new_stream(tmp_path / "b.arrow", table.schema) as writer:
        writer.write_table(table)
    deep = {"n": 1, "at": "2020-01-02"}
    wanted = [
        {"text": "a", "raw": "bytes", "choices": ["p", "q"], "deep": deep, "share": 0.5, "which": "u"},
        {"text": None, "raw": None, "choices": [], "deep": None, "share": None, "which": "v"},
    ]
    for name in ("a.parquet", "a.arrow", "b.arrow"):
        rows = ItemRows([source(tmp_path / name)])
        assert values(rows) == wanted
        assert [row.where for row in rows] == [f"{name} row 1", f"{name} row 2"]


def test_lines_of_a_text_file(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "a.txt", "\ufeffone\r\n\r\ntwo")
    assert [(row.value, row.where) for row in rows] == [({"text": "one"}, "a.txt:1"), ({"text": "two"}, "a.txt:3")]


def test_text_and_label_files_go_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("one\n\nthree\n")
    (tmp_path / "labels.txt.gz").write_bytes(gzip.compress(b"a\nb\nc"))
    texts, labels = source(tmp_path / "texts.txt"), source(tmp_path / "labels.txt.gz")
    rows = ItemRows([texts], parallel={"label": [labels]})
    assert [(row.value["text"], row.value["label"], row.where) for row in rows] == [
        ("one", "a", "texts.txt:1"),
        ("", "b", "texts.txt:2"),
        ("three", "c", "texts.txt:3"),
    ]
    (tmp_path / "short.txt").write_text("a\nb\n")
    with pytest.raises(SpecError, match=r"texts\.txt has 3 lines and short\.txt has 2"):
        list(ItemRows([texts], parallel={"label": [source(tmp_path / "short.txt")]}))
    with pytest.raises(SpecError, match=r"parallel\.label names 2 files for 1"):
        ItemRows([texts], parallel={"label": [labels, labels]})
    with pytest.raises(SpecError, match="the lines of data are the field text"):
        ItemRows([texts], parallel={"text": [labels]})
    (tmp_path / "labels.csv").write_text("a\nb\nc\n")
    with pytest.raises(SpecError, match=r"labels\.csv is csv: only text files"):
        list(ItemRows([texts], parallel={"label": [source(tmp_path / "labels.csv")]}))


HEADLESS = "ham\tOk lar... Joking\nspam\tFree entry\n"


@pytest.mark.parametrize(
    ("name", "text", "shape", "wanted"),
    [
        ("a.tsv", HEADLESS, Shape(), [{"0": "ham", "1": "Ok lar... Joking"}, {"0": "spam", "1": "Free entry"}]),
        ("a.tsv", HEADLESS, Shape(True), [{"ham": "spam", "Ok lar... Joking": "Free entry"}]),
        ("a.csv", "text,label\na,b\n", Shape(False), [{"0": "text", "1": "label"}, {"0": "a", "1": "b"}]),
        ("a.csv", "text,label\na,b\n", Shape(columns=("text", "label")), [{"text": "a", "label": "b"}]),
        ("a.csv", "text,label\na,b\n", Shape(True, ("t", "l")), [{"t": "a", "l": "b"}]),
        ("a.csv", "a,b\nc,d,e\nf\n", Shape(columns=("t", "l")), [
            {"t": "a", "l": "b"}, {"t": "c", "l": "d", "extra": ["e"]}, {"t": "f"}
        ]),
    ],
    ids=["none-seen", "asked-for", "refused", "names-equal-header", "names-over-header", "ragged"],
)  # fmt: skip
def test_names_of_a_tables_fields(
    tmp_path: Path, name: str, text: str, shape: Shape, wanted: list[dict[str, Any]]
) -> None:
    assert values(rows_of(tmp_path, name, text, shape)) == wanted


@pytest.mark.parametrize(
    ("first", "behind", "expected"),
    [
        (["text", "category"], [["How?", "card"]], True),
        (["sentence 1", "gold-label", "meta.id"], [], True),
        (["text", "Text"], [], False),
        (["text", ""], [], False),
        (["text", "1"], [], False),
        (["How do I locate my card?", "card"], [], False),
        (["ham", "Ok lar"], [["spam", "Free"], ["ham", "No"]], False),
        (["a" * 41, "b"], [], False),
    ],
    ids=["names", "words", "twice", "empty", "number", "sentence", "label-again", "long"],
)
def test_the_rule_for_headers(first: list[str], behind: list[list[str]], expected: bool) -> None:
    assert is_header(first, behind) is expected


def test_the_real_tables(data_dir: Path) -> None:
    banking = list(ItemRows([source(data_dir / "banking77" / "test.csv")]))
    assert banking[0].value == {"text": "How do I locate my card?", "category": "card_arrival"} and len(banking) == 3080
    spam = list(ItemRows([source(data_dir / "sms-spam" / "sms.tsv")]))
    assert {row.value["0"] for row in spam} == {"ham", "spam"} and spam[0].where == "sms.tsv row 1"
    tweets = min((data_dir / "parquet-angry-tweets").glob("*.parquet"))
    assert set(next(iter(ItemRows([source(tweets)]))).value) == {"text", "label"}


def test_bad_rows_are_counted_with_the_first_place(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "a.jsonl", b'{"text": "a"}\n{broken\n\n[1]\n{"text": "b"}\n{broken again\n')
    assert values(rows) == [{"text": "a"}, {"text": "b"}]
    assert rows.left_out.counts == {"not_json": 2, "not_object": 1}
    assert rows.left_out.first == {"not_json": "a.jsonl:2", "not_object": "a.jsonl:4"}


def test_invalid_bytes_and_damage_are_told(tmp_path: Path) -> None:
    text = "".join(f'{{"text": "é{number}"}}\n' for number in range(400)).encode()
    rows = rows_of(tmp_path, "a.jsonl", text + b'{"text": "\xff"}\n')
    assert values(rows)[-1] == {"text": "\ufffd"} and rows.faults == [("a.jsonl", REPLACED)]
    for name, whole in (("b.jsonl.gz", text), ("c.txt.gz", text), ("d.csv.gz", b"text\n" + text)):
        packed = gzip.compress(whole)
        cut = rows_of(tmp_path, name, packed[: len(packed) // 2])
        given = len(list(cut))
        assert 0 < given < 400 and (name, "truncated") in cut.faults
        assert cut.left_out.counts in ({"truncated": 1}, {})
    table = pa.table({"text": ["a" * 50_000] * 100})
    pa.parquet.write_table(table, tmp_path / "e.parquet", compression="none", use_dictionary=False)
    data = bytearray((tmp_path / "e.parquet").read_bytes())
    data[10:60] = b"\xff" * 50
    with pytest.raises(SpecError, match=r"e\.parquet holds no items \(corrupt\)"):
        list(rows_of(tmp_path, "e.parquet", bytes(data)))


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.jsonl", b"", r"a\.jsonl holds no items"),
        ("a.jsonl", b"broken\n", r"a\.jsonl holds no items \(not_json at a\.jsonl:1\)"),
        ("a.csv", b"text,label\n", r"a\.csv holds no items"),
        ("a.json", b"[]", r"a\.json holds no items"),
        ("a.txt", b"\n\n", r"a\.txt holds no items"),
        ("a.jsonl", b'{"text": "\0"}', r"a\.jsonl is binary"),
        ("a.html", b"<html></html>", r"a\.html is html"),
    ],
    ids=["empty", "no-json", "header-alone", "empty-list", "blank", "nul", "html"],
)
def test_files_without_items_are_refused(tmp_path: Path, name: str, data: bytes, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        list(rows_of(tmp_path, name, data))


def test_iterating_twice_counts_once(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "a.jsonl", '{"text": "a"}\nbroken\n')
    assert values(rows) == values(rows) and rows.left_out.counts == {"not_json": 1}
