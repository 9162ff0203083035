"""Damaged and monstrous data files, and a process that reads them: `python mutants.py WORDS…` (see `main`)."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import resource
import signal
import struct
import sys
import tarfile
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SECONDS = 10  # of this process's time for one reading of one file; more is a hang
WAIT = 120  # seconds on the clock for all readings of one file
MEMORY = 8 << 30  # bytes of address space; what is used is measured
INTERESTING = [struct.pack(form, value) for form in ("<I", ">I", "<q") for value in (0, 1, 255, 2**16, 2**31 - 1)]
INTERESTING += [b"\xff" * 4, b"\x80\x00\x00\x00", b"\x00\xd8", b"\xc3", b"\r", b"\n\n", b'"', b"{", b"[", b"<", b"\0"]


# ---- seeds: small real files of every form ----


def seeds(data: Path) -> list[tuple[str, bytes]]:
    """(name, content); the same in every process."""
    rows = [json.loads(line) for line in (data / "c4-demo/c4_demo.jsonl").read_text(encoding="utf-8").splitlines()[:24]]
    rows = [{"text": row["text"][:400], "n": number, "where": {"page": number}} for number, row in enumerate(rows)]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    table = (data / "banking77/train.csv").read_bytes()[:4000] + b'"a ""b""\r\nc",d\r\n'
    book = (data / "multilingual-dev/22367-8.txt").read_bytes()[3000:9000]
    page = (data / "html-dev/001/source.html").read_bytes()
    web = data / "warc-dev"
    members = {"a/one.txt": book, "two.jsonl": lines, "three.csv": table, "page.html": page}
    members |= {"four.txt.gz": gzip.compress(book, mtime=0), "five.parquet": parquet(rows), "six.arrow": arrow(rows)}
    found = {
        "rows.jsonl": lines,
        "wide.jsonl": lines.decode().encode("utf-16"),
        "list.json": json.dumps(rows, indent=1).encode(),
        "table.csv": table,
        "table.tsv": (data / "sms-spam/sms.tsv").read_bytes()[:4000],
        "book.txt": book,
        "wide.txt": book.decode("latin-1").encode("utf-16"),
        "mark.txt": b"\xef\xbb\xbf" + book.decode("latin-1").encode(),
        "page.html": page,
        "pages.warc": (web / "warcio/example.warc").read_bytes(),
        "pages.warc.gz": (web / "warcio/example.warc.gz").read_bytes(),
        "pages.arc": (web / "warcio/example.arc").read_bytes(),
        "chunked.warc": (web / "warcio/example-iana.org-chunked.warc").read_bytes(),
        "pages.wet.gz": (web / "whirlwind/whirlwind.warc.wet.gz").read_bytes(),
        "rows.jsonl.gz": gzip.compress(lines, mtime=0),
        "rows.jsonl.zst": zstd(lines),
        "table.csv.bz2": bz2.compress(table),
        "book.txt.xz": lzma.compress(book),
        "many.zip": zipped(members),
        "nested.zip": zipped({"inner.zip": zipped(members), "b.txt": book}),
        "many.tar": tarred(members),
        "many.tar.gz": gzip.compress(tarred(members), mtime=0),
        "rows.parquet": parquet(rows),
        "rows.arrow": arrow(rows),
        "stream.arrows": arrow(rows, stream=True),
        "rows.parquet.gz": gzip.compress(parquet(rows), mtime=0),
    }
    return list(found.items())


def zstd(data: bytes) -> bytes:
    import zstandard

    return bytes(zstandard.ZstdCompressor(write_checksum=True).compress(data))


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def tarred(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _table(rows: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    table = pa.Table.from_pylist(rows)
    kinds = pa.array(["good" if row["n"] % 2 else None for row in rows]).dictionary_encode()
    return table.append_column("kind", kinds).append_column("list", pa.array([[1, row["n"]] for row in rows]))


def parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(_table(rows), buffer, row_group_size=8, compression="snappy")
    return buffer.getvalue()


def arrow(rows: list[dict[str, Any]], stream: bool = False) -> bytes:
    import pyarrow as pa
    import pyarrow.ipc

    buffer, table = io.BytesIO(), _table(rows)
    options = pa.ipc.IpcWriteOptions(compression=None if stream else "lz4")
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(buffer, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=8)
    return buffer.getvalue()


# ---- mutants ----


def mutant(number: int, known: list[tuple[str, bytes]]) -> tuple[str, bytes]:
    """The number-th damaged file: its name and content."""
    draw = random.Random(number)
    name, content = known[number % len(known)]
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4))):
        draw.choice(MUTATIONS)(data, draw, known)
    return f"{number:05d}-{name}", bytes(data)


def _flip(data: bytearray, draw: random.Random, known: list[tuple[str, bytes]]) -> None:
    for _ in range(draw.choice((1, 3, 30))):
        if data:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _cut(data: bytearray, draw: random.Random, known: list[tuple[str, bytes]]) -> None:
    del data[draw.randrange(len(data) + 1) :]


def _lose(data: bytearray, draw: random.Random, known: list[tuple[str, bytes]]) -> None:
    begin = draw.randrange(len(data) + 1)
    del data[begin : begin + draw.choice((1, 7, 100, 3000))]


def _double(data: bytearray, draw: random.Random, known: list[tuple[str, bytes]]) -> None:
    begin = draw.randrange(len(data) + 1)
    part = data[begin : begin + draw.choice((1, 64, 1000, 20_000))]
    data[begin:begin] = part * draw.choice((1, 1, 5))


def _noise(data: bytearray, draw: random.Random, known: list[tuple[str, bytes]]) -> None:
    begin = draw.randrange(len(data) + 1)
    data[begin : begin + draw.choice((0, 16))] = draw.randbytes(draw.choice((1, 16, 500)))


def _number(data: bytearray, draw: random.Random, known: list[tuple[str, bytes]]) -> None:
    value = draw.choice(INTERESTING)
    begin = draw.randrange(len(data) + 1)
    data[begin : begin + len(value)] = value


def _foreign(data: bytearray, draw: random.Random, known: list[tuple[str, bytes]]) -> None:
    other = draw.choice(known)[1]
    begin, length = draw.randrange(len(other)), draw.choice((10, 500, 10_000))
    at = draw.choice((0, len(data), draw.randrange(len(data) + 1)))
    data[at:at] = other[begin : begin + length]


MUTATIONS = [_flip, _flip, _flip, _cut, _lose, _double, _noise, _number, _number, _foreign]


# ---- monsters: files that would eat memory or time ----


def deflated(size: int, letter: bytes = b"a") -> Iterator[bytes]:
    """A raw DEFLATE stream of `size` times a letter, made of one piece over and over."""
    step = 16 << 20
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = packer.compress(letter * step) + packer.flush(zlib.Z_FULL_FLUSH)
    for _ in range(size // step):
        yield piece
    yield zlib.compressobj(9, zlib.DEFLATED, -15).flush()


def zip_bomb(size: int, members: int) -> bytes:
    """A zip archive with `members` members of `size` letters each (their checksums are wrong: nobody gets so far)."""
    packed = b"".join(deflated(size))
    out, directory = bytearray(), bytearray()
    for number in range(members):
        name = f"{number}.txt".encode()
        fields = (20, 0, 8, 0, 33, 0, len(packed), size, len(name), 0)
        directory += struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, *fields, 0, 0, 0, 0, len(out)) + name
        out += struct.pack("<4s5H3I2H", b"PK\3\4", *fields) + name + packed
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, members, members, len(directory), len(out), 0)
    return bytes(out + directory + end)


def _gz(pieces: Iterator[bytes]) -> bytes:
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + b"".join(pieces) + bytes(8)


def _long_line(path: Path, head: bytes) -> None:
    """1 GB without a newline; the most of it is a hole."""
    with path.open("wb") as file:
        file.write(head + b"a" * 65_536)
        file.truncate(1 << 30)


def _packed_line(head: bytes) -> bytes:
    """A gzip file of 1 GB of one line that packs so well that it looks like a bomb."""
    return gzip.compress(head + b"a" * (64 << 20), mtime=0) + gzip.compress(b"a" * (64 << 20), mtime=0) * 15


def _large_member() -> bytes:
    info = tarfile.TarInfo("large.txt")
    info.size = 10 << 30
    return info.tobuf()


_CELLS = b",".join(b"c%d" % number for number in range(100_000))
_NEST = 100_000
MONSTERS: dict[str, Callable[[Path], None]] = {
    "zip bomb.zip": lambda path: bytes_to(path, zip_bomb(1 << 30, 10)),
    "nested zip bomb.zip": lambda path: bytes_to(
        path, zipped({f"{n}.zip": zipped({f"{n}.zip": zip_bomb(1 << 30, 10) for n in range(3)}) for n in range(3)})
    ),
    "gzip bomb.txt.gz": lambda path: bytes_to(path, _gz(deflated(10 << 30))),
    "gzip bomb.jsonl.gz": lambda path: bytes_to(path, gzip.compress(b'{"text": "') + _gz(deflated(10 << 30))),
    "tar bomb.tar.gz": lambda path: bytes_to(path, gzip.compress(_large_member()) + _gz(deflated(10 << 30))),
    "bzip2 bomb.txt.bz2": lambda path: bytes_to(path, bz2.compress(b"a" * (64 << 20)) * 40),
    "xz bomb.txt.xz": lambda path: bytes_to(path, lzma.compress(b"a" * (64 << 20), preset=0) * 40),
    "zstd bomb.txt.zst": lambda path: bytes_to(path, zstd(b"a" * (256 << 20)) * 40),
    "one line.txt": lambda path: _long_line(path, b""),
    "one line.jsonl": lambda path: _long_line(path, b'{"text": "'),
    "one line.json": lambda path: _long_line(path, b'[{"text": "'),
    "one line.csv": lambda path: _long_line(path, b'text,n\n"'),
    "one line.tsv": lambda path: _long_line(path, b"text\tn\n"),
    "one page.html": lambda path: _long_line(path, b"<html><body><p>"),
    "one record.warc": lambda path: _long_line(
        path, b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: 2000000000\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"
    ),
    "packed line.txt.gz": lambda path: bytes_to(path, _packed_line(b"")),
    "packed line.jsonl.gz": lambda path: bytes_to(path, _packed_line(b'{"text": "')),
    "packed line.csv.gz": lambda path: bytes_to(path, _packed_line(b'text\n"')),
    "columns.csv": lambda path: bytes_to(path, (_CELLS + b"\n") * 20),
    "columns.tsv": lambda path: bytes_to(path, (_CELLS.replace(b",", b"\t") + b"\n") * 20),
    "empty lines.txt": lambda path: bytes_to(path, b"\n" * 1_000_000),
    "empty lines.jsonl": lambda path: bytes_to(path, b"\n" * 1_000_000),
    "empty lines.csv": lambda path: bytes_to(path, b"text\n" + b"\n" * 1_000_000),
    "commas.csv": lambda path: bytes_to(path, b"text,n\n" + b",\n" * 100_000),
    "deep rows.jsonl": lambda path: bytes_to(path, (b'{"text": "a", "x": ' + _nest(b"[", b"]") + b"}\n") * 20),
    "deep objects.jsonl": lambda path: bytes_to(path, (b'{"text": "a", "x": ' + _nest(b'{"a":', b"}") + b"}\n") * 20),
    "deep list.json": lambda path: bytes_to(path, b'[{"text": "a"},' + _nest(b"[", b"]") + b"]"),
    "deep page.html": lambda path: bytes_to(path, b"<html><body>" + _nest(b"<div>", b"</div>") + b"</body></html>"),
    "open page.html": lambda path: bytes_to(path, b"<html><body>" + b"<b><i><a href='x'>" * _NEST),
    "tables.html": lambda path: bytes_to(path, b"<html><body>" + b"<table><tr><td>" * _NEST),
}
REAL = ("txt", "jsonl", "csv", "tsv")  # of 1 GB of letters on the disk


def _nest(begin: bytes, end: bytes) -> bytes:
    return begin * _NEST + b"1" + end * _NEST


def bytes_to(path: Path, data: bytes) -> None:
    path.write_bytes(data)


# ---- the process that reads ----


def check(
    path: Path, options: Any, part_bytes: int, alarm: Callable[[int], None] = lambda seconds: None
) -> Counter[str]:
    """Read a file whole and in parts; what comes of it, by reason ("": documents). AssertionError for what may not."""
    from gptcli.records.documents import read
    from gptcli.records.parts import WHOLE, parts_of
    from gptcli.records.pieces import Notes

    whole: Counter[tuple[Any, ...]] = Counter()
    notes = Notes()
    alarm(SECONDS)
    for piece in read(path, path.name, options, notes):
        where = f"{piece.member} {piece.offset} {piece.reason}"
        if piece.reason:
            assert not piece.text, f"a text with a reason: {where}"
        else:
            piece.text.encode()  # no surrogates
            assert "\r" not in piece.text, f"a carriage return: {where}"
        assert piece.offset >= 0 and piece.size >= 0, where
        json.loads(piece.meta or "{}")
        whole[_told(piece)] += 1
    assert whole, "neither documents nor a reason"
    assert all(name and fault for name, fault in notes.faults)
    found = Counter(reason for reason, *_ in whole.elements())
    parts: Counter[tuple[Any, ...]] = Counter()
    alarm(SECONDS)
    for part in parts_of(path, path.name, options, part_bytes):
        if part == WHOLE:
            return found
        parts.update(_told(piece) for piece in read(path, path.name, options, Notes(), part))
    differing = f"only in parts: {list(parts - whole)[:2]}, only in the whole: {list(whole - parts)[:2]}"
    assert parts == whole or (not parts and whole.total() == 1), differing
    return found


def _told(piece: Any) -> tuple[Any, ...]:
    return piece.reason, piece.offset, piece.size, piece.member, piece.text, piece.invalid_bytes, piece.meta


def _alarm(seconds: int) -> None:
    """End this process after so much of its time, or where it waits; 0: no more."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, WAIT if seconds else 0)


