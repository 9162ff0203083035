"""Web archives: the counts their origin tells, payloads, damage."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from gptcli.records.opening import Blocks
from gptcli.records.payload import NO_DECODER, body_of, parse_response
from gptcli.records.pieces import EMPTY, NOT_TEXT, TOO_LONG, Notes, Piece, ReadOptions
from gptcli.records.webarchive import read_webarchive, read_webarchive_file
from gptcli.records.webrecords import MAX_RECORD, web_records

# Documents, other records, and faults. ORIGIN.txt tells records and responses; some responses are JSON or redirects.
COUNTS = {
    "cc_net/sample.warc.txt": (3, {"warc:warcinfo": 1}, ["bad_length"]),
    "dolma/sample-0000.warc.gz": (22, {"warc:warcinfo": 1, "warc:request": 22, "warc:metadata": 3}, []),
    "warcio/bad.arc": (0, {"warc:warcinfo": 1, "empty": 2, "warc:no_http": 1}, ["bad_length"]),
    "warcio/example-bad-non-chunked.warc.gz": (1, {"warc:warcinfo": 2, "warc:request": 2, "warc:revisit": 1}, []),
    "warcio/example-bad.warc.gz.bad": (
        1,
        {"warc:warcinfo": 1, "warc:request": 2, "warc:revisit": 1, "warc:status": 1},
        [],
    ),
    "warcio/example-digest.warc": (0, {"warc:request": 4}, []),
    "warcio/example-iana.org-chunked.warc": (1, {"warc:warcinfo": 1, "warc:request": 1}, []),
    "warcio/example-resource.warc.gz": (1, {"warc:warcinfo": 2}, []),
    "warcio/example-space-in-url.arc": (1, {"warc:warcinfo": 1}, ["truncated"]),
    "warcio/example-trunc.warc": (1, {"warc:warcinfo": 2, "warc:request": 1}, ["bad_length"]),
    "warcio/example-wget-bad-target-uri.warc.gz": (1, {"warc:warcinfo": 1, "warc:request": 1, "warc:metadata": 3}, []),
    "warcio/example-wrong-chunks.warc.gz": (1, {"warc:request": 1}, []),
    "warcio/example.arc": (1, {"warc:warcinfo": 1}, []),
    "warcio/example.arc.gz": (1, {"warc:warcinfo": 1}, []),
    "warcio/example.warc": (1, {"warc:warcinfo": 2, "warc:request": 2, "warc:revisit": 1}, []),
    "warcio/example.warc.gz": (1, {"warc:warcinfo": 2, "warc:request": 2, "warc:revisit": 1}, []),
    "warcio/post-test.warc.gz": (0, {"not_text": 3, "warc:request": 3}, []),
    "whirlwind/whirlwind.warc": (1, {"warc:warcinfo": 1, "warc:request": 1, "warc:metadata": 1}, []),
    "whirlwind/whirlwind.warc.gz": (1, {"warc:warcinfo": 1, "warc:request": 1, "warc:metadata": 1}, []),
    "whirlwind/whirlwind.warc.wet": (1, {"warc:warcinfo": 1}, []),
    "whirlwind/whirlwind.warc.wet.gz": (1, {"warc:warcinfo": 1}, []),
    "whirlwind/whirlwind.warc.wat": (0, {"warc:warcinfo": 1, "warc:metadata": 1}, []),
    "whirlwind/whirlwind.warc.wat.gz": (0, {"warc:warcinfo": 1, "warc:metadata": 1}, []),
}


class Bytes:
    """A stream of bytes, in small blocks."""

    def __init__(self, data: bytes, block: int = 100) -> None:
        self.name, self.fault = "x.warc", ""
        self._data, self._block = data, block

    def __iter__(self) -> Iterator[bytes]:
        return (self._data[at : at + self._block] for at in range(0, len(self._data), self._block))


def record(kind: str, block: bytes, url: str = "http://example.com/", media: str = "application/http") -> bytes:
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nContent-Type: {media}\r\n"
    return f"{head}Content-Length: {len(block)}\r\n\r\n".encode() + block + b"\r\n\r\n"


def response(body: bytes, *headers: str, media: str = "text/plain; charset=utf-8") -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Type: {media}", *headers, "", ""]
    return record("response", "\r\n".join(lines).encode() + body)


def read(data: bytes, notes: Notes | None = None) -> list[Piece]:
    return list(read_webarchive(Bytes(data), ReadOptions(), notes or Notes()))


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_every_record_is_a_document_or_counted(data_dir: Path, name: str) -> None:
    notes, path = Notes(), data_dir / "warc-dev" / name
    pieces = list(read_webarchive(Blocks(path, name), ReadOptions(), notes))
    documents, others, faults = COUNTS[name]
    assert Counter(piece.reason for piece in pieces if piece.reason) == others
    assert sum(not piece.reason for piece in pieces) == documents
    assert notes.faults == [(name, fault) for fault in faults]
    assert all(piece.text.strip() and piece.member for piece in pieces if not piece.reason)
    if path.read_bytes()[:2] == b"\x1f\x8b":
        again = Notes()
        assert list(read_webarchive_file(path, name, ReadOptions(), again)) == pieces
        assert again == notes


def test_all_files_of_the_folder_have_a_count(data_dir: Path) -> None:
    folder = data_dir / "warc-dev"
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found - {"ORIGIN.txt"} == set(COUNTS)


def test_offsets_are_the_record(data_dir: Path) -> None:
    path = data_dir / "warc-dev" / "whirlwind" / "whirlwind.warc"
    data, end = path.read_bytes(), 0
    for piece in read_webarchive(Blocks(path, "x"), ReadOptions(), Notes()):
        assert data[piece.offset :].startswith(b"WARC/1.0") and not data[end : piece.offset].strip()
        end = piece.offset + piece.size
    assert not data[end:].strip()


def test_the_same_page_from_warc_and_wet(data_dir: Path) -> None:
    folder = data_dir / "warc-dev" / "whirlwind"
    page, wet = (
        next(p for p in read_webarchive(Blocks(folder / name, name), ReadOptions(), Notes()) if not p.reason)
        for name in ("whirlwind.warc", "whirlwind.warc.wet")
    )
    assert page.member == wet.member == "https://an.wikipedia.org/wiki/Escopete"
    assert set(page.text.split()) & set(wet.text.split()) > {"Escopete"}
    told = json.loads(page.meta or "")
    assert (told["url"], told["lang"], told["content_type"]) == (page.member, "an", "text/html")


def test_records_agree_with_fastwarc(data_dir: Path) -> None:
    warc = pytest.importorskip("fastwarc.warc")
    for name in ("dolma/sample-0000.warc.gz", "whirlwind/whirlwind.warc", "warcio/example.warc.gz"):
        path = data_dir / "warc-dev" / name
        with path.open("rb") as file:
            theirs = [
                (record.headers.get("WARC-Type"), record.reader.read())
                for record in warc.ArchiveIterator(file, parse_http=False)
            ]
        assert [(found.kind, found.block) for found in web_records(Blocks(path, name))] == theirs


def chunked(body: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:], b""))


TEXT = "Grüße aus dem Netz. ".encode() * 20


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (TEXT, []),
        (chunked(TEXT), ["Transfer-Encoding: chunked"]),
        (TEXT, ["Transfer-Encoding: chunked"]),
        (gzip.compress(TEXT, mtime=0), ["Content-Encoding: gzip"]),
        (TEXT, ["Content-Encoding: gzip"]),
        (zlib.compress(TEXT), ["Content-Encoding: deflate"]),
        (zlib.compress(TEXT)[2:-4], ["Content-Encoding: deflate"]),
        (chunked(gzip.compress(TEXT, mtime=0)), ["transfer-encoding: Chunked", "content-encoding: GZIP"]),
    ],
    ids=["plain", "chunked", "not-chunked", "gzip", "not-gzip", "zlib", "deflate", "both"],
)
def test_codings(body: bytes, headers: list[str]) -> None:
    notes = Notes()
    assert [piece.text for piece in read(response(body, *headers), notes)] == [TEXT.decode()]
    assert notes.faults == []


def test_brotli_where_there_is_a_decoder() -> None:
    brotli = pytest.importorskip("brotli")
    assert read(response(brotli.compress(TEXT), "Content-Encoding: br"))[0].text == TEXT.decode()


def test_codings_that_are_unknown_or_cut_off() -> None:
    notes = Notes()
    assert read(response(TEXT, "Content-Encoding: lzip"), notes)[0].reason == "warc:coding"
    assert notes.faults == [("x.warc!http://example.com/", NO_DECODER)]
    whole = bytes(random.Random(5).choices(b"abcdefgh \n", k=9000))
    cut, notes = gzip.compress(whole, mtime=0)[:-500], Notes()
    text = read(response(cut, "Content-Encoding: gzip"), notes)[0].text
    assert len(text) > 5000 and whole.decode().startswith(text)
    assert notes.faults == [("x.warc!http://example.com/", "truncated")]


def test_a_body_that_grows_without_end_is_cut() -> None:
    bomb = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(50_000_000), mtime=0)
    message = parse_response(bomb)
    assert message is not None
    assert len(body_of(message, 1000)[0]) == 1001


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (response(b"{}", media="application/json"), NOT_TEXT),
        (response(b""), EMPTY),
        (record("response", b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\n\r\n<p>x"), "warc:status"),
        (record("response", b"SSH-2.0-x"), "warc:no_http"),
        (record("continuation", b"x"), "warc:continuation"),
        (record("novelty", b"x"), "warc:unknown"),
        (record("resource", b"\x89PNG", media="image/png"), NOT_TEXT),
        (b"no archive at all", "warc:damaged"),
    ],
    ids=["json", "empty", "status", "ssh", "continuation", "unknown", "png", "garbage"],
)
def test_what_is_no_document_has_a_reason(data: bytes, reason: str) -> None:
    assert [(piece.reason, piece.text) for piece in read(data)] == [(reason, "")]


def test_the_charset_that_http_tells() -> None:
    page = "<html><body><p>Съешь же ещё этих булок</p></body></html>".encode("koi8-r")
    assert read(response(page, media="text/html; charset=koi8-r"))[0].text == "Съешь же ещё этих булок"


@pytest.mark.parametrize(
    "length", [b"3", b"99999", b"-1", b"abc", b"9" * 40], ids=["short", "long", "neg", "abc", "40"]
)
def test_a_wrong_length_costs_no_other_record(length: bytes) -> None:
    first, second, third = (record("conversion", text, media="text/plain") for text in (b"one one", b"two", b"three"))
    broken = second.replace(b"Content-Length: 3", b"Content-Length: " + length)
    notes = Notes()
    pieces = read(first + broken.replace(b"two", b"two two") + third, notes)
    assert [piece.text for piece in pieces] == ["one one", "two two", "three"]
    assert notes.faults == [("x.warc", "bad_length")]


def test_a_damaged_header_costs_its_record() -> None:
    one, two, three = (record("conversion", text, media="text/plain") for text in (b"one", b"two", b"three"))
    notes = Notes()
    pieces = read(one + two[: two.index(b"Content-Length")] + three, notes)
    assert [(piece.text, piece.reason) for piece in pieces] == [("one", ""), ("", "warc:damaged"), ("three", "")]
    assert notes.faults == [("x.warc", "damaged")]


def test_a_truncated_record_gives_what_there_is() -> None:
    notes = Notes()
    assert [piece.text for piece in read(response(TEXT)[:-60], notes)] == [TEXT[:-56].decode()]
    assert notes.faults == [("x.warc", "truncated")]


def test_a_record_over_the_limit_is_passed_over() -> None:
    huge = record("response", b"").replace(b"Content-Length: 0", b"Content-Length: %d" % (MAX_RECORD + 5))
    data = huge[:-4] + bytes(MAX_RECORD + 5) + b"\r\n\r\n" + record("conversion", b"next", media="text/plain")
    pieces = list(read_webarchive(Bytes(data, 1 << 20), ReadOptions(), Notes()))
    assert [(piece.reason, piece.text) for piece in pieces] == [(TOO_LONG, ""), ("", "next")]
    assert pieces[0].size == len(huge) - 4 + MAX_RECORD + 5


def test_records_behind_a_damaged_gzip_member(tmp_path: Path) -> None:
    draw = random.Random(3)
    texts = [bytes(draw.choices(b"abcdefgh \n", k=4000)).strip() for _ in range(5)]
    members = [gzip.compress(record("conversion", text, media="text/plain"), mtime=0) for text in texts]
    members[1] = members[1][:900] + b"\xff" * 20 + members[1][920:]
    path, notes = tmp_path / "x.warc.wet.gz", Notes()
    path.write_bytes(b"".join(members))
    found = list(read_webarchive_file(path, "x", ReadOptions(), notes))
    assert [piece.text for piece in found[-3:]] == [text.decode() for text in texts[2:]]
    assert len(found[1].text) > 500 and texts[1].decode().startswith(found[1].text[:500])
    assert ("x", "corrupt") in notes.faults


def test_mutated_archives_never_raise(data_dir: Path) -> None:
    draw = random.Random(11)
    whole = [(data_dir / "warc-dev" / "warcio" / name).read_bytes() for name in ("example.warc", "example.arc")]
    for data in whole:
        for _ in range(60):
            mutated = bytearray(data)
            for at in draw.choices(range(len(data)), k=draw.choice((1, 5, 40))):
                mutated[at] ^= 1 << draw.randrange(8)
            pieces = read(bytes(mutated[: draw.choice((len(data), draw.randrange(len(data))))]))
            assert all(bool(piece.reason) != bool(piece.text) for piece in pieces)
