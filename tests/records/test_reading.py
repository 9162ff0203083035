"""opening, decoding, text and rows: what comes out is what stands in the file, wherever blocks and pieces are cut."""

from __future__ import annotations

import bz2
import codecs
import gzip
import json
import lzma
import zlib
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from gptcli.errors import SpecError
from gptcli.records import opening, text
from gptcli.records.opening import Blocks, Held, sniff
from gptcli.records.rows import RowFile
from gptcli.records.text import Document, TextFile, separator_pattern


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def read(path: Path, separator: str = "none", **options: object) -> list[Document]:
    return list(TextFile(Blocks(path, path.name), separator_pattern(separator), **options))  # type: ignore[arg-type]


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def blocks(path: Path) -> tuple[bytes, str]:
    source = Blocks(path, path.name)
    return b"".join(source), source.fault


@pytest.mark.parametrize("pack", [gzip.compress, zstd, bz2.compress, lzma.compress])
def test_compressed_streams(tmp_path: Path, pack: object) -> None:
    data = bytes(range(256)) * 6_000
    packed = pack(data)  # type: ignore[operator]
    assert blocks(write(tmp_path, "a", packed)) == (data, "")
    assert blocks(write(tmp_path, "b", packed + packed)) == (data + data, "")
    assert blocks(write(tmp_path, "c", packed + b"garbage!")) == (data, opening.TRAILING)
    short, fault = blocks(write(tmp_path, "d", packed[: len(packed) // 2]))
    assert fault == opening.TRUNCATED and data.startswith(short)
    broken = bytearray(packed)
    broken[-6] ^= 0xFF  # a checksum; a block of zstd
    assert blocks(write(tmp_path, "e", bytes(broken)))[1] in (opening.CORRUPT, opening.TRUNCATED)


def test_gzip_padding_and_highly_compressed_blocks(tmp_path: Path) -> None:
    data = b"\0" * (opening.BLOCK * 5 + 7)
    assert blocks(write(tmp_path, "a.gz", gzip.compress(data) + b"\0" * 512)) == (data, "")
    assert max(map(len, Blocks(tmp_path / "a.gz", "a.gz"))) <= opening.BLOCK
    assert max(map(len, Blocks(write(tmp_path, "a.zst", zstd(data)), "a.zst"))) <= opening.BLOCK
    raw = zlib.compressobj(9, zlib.DEFLATED, 31)
    assert blocks(write(tmp_path, "b.gz", raw.compress(data) + raw.flush())) == (data, "")


@pytest.mark.parametrize(
    ("name", "data", "form"),
    [
        ("a.txt", b"hello", "text"),
        ("a.txt", b"", "text"),
        ("a.txt", b"PK\x03\x04 a zip", "zip"),
        ("a.docx", b"PK\x03\x04 a zip", "binary"),
        ("a.txt", b"PAR1...", "parquet"),
        ("a", b"ARROW1", "arrow"),
        ("a", b"WARC/1.0\r\n", "warc"),
        ("a.arc", b"filedesc://x", "warc"),
        ("a", b"x".ljust(257, b"\0") + b"ustar\0", "tar"),
        ("a.txt", b" <!-- c --> <!DOCTYPE html>", "html"),
        ("a", b"<!-- c -->\n  " * 600, "text"),  # many comments and no page: told at once
        ("a.md", b"<html>", "text"),
        ("a.htm", b"<p>", "html"),
        ("a.csv.bz2", bz2.compress(b"a,b"), "csv"),
        ("a.tsv.xz", lzma.compress(b"a"), "tsv"),
        ("a.csv", b"a\0", "binary"),
        ("a", b'{"a": 1}\n{"a": 2}', "rows"),
        ("a", b'{"a":\n 1}', "text"),
        ("a.txt", b"a\0b", "binary"),
        ("a.txt", codecs.BOM_UTF16_LE + "hé".encode("utf-16-le"), "text"),
        ("a.jsonl", b"{}", "rows"),
        ("a.JSONL.gz", gzip.compress(b"{}", mtime=0), "rows"),
        ("a.jsonl", zstd(b"{}"), "rows"),  # packed, whatever its name says
        ("a.json", b"\xef\xbb\xbf [{}]", "list"),
        ("a.json", b'{"a": 1}\n{"a": 2}', "rows"),
        ("a.json", b'{\n "a": 1\n}', "objects"),
        ("a.json.zst", zstd(b"[]"), "list"),
    ],
)
def test_sniff(tmp_path: Path, name: str, data: bytes, form: str) -> None:
    assert sniff(write(tmp_path, name, data), name) == form


def test_separators(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", b"one\ntwo\r\n\r\n \nthree\n")
    assert [d.text for d in read(path)] == ["one\ntwo\n\n \nthree\n"]
    assert [(d.text, d.offset, d.size, d.line) for d in read(path, "blank_lines")] == [
        ("one\ntwo", 0, 7, 1),
        ("three\n", 13, 6, 5),
    ]
    assert [(d.text, d.offset, d.line) for d in read(path, "line")] == [
        ("one", 0, 1),
        ("two", 4, 2),
        (" ", 11, 4),
        ("three", 13, 5),
    ]
    assert [d.text for d in read(path, "^t[a-z]+$")] == ["one\n", "\n\n \n", "\n"]
    stories = write(tmp_path, "b.txt", b"a|b\n<|endoftext|>\nc\n<|endoftext|>\n")
    assert [d.text for d in read(stories, "<|endoftext|>")] == ["a|b", "c"]
    assert [d.text for d in read(write(tmp_path, "c", b"Chapter 1\nx\nChapter 2\n"), "(?=^Chapter)")] == [
        "Chapter 1\nx\n",
        "Chapter 2\n",
    ]
    assert [d.problem for d in read(write(tmp_path, "d", b""), "line")] == ["empty"]


@pytest.mark.parametrize("pattern", ["x*", "(", "^"])
def test_separators_that_cannot_be(pattern: str) -> None:
    with pytest.raises(ValueError):
        separator_pattern(pattern)


PIECES = st.lists(st.sampled_from(["a", "é", "猫", "\r", "\n", "\r\n", " ", "END", "x" * 7, "\n\n"]), max_size=60)


@settings(max_examples=150, deadline=None)
@given(
    PIECES,
    st.sampled_from(["none", "line", "blank_lines", r"^END", r"(?<=a)END\n?"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]),
)
def test_any_block_size_gives_the_same_documents(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[str], separator: str, encoding: str
) -> None:
    """Against plain Python on the whole text; the byte range, read alone, gives the document back."""
    data = "".join(pieces).encode(encoding, "replace")
    path = write(tmp_path_factory.getbasetemp(), "any.txt", data)
    whole = data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    pattern = separator_pattern(separator)
    wanted = [piece for piece in (pattern.split(whole) if pattern else [whole]) if piece] or [""]
    asked = "latin-1" if encoding == "latin-1" else "utf-8"
    patch = pytest.MonkeyPatch()
    try:
        patch.setattr(text, "REACH", 12)
        for block in (1, 3, 16, 1 << 20):
            patch.setattr(opening, "BLOCK", block)
            found = read(path, separator, encoding=asked)
            assert [d.text for d in found] == wanted
            for d in found:
                codec = {"utf-8-sig": "utf-8", "utf-16": "utf-16-le"}.get(encoding, encoding)
                raw = data[d.offset : d.offset + d.size].decode(codec)
                assert raw.replace("\r\n", "\n").replace("\r", "\n") == d.text
    finally:
        patch.undo()


def test_lines_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", b"x\n" * 5000 + b"END\n" + b"y\r\n" * 3 + b"END\nz")
    assert [d.line for d in read(path, r"END\n")] == [1, 5002, 5006]


def test_invalid_bytes(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", b"caf\xe9\nb\xf0\x9f\x98\nc\xff\xffd\n")
    found = read(path, "line")
    assert [d.text for d in found] == ["caf\ufffd", "b\ufffd", "c\ufffd\ufffdd"]
    assert [(d.invalid_bytes, d.offset, d.size) for d in found] == [(1, 0, 4), (3, 5, 4), (2, 10, 4)]
    assert read(path, encoding="latin-1")[0].text.startswith("café")
    odd = write(tmp_path, "b.txt", codecs.BOM_UTF16_LE + b"a\0\x00\xd8b\0c")
    assert [d.text for d in read(odd)] == ["a\ufffdb\ufffd"]


def test_long_pieces_are_read_past(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "BLOCK", 1000)
    monkeypatch.setattr(text, "REACH", 10)
    path = write(tmp_path, "a.txt", b"short\n" + b"y" * 99_999 + b"\nlast\n")
    found = read(path, "line", max_chars=500)
    assert [(d.text, d.problem, d.offset, d.size, d.line) for d in found] == [
        ("short", "", 0, 5, 1),
        ("", "too_long", 6, 99_999, 2),
        ("last", "", 100_006, 4, 3),
    ]
    assert [(d.problem, d.size) for d in read(path, max_chars=500)] == [("too_long", 100_011)]


def test_truncated_and_corrupt_text(tmp_path: Path) -> None:
    lines = b"".join(b"line %d of a text\n" % number for number in range(9000))
    packed = gzip.compress(lines)
    cut = TextFile(Blocks(write(tmp_path, "a.gz", packed[: len(packed) // 2]), "a.gz"))
    [document] = list(cut)
    assert cut.fault == "truncated" and lines.decode().startswith(document.text) and document.text
    damaged = packed[:-8] + bytes(8)  # CRC and length
    broken = TextFile(Blocks(write(tmp_path, "b.gz", damaged), "b.gz"))
    assert [d.problem for d in broken] == ["corrupt"]


def test_rows(tmp_path: Path) -> None:
    good = {"text": "käse\ud83d", "n": 1}
    lines = [
        json.dumps(good).encode(),
        b"",
        b'["no object"]',
        b"{no json",
        b'{"n": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"text": "caf\xe9", "x": NaN}',
    ]
    path = write(tmp_path, "a.jsonl", b"\r\n".join(lines))
    found = list(RowFile(Blocks(path, "a.jsonl")))
    assert [row.problem for row in found] == ["", "not_object", "not_json", "not_json", "not_json", ""]
    assert [row.line for row in found] == [1, 3, 4, 5, 6, 7]
    assert found[0].value == good and found[-1].value == {"text": "caf\ufffd", "x": None}
    assert [path.read_bytes()[row.offset : row.offset + row.size] for row in found] == [line for line in lines if line]
    assert found[-1].invalid_bytes == 1


def test_truncated_rows(tmp_path: Path) -> None:
    rows = b"".join(json.dumps({"text": f"row {n}", "more": [n] * 9}).encode() + b"\n" for n in range(3000))
    packed = zstd(rows)
    file = RowFile(Blocks(write(tmp_path, "a.jsonl.zst", gzip.compress(rows)[:5000]), "a"))
    found = list(file)
    assert file.fault == "truncated" and len(found) > 100
    assert [row.problem for row in found][-2:] == ["", "truncated"]
    assert len(list(RowFile(Blocks(write(tmp_path, "b.jsonl.zst", packed), "b")))) == 3000


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_json_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(opening, "BLOCK", block)
    items = [{"a": "é" * 40}, {"b": {"c": [1, 2]}}, 12345, {"d": "]"}]
    data = json.dumps(items, ensure_ascii=False, indent=2).replace("\n", "\r\n").encode()
    found = list(RowFile(Blocks(write(tmp_path, "a.json", data), "a.json"), form="list"))
    assert [row.problem for row in found] == ["", "", "not_object", ""]
    assert [row.line for row in found] == [2, 5, 13, 14]
    for row, item in zip(found, items, strict=True):
        assert json.loads(data[row.offset : row.offset + row.size]) == item
    assert list(RowFile(Blocks(write(tmp_path, "b.json", b" [ ] "), "b"), form="list")) == []
    broken = RowFile(Blocks(write(tmp_path, "c.json", data[:-9]), "c"), form="list")
    assert [row.problem for row in broken] == ["", "", "not_object", "not_json"] and broken.fault == "broken_list"


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"no file books/x\.txt"):
        list(TextFile(Blocks(tmp_path / "x.txt", "books/x.txt")))
    with pytest.raises(SpecError, match="cannot read books"):
        list(Blocks(tmp_path, "books"))


def test_real_books(data_dir: Path) -> None:
    """Counts from the folders' ORIGIN.txt; BOM and CRLF gone, Latin-1 read as asked."""
    [alice] = read(data_dir / "gutenberg-dev" / "11-0.txt")
    assert alice.offset == 3 and "\r" not in alice.text and not alice.text.startswith("\ufeff")
    assert len(alice.text) == 167553 - 1 - alice.text.count("\n")
    assert alice.size == 173595 - 3
    kafka = data_dir / "multilingual-dev" / "22367-8.txt"
    assert "Käfer" in read(kafka, encoding="latin-1")[0].text or "Ungeziefer" in read(kafka, encoding="latin-1")[0].text
    assert read(kafka, encoding="latin-1")[0].invalid_bytes == 0
    valid = kafka.read_bytes().decode("utf-8", "ignore").replace("\r\n", "\n")
    assert read(kafka)[0].invalid_bytes > 2000 and read(kafka)[0].text.replace("\ufffd", "") == valid
    lists = data_dir / "dpo-en-demo" / "dpo_en_demo.json"
    assert [row.value for row in RowFile(Blocks(lists, "dpo"), form="list")] == json.loads(
        lists.read_text(encoding="utf-8")
    )


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=30), min_size=1, max_size=3), min_size=1, max_size=5)
)
def test_objects_over_several_lines(values: list[dict[str, str]]) -> None:
    data = "\n".join(json.dumps(value, indent=2) for value in values).encode()
    found = list(RowFile(Held(data, "a.json"), form="objects"))
    assert [row.value for row in found] == values
    assert [json.loads(data[row.offset : row.offset + row.size]) for row in found] == values
    cut = RowFile(Held(data[:-1], "a.json"), form="objects")
    assert [row.problem for row in cut] == [""] * (len(values) - 1) + ["not_json"] and cut.fault == "broken_list"
