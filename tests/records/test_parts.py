"""parts: whatever a file holds and wherever it is cut, its parts give what the whole file gives, piece for piece."""

from __future__ import annotations

import bz2
import gzip
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gptcli.records import compression, cutting, documents, encodings, opening, parts
from gptcli.records.parts import WHOLE, Part, parts_of
from gptcli.records.pieces import Notes, Piece, ReadOptions


def pieces(path: Path, options: ReadOptions, part: Part | None = None) -> tuple[list[Piece], Notes]:
    notes = Notes()
    return list(documents.read(path, path.name, options, notes, part)), notes


def compare(path: Path, options: ReadOptions, part_bytes: int) -> int:
    """How many parts there are; they follow each other without a gap and give the same pieces and faults."""
    whole, notes = pieces(path, options)
    cuts = list(parts_of(path, path.name, options, part_bytes))
    assert pickle.loads(pickle.dumps(cuts)) == cuts
    assert cuts[0].start == 0 and cuts[-1].end is None
    assert [part.end for part in cuts[:-1]] == [part.start for part in cuts[1:]]
    found, faults = [], []
    for part in cuts:
        read, told = pieces(path, options, part)
        found += read
        faults += told.faults
    assert found == whole
    assert faults == notes.faults
    return len(cuts)


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


TEXT = ["a", "bc", "é", "猫", "\r", "\n", "\r\n", "\n\n", "\r\r", " ", "\t", "<|endoftext|>", "\n \n", "x" * 9]
JSON = [
    json.dumps({"text": "a", "n": 1}),
    '{"text": "é猫"}',
    "{bad",
    "[1]",
    "\n",
    "\r\n",
    "\r",
    " ",
    "\n\n",
    '{"text": "',
]
TABLE = ["a", ",", '"', '""', "\n", "\r\n", "\r", "é", '"x\ny"', '"q""r"', ",b\n", "c,d\n", '5" e', ";", " "]
FORMS = [
    ("a.txt", TEXT, "line"),
    ("a.txt", TEXT, "blank_lines"),
    ("a.txt", TEXT, "<|endoftext|>"),
    ("a.jsonl", JSON, "none"),
    ("a.csv", TABLE, "none"),
    ("a.tsv", [*TABLE, "\t"], "none"),
]
CASE = st.sampled_from(FORMS).flatmap(
    lambda form: st.tuples(st.just(form), st.lists(st.sampled_from(form[1]), max_size=40))
)


@settings(max_examples=400, deadline=None)
@given(
    CASE,
    st.integers(1, 24),
    st.sampled_from(["utf-8", "utf-8-sig", "cp1252", "shift_jis", "gb18030"]),
    st.sampled_from(["auto", "same"]),
    st.sampled_from(["", "gz", "cut", "bz2"]),
    st.booleans(),
)
@example((FORMS[0], ["\r", "\r\n", "a", "\r"]), 1, "utf-8", "auto", "", True)
@example((FORMS[1], ["a", "\n", " ", "\n", "\t", "\n", "b", "\r\n", "\r", "c"]), 2, "utf-8-sig", "auto", "", True)
@example((FORMS[3], ["{bad", "\n", "{bad", "\n"]), 4, "utf-8", "auto", "cut", True)
@example((FORMS[4], ["a", ",", "b\n", '"x\ny"', ",", '"', "\n", "\n", "z"]), 2, "utf-8", "auto", "", True)
@example((FORMS[4], ["\n", "\n", "a", "\n", "\n", "\n", "\n", "\n", "\n"]), 2, "utf-8", "auto", "", False)
@example((FORMS[0], ["\n"] * 40), 2, "utf-8", "auto", "", False)
@example((FORMS[0], []), 1, "utf-8-sig", "auto", "gz", False)
def test_parts_are_the_whole(
    tmp_path_factory: pytest.TempPathFactory,
    case: tuple[tuple[str, list[str], str], list[str]],
    part_bytes: int,
    codec: str,
    encoding: str,
    packing: str,
    header: bool,
) -> None:
    (name, _, separator), drawn = case
    data = "".join(drawn).encode(codec, "replace")
    if packing:
        data = bz2.compress(data) if packing == "bz2" else gzip.compress(data, mtime=0)
        data = data[:-9] if packing == "cut" else data
    path = write(tmp_path_factory.getbasetemp(), f"{name}.{packing}" if packing else name, data)
    options = ReadOptions(separator=separator, encoding=codec if encoding == "same" else "auto", header=header)
    patch = pytest.MonkeyPatch()
    try:
        for block, search in ((1 << 20, 1 << 18), (5, 3)):
            patch.setattr(opening, "BLOCK", block)
            patch.setattr(parts, "_SEARCH", search)
            patch.setattr(cutting, "_STEP", search)
            patch.setattr(cutting, "_NEAR", min(search, 4))
            patch.setattr(encodings, "SAMPLE", 1 << 18 if block > 5 else 4)
            compare(path, options, part_bytes)
    finally:
        patch.undo()


def lines(count: int) -> bytes:
    return b"".join(b'{"text": "row %d", "more": [%d, "\xc3\xa9"]}\r\n' % (number, number) for number in range(count))