def options_of(number: int, name: str) -> Any:
    from gptcli.records.pieces import ReadOptions

    draw = random.Random(f"options {number}")
    return ReadOptions(
        text_key=draw.choice(("text", "text", "where.page", "2")) if "table.tsv" not in name else "2",
        metadata=draw.choice((None, ("n",))),
        separator=draw.choice(("none", "line", "blank_lines", "<|endoftext|>", r"^\d+")),
        encoding=draw.choice(("auto", "auto", "utf-8", "latin-1", "shift_jis")),
        gutenberg=draw.random() < 0.2,
        header="table.tsv" not in name,
        max_chars=draw.choice((20_000_000, 500, 0)),
    )


def main(words: list[str]) -> None:
    """`mutants DATA FOLDER BEGIN END` or `monster PATH SEPARATOR`: prints a JSON object of what was found.

    Before each file its number is put into FOLDER/now. An alarm ends this process where a file takes too long.
    """
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    told: dict[str, Any] = {"failures": [], "reasons": Counter(), "slowest": [0.0, ""]}
    if words[0] == "mutants":
        known, folder = seeds(Path(words[1])), Path(words[2])
        for number in range(int(words[3]), int(words[4])):
            (folder / "now").write_text(str(number))
            name, data = mutant(number, known)
            path = folder / name
            path.write_bytes(data)
            _one(path, options_of(number, name), random.Random(number).choice((400, 2000, 1 << 20)), told)
            path.unlink()
            (folder / "told.json").write_text(json.dumps(told))
    else:
        from gptcli.records.pieces import ReadOptions

        _one(Path(words[1]), ReadOptions(separator=words[2]), 16 << 20, told)
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    told["rss"] = 1024 * int(peak.split()[1])  # getrusage would tell of the parent's, too
    print(json.dumps(told))


def _one(path: Path, options: Any, part_bytes: int, told: dict[str, Any]) -> None:
    began = time.process_time()
    try:
        told["reasons"].update(check(path, options, part_bytes, _alarm))
    except BaseException as error:
        import traceback

        where = traceback.extract_tb(error.__traceback__)[-1]
        told["failures"].append(f"{path.name}: {type(error).__name__}: {error} ({where.filename}:{where.lineno})"[:600])
    _alarm(0)
    spent = time.process_time() - began
    if spent > told["slowest"][0]:
        told["slowest"] = [spent, path.name]


if __name__ == "__main__":
    main(sys.argv[1:])
