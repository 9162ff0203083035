"""Compressed streams of bytes (gzip, zstd, bzip2, xz), told by content and decompressed in bounded memory."""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

BLOCK = 1 << 20  # the most decompressed bytes handed on at once
_ZSTD_WINDOW = 1 << 31  # bytes; files made with `zstd --long=31` need it
_XZ_MEMORY = 256 << 20  # bytes; the largest dictionary of `xz -9` takes a quarter of it

# A stream that grows by more than both is a bomb. Text seldom packs tighter than 1:20.
_BOMB_BYTES = 64 << 20
_BOMB_RATIO = 200

# What can be wrong with a file as a whole; `fault` of a stream once it has been read.
TRUNCATED = "truncated"  # the compressed stream ends too early: all that was read is good
CORRUPT = "corrupt"  # the compressed stream is damaged: what was read last may be wrong
TRAILING = "trailing_garbage"  # bytes after the compressed stream that belong to none
BOMB = "bomb"  # the compressed stream grows beyond reason: reading ended there

_MAGICS = (
    ("gz", re.compile(rb"\x1f\x8b")),
    ("zst", re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")),  # a frame, or a skippable one before it
    ("bz2", re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)")),
    ("xz", re.compile(rb"\xfd7zXZ\0")),
)
MAGIC_BYTES = 10  # of a file's head that `compression_of` looks at

Step = Callable[[Any, bytes], Generator[bytes, None, bytes]]


def compression_of(head: bytes) -> str:
    """ "gz", "zst", "bz2", "xz" or "" by a file's first 10 bytes."""
    return next((kind for kind, magic in _MAGICS if magic.match(head)), "")


@dataclass(frozen=True)
class _Codec:
    """How one kind of stream is opened, fed and told from garbage behind the one before it."""

    start: Callable[[], Any]
    step: Step
    begins: Callable[[bytes], bool]  # of at least one byte
    feed: int  # compressed bytes fed at once
    errors: tuple[type[Exception], ...]


class Decompressed:
    """The decompressed bytes of a stream of compressed ones, in blocks of at most `BLOCK` bytes (1 MiB).

    All members (gzip, RFC 1952), frames (zstd, RFC 8878) or streams (bzip2, xz) that stand one after another, with
    zero padding between them. Nothing is raised for damage: the iteration ends and `fault` says TRUNCATED, CORRUPT,
    TRAILING or BOMB (over 64 MiB, and over 200 times the compressed bytes). To be iterated once.
    """

    def __init__(self, blocks: Iterable[bytes], kind: str, name: str = "") -> None:
        self.name = name
        self.fault = ""
        self.depth = getattr(blocks, "depth", 0)  # archives around a member
        self.budget = getattr(blocks, "budget", None)  # what they may grow to together
        self._blocks = blocks
        self._codec = _codec(kind)
        self._fed = self._grown = 0  # bytes

    def __iter__(self) -> Iterator[bytes]:
        try:
            for block in self._streams():
                self._grown += len(block)
                within = self.budget is None or self.budget.take(len(block))
                if self._grown > max(_BOMB_BYTES, _BOMB_RATIO * self._fed) or not within:
                    self.fault = BOMB
                    return
                yield block
        except self._codec.errors:
            self.fault = CORRUPT
        self.fault = self.fault or getattr(self._blocks, "fault", "")

    def _streams(self) -> Iterator[bytes]:
        codec = self._codec
        stream, fresh, first = codec.start(), True, True
        for data in self._feeds():
            while data:
                if stream.eof:
                    stream, fresh, first = codec.start(), True, False
                if fresh and not first:
                    data = data.lstrip(b"\0")
                    if not data:
                        break
                    if not codec.begins(data):
                        self.fault = TRAILING
                        return
                fresh = False
                data = yield from codec.step(stream, data)
        if not fresh and not stream.eof:
            self.fault = TRUNCATED

    def _feeds(self) -> Iterator[bytes]:
        for block in self._blocks:
            for begin in range(0, len(block), self._codec.feed):
                data = block[begin : begin + self._codec.feed]
                self._fed += len(data)
                yield data


def _codec(kind: str) -> _Codec:
    if kind == "gz":
        start: Callable[[], Any] = lambda: zlib.decompressobj(wbits=31)  # noqa: E731
        return _Codec(start, _inflate, lambda data: data[:1] == b"\x1f", 1 << 18, (zlib.error,))
    if kind == "bz2":
        return _Codec(bz2.BZ2Decompressor, _unpack, lambda data: data[:1] == b"B", 1 << 16, (OSError, ValueError))
    if kind == "xz":
        start = lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY)  # noqa: E731
        return _Codec(start, _unpack, lambda data: data[:1] == b"\xfd", 1 << 16, (lzma.LZMAError,))
    import zstandard

    # Fed in small bites: a 4-byte run-length block may grow to 128 KiB, and one call can't be bounded.
    start = lambda: zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()  # noqa: E731
    frames = lambda data: data[0] == 0x28 or 0x50 <= data[0] <= 0x5F  # noqa: E731
    return _Codec(start, _expand, frames, 1 << 12, (zstandard.ZstdError,))


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


def _unpack(stream: Any, data: bytes) -> Generator[bytes, None, bytes]:
    """Feed bzip2 or xz data; returns what belongs to the next stream."""
    while True:
        block: bytes = stream.decompress(data, BLOCK)
        if block:
            yield block
        if stream.eof:
            return bytes(stream.unused_data)
        if stream.needs_input:
            return b""
        data = b""


def _expand(stream: Any, data: bytes) -> Generator[bytes, None, bytes]:
    """Feed zstd data; returns what belongs to the next frame."""
    out: bytes = stream.decompress(data)
    for begin in range(0, len(out), BLOCK):
        yield out[begin : begin + BLOCK]
    return bytes(stream.unused_data) if stream.eof else b""