def test_files_are_cut_where_they_can_be(tmp_path: Path) -> None:
    options, data = ReadOptions(), lines(20_000)
    assert compare(write(tmp_path, "a.jsonl", data), options, 100_000) in (8, 9)
    packed = write(tmp_path, "a.jsonl.gz", gzip.compress(data))
    assert compare(packed, options, 100_000) in (8, 9)
    assert all(part.data for part in parts_of(packed, "a", options, 100_000))
    assert list(parts_of(write(tmp_path, "a.json", data), "a", options, 100_000)) != [WHOLE]
    for name, content in (
        ("b.jsonl", data[:199_999]),  # under two parts
        ("a.txt", data),  # a document
        ("list.json", b"[" + data.replace(b"\r\n", b",")[:-1] + b"]"),
        ("wide.jsonl", "\ufeff".encode("utf-16-le") + data.decode().encode("utf-16-le")),
        ("a.html", b"<html>" + data),
    ):
        assert list(parts_of(write(tmp_path, name, content), name, options, 100_000)) == [WHOLE], name


def test_table_parts_know_the_header(tmp_path: Path) -> None:
    rows = "".join(f'"line {n}\nof ""{n}""",{n}\n' for n in range(5_000)).encode()
    path = write(tmp_path, "a.csv", b"\xef\xbb\xbf text ,n\n" + rows)
    assert compare(path, ReadOptions(), 20_000) == 8
    cuts = list(parts_of(path, "a.csv", ReadOptions(), 20_000))
    assert {part.columns for part in cuts} == {("text", "n")}
    [first, *_], _ = pieces(path, ReadOptions(), cuts[2])
    assert first.text.startswith("line ") and first.meta and '"n":' in first.meta


def test_a_damaged_file_ends_in_its_last_part(tmp_path: Path) -> None:
    packed = gzip.compress(lines(20_000))
    path = write(tmp_path, "a.jsonl.gz", packed[: len(packed) // 2])
    assert compare(path, ReadOptions(), 50_000) > 3
    *_, last = parts_of(path, "a", ReadOptions(), 50_000)
    assert last.fault == "truncated"
    assert pieces(path, ReadOptions(), last)[0][-1].reason == "truncated"
    broken = write(tmp_path, "b.txt.gz", gzip.compress(lines(60_000))[:-8] + bytes(8))
    assert compare(broken, ReadOptions(separator="line"), 50_000) > 3


def test_what_cannot_be_cut_on_is_one_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long row behind short ones: of a compressed file the rest is read as one part, holding little of it."""
    monkeypatch.setattr(parts, "BLOCK", 1000)
    monkeypatch.setattr(opening, "BLOCK", 1000)
    monkeypatch.setattr(compression, "BLOCK", 1000)
    monkeypatch.setattr(parts, "SAMPLE", 1000)
    monkeypatch.setattr(encodings, "SAMPLE", 1000)
    monkeypatch.setattr(cutting, "OVERLAP", 100)
    monkeypatch.setattr(cutting, "_STEP", 1000)
    data = lines(100) + b'{"text": "' + b"y" * 100_000 + b'"}\n' + lines(1500)
    options = ReadOptions(max_chars=1)
    for name, content in (("a.jsonl.gz", gzip.compress(data)), ("a.jsonl", data)):
        path = write(tmp_path, name, content)
        assert compare(path, ReadOptions(), 1000) > 2
        assert compare(path, options, 1000) > 2
    [*_, rest] = parts_of(tmp_path / "a.jsonl.gz", "a", options, 1000)
    assert rest.data is None and rest.start > 0
    open_quote = b"text\nx\n" + b"ab\n" * 5000 + b'"' + (b"a" * 999 + b"\n") * 2000
    path = write(tmp_path, "q.csv", open_quote)
    assert compare(path, options, 1000) > 2
    assert "bad_row:too_long" in {piece.reason for piece in pieces(path, options)[0]}


def test_encoding_is_decided_once(tmp_path: Path) -> None:
    """Non-ASCII characters far behind the head still decide how all parts are read."""
    data = b"".join(b"plain line %d\n" % number for number in range(10_000))
    data += "Zürich, Größe, Straße, früh\n".encode("cp1252") * 3_000
    for name, content in (("a.txt", data), ("a.txt.gz", gzip.compress(data))):
        path = write(tmp_path, name, content)
        assert compare(path, ReadOptions(separator="line"), 20_000) > 3
        assert pieces(path, ReadOptions(separator="line"))[0][-1].text == "Zürich, Größe, Straße, früh"


def test_real_files(data_dir: Path, tmp_path: Path) -> None:
    for name, separator in (
        ("tinyshakespeare/input.txt", "blank_lines"),
        ("c4-demo/c4_demo.jsonl", "none"),
        ("banking77/train.csv", "none"),
        ("sms-spam/sms.tsv", "none"),
        ("multilingual-dev/22367-8.txt", "blank_lines"),
    ):
        path = data_dir / name
        if path.is_file():
            header = not name.startswith("sms")
            assert compare(path, ReadOptions(separator=separator, header=header), 20_000) > 2, name
