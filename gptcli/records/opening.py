"""Opening a data file: compression and form told by content first and name second, bytes in bounded blocks."""

from __future__ import annotations

import codecs
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from gptcli.errors import SpecError

BLOCK = 1 << 20  # the most decompressed bytes handed on at once
_GZIP_FEED = 1 << 18  # compressed bytes fed at once
_ZSTD_FEED = 1 << 12  # small: a 4-byte run-length block may grow to 128 KiB, and one call can't be bounded
_ZSTD_WINDOW = 1 << 31  # bytes; files made with `zstd --long=31` need it
_HEAD = 1 << 13  # bytes looked at to tell text from binary

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = range(0x50, 0x60)  # first byte of a skippable frame
_BINARY_MAGICS = (b"%PDF-", b"PK\x03\x04", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"PAR1", b"ARROW1", b"GGUF", b"\x89PNG")
_ROW_ENDINGS = (".jsonl", ".ndjson")

# What can be wrong with a file as a whole; kept in `Blocks.fault`.
TRUNCATED = "truncated"  # the compressed stream ends too early: all that was read is good
CORRUPT = "corrupt"  # the compressed stream is damaged: what was read last may be wrong
TRAILING = "trailing_garbage"  # bytes after the compressed stream that belong to none


def os_error(name: str, error: OSError) -> SpecError:
    """A file or folder that can't be read, as the user sees it."""
    if isinstance(error, FileNotFoundError):
        return SpecError(f"there is no file {name}", "check the path; relative paths are taken from the project")
    return SpecError(f"cannot read {name}: {error.strerror or error}", "check that this user may read it")


class Blocks:
    """The decompressed bytes of one file, iterated in blocks of at most `BLOCK` bytes (1 MiB) in constant memory.

    A damaged compressed stream raises nothing: the iteration ends and `fault` says TRUNCATED, CORRUPT or TRAILING.
    Raises SpecError naming the file (`name`, as the user typed it) when it can't be opened or read.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.fault = ""

    def __iter__(self) -> Iterator[bytes]:
        try:
            with self.path.open("rb", buffering=0) as file:
                compression = compression_of(file.read(4))
                file.seek(0)
                if compression == "gz":
                    yield from self._gunzip(file)
                elif compression == "zst":
                    yield from self._unzstd(file)
                else:
                    while block := file.read(BLOCK):
                        yield block
        except OSError as error:
            raise os_error(self.name, error) from error

    def _gunzip(self, file: BinaryIO) -> Iterator[bytes]:
        """All members of a gzip file (RFC 1952)."""
        try:
            yield from self._streams(
                file, _GZIP_FEED, lambda: zlib.decompressobj(wbits=31), _inflate, lambda data: data[:1] == b"\x1f"
            )
        except zlib.error:
            self.fault = CORRUPT

    def _unzstd(self, file: BinaryIO) -> Iterator[bytes]:
        """All frames of a zstd file (RFC 8878)."""
        import zstandard

        def start() -> Any:
            return zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()

        try:
            yield from self._streams(
                file, _ZSTD_FEED, start, _expand, lambda data: data[:1] == b"\x28" or data[0] in _ZSTD_SKIPPABLE
            )
        except zstandard.ZstdError:
            self.fault = CORRUPT

    def _streams(
        self,
        file: BinaryIO,
        feed: int,
        start: Callable[[], Any],
        step: Callable[[Any, bytes], Generator[bytes, None, bytes]],
        begins: Callable[[bytes], bool],
    ) -> Iterator[bytes]:
        """Compressed streams that stand one after another; zero padding between them is allowed, as in gzip(1)."""
        stream, fresh, first = start(), True, True
        while data := file.read(feed):
            while data:
                if stream.eof:
                    stream, fresh, first = start(), True, False
                if fresh and not first:
                    data = data.lstrip(b"\0")
                    if not data:
                        break
                    if not begins(data):
                        self.fault = TRAILING
                        return
                fresh = False
                data = yield from step(stream, data)
        if not fresh and not stream.eof:
            self.fault = TRUNCATED


def _inflate(stream: Any, data: bytes) -> Generator[bytes, None, bytes]:
    """Feed gzip data; returns what belongs to the next member."""
    while True:
        block: bytes = stream.decompress(data, BLOCK)
        if block:
            yield block
        if stream.eof:
            return bytes(stream.unused_data)
        data = stream.unconsumed_tail
        if not data and len(block) < BLOCK:  # a full block may have left output inside the decompressor
            return b""


def _expand(stream: Any, data: bytes) -> Generator[bytes, None, bytes]:
    """Feed zstd data; returns what belongs to the next frame."""
    out: bytes = stream.decompress(data)
    for begin in range(0, len(out), BLOCK):
        yield out[begin : begin + BLOCK]
    return bytes(stream.unused_data) if stream.eof else b""


def compression_of(head: bytes) -> str:
    """ "gz", "zst" or "" by a file's first four bytes."""
    if head.startswith(_GZIP_MAGIC):
        return "gz"
    return "zst" if head.startswith(_ZSTD_MAGIC) else ""


def sniff(path: Path, name: str) -> str:
    """What a file holds, from its first 8 KiB and its name: "text", "rows", "list" or "binary".

    Rows are JSON objects, one a line (`.jsonl`, `.ndjson`, `.json` that does not begin with `[`); a list is one JSON
    array (`.json`). A NUL without a UTF-16 BOM, or the signature of a known binary format, makes it binary; every
    other file is text. Raises SpecError as `Blocks` does.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise os_error(name, error) from error
    compression = compression_of(head)
    stem = path.name.lower()
    if compression:
        head = next(iter(Blocks(path, name)), b"")[:_HEAD]
        stem = stem.removesuffix(f".{compression}").removesuffix(".gzip").removesuffix(".zstd")
    return _content(head, stem)


def _content(head: bytes, stem: str) -> str:
    is_utf16 = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and not head.startswith(codecs.BOM_UTF32_LE)
    if head.startswith(_BINARY_MAGICS) or (b"\0" in head and not is_utf16):
        return "binary"
    if stem.endswith(_ROW_ENDINGS):
        return "rows"
    if not stem.endswith(".json"):
        return "text"
    opening = head.removeprefix(codecs.BOM_UTF8)
    if is_utf16:
        opening = head[2:].decode("utf-16-le" if head[0] == 0xFF else "utf-16-be", "replace").encode()
    return "list" if opening.lstrip().startswith(b"[") else "rows"
