"""Opening a data file: compression and form told by content first and name second, bytes in bounded blocks."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from gptcli.errors import SpecError
from gptcli.records.compression import (
    BLOCK,
    BOMB,
    CORRUPT,
    MAGIC_BYTES,
    TRAILING,
    TRUNCATED,
    Decompressed,
    compression_of,
)
from gptcli.records.pieces import ByteStream

__all__ = [
    "BLOCK",
    "BOMB",
    "CORRUPT",
    "TRAILING",
    "TRUNCATED",
    "Blocks",
    "Held",
    "Peeked",
    "compression_at",
    "form_of",
    "opened",
    "os_error",
    "sniff",
    "stem_of",
]

HEAD = 1 << 13  # bytes looked at to tell forms apart

_BINARY_MAGICS = (b"%PDF-", b"7z\xbc\xaf", b"GGUF", b"\x89PNG", b"Rar!\x1a", b"\x7fELF", b"GIF8", b"\xff\xd8\xff")
_ROW_ENDINGS = (".jsonl", ".ndjson")
_ARROW_ENDINGS = (".arrow", ".arrows", ".feather", ".ipc")
_PAGE_ENDINGS = (".html", ".htm", ".xhtml")
# Zip files that are no archives of documents.
_ZIPPED = (".docx", ".xlsx", ".pptx", ".odt", ".ods", ".odp", ".jar", ".apk", ".npz", ".pt", ".pth", ".ckpt", ".keras")
# Sources and notes that may begin as a page does, and are text all the same.
_TEMPLATES = (".md", ".php", ".jsp", ".asp", ".aspx", ".erb", ".ejs", ".hbs", ".vue", ".svelte", ".j2", ".jinja", ".js")
_PACKED_ENDINGS = {".gzip": "", ".zstd": "", ".gz": "", ".zst": "", ".bz2": "", ".xz": "", ".tgz": ".tar"}
_PACKED_ENDINGS |= {".tbz2": ".tar", ".tbz": ".tar", ".txz": ".tar", ".tzst": ".tar"}
# Possessive and atomic: a head of many comments would otherwise be tried in exponentially many ways.
_PAGE = re.compile(
    rb"\s*+(?:<\?xml[^>]*+>\s*+|<!--(?>.*?-->)\s*+)*+<(?:!doctype\s+html|html)[\s>]", re.IGNORECASE | re.DOTALL
)
_OBJECT = re.compile(rb'\s*\{\s*"(?:[^"\\]|\\.)*"\s*:')
_WIDE_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins as UTF-16's does
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def os_error(name: str, error: OSError) -> SpecError:
    """A file or folder that can't be read, as the user sees it."""
    if isinstance(error, FileNotFoundError):
        return SpecError(f"there is no file {name}", "check the path; relative paths are taken from the project")
    return SpecError(f"cannot read {name}: {error.strerror or error}", "check that this user may read it")


class Blocks:
    """The decompressed bytes of one file, iterated in blocks of at most `BLOCK` bytes (1 MiB) in constant memory.

    `start` and `end` (bytes; of an uncompressed file) choose a range; given a range nothing is decompressed. A damaged
    compressed stream raises nothing: the iteration ends and `fault` says what is wrong (see `Decompressed`). Raises
    SpecError naming the file (`name`, as the user typed it) when it can't be opened or read.
    """

    def __init__(self, path: Path, name: str, start: int = 0, end: int | None = None) -> None:
        self.path = path
        self.name = name
        self.fault = ""
        self._start, self._end = start, end

    def __iter__(self) -> Iterator[bytes]:
        raw = self._raw()
        if self._start or self._end is not None:
            yield from raw
            return
        head = next(raw, b"")
        while 0 < len(head) < MAGIC_BYTES and (more := next(raw, b"")):
            head += more
        if kind := compression_of(head):
            stream = Decompressed(chain([head], raw), kind, self.name)
            yield from stream
            self.fault = stream.fault
        elif head:
            yield head
            yield from raw

    def _raw(self) -> Iterator[bytes]:
        """The file's bytes as they stand. Only what reads the file may fail here, not what is done with a block."""
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(self._start)
                left = None if self._end is None else max(0, self._end - self._start)
                while block := file.read(BLOCK if left is None else min(BLOCK, left)):
                    left = None if left is None else left - len(block)
                    yield block
        except OSError as error:
            raise os_error(self.name, error) from error


class Held:
    """Bytes in memory as a stream, with the fault of the stream they end."""

    def __init__(self, data: bytes, name: str, fault: str = "") -> None:
        self.name, self.fault = name, fault
        self._data = data

    def __iter__(self) -> Iterator[bytes]:
        for begin in range(0, len(self._data), BLOCK):
            yield self._data[begin : begin + BLOCK]


class Peeked:
    """A stream whose first bytes can be looked at before it is iterated (once)."""

    def __init__(self, stream: ByteStream) -> None:
        self.name = stream.name
        self.fault = ""
        self.depth = getattr(stream, "depth", 0)  # archives around a member
        self.budget = getattr(stream, "budget", None)  # what they may grow to together
        self._stream = stream
        self._rest = iter(stream)
        self._head = b""

    def peek(self, size: int) -> bytes:
        """The first `size` bytes, or all there are."""
        while len(self._head) < size and (block := next(self._rest, b"")):
            self._head += block
        return self._head[:size]

    def __iter__(self) -> Iterator[bytes]:
        head, self._head = self._head, b""
        for begin in range(0, len(head), BLOCK):
            yield head[begin : begin + BLOCK]
        yield from self._rest
        self.fault = self._stream.fault


def opened(stream: ByteStream) -> Peeked:
    """A stream that may be compressed (a .gz in a tar), decompressed if it is."""
    found = Peeked(stream)
    kind = compression_of(found.peek(MAGIC_BYTES))
    return Peeked(Decompressed(found, kind, stream.name)) if kind else found


def compression_at(path: Path, name: str) -> str:
    """How a file is compressed, as `compression_of` tells. Raises SpecError as `Blocks` does."""
    return compression_of(_head(path, name))


def sniff(path: Path, name: str, encoding: str = "auto") -> str:
    """What a file holds, decompressed: one of the forms of `form_of`. Raises SpecError as `Blocks` does."""
    head = _head(path, name)
    if compression_of(head):
        head = Peeked(Blocks(path, name)).peek(HEAD)
    return form_of(head, stem_of(path.name), encoding)


def _head(path: Path, name: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError as error:
        raise os_error(name, error) from error


def stem_of(name: str) -> str:
    """A file's name in lower case, without the endings that only say how it is compressed."""
    stem = name.lower()
    for ending, instead in _PACKED_ENDINGS.items():
        if stem.endswith(ending):
            return stem.removesuffix(ending) + instead
    return stem


def form_of(head: bytes, stem: str, encoding: str = "auto") -> str:
    """What bytes hold by their first 8 KiB, then by name (`stem_of`).

    "parquet", "arrow", "zip", "tar", "warc" (ARC and WET too) and "html" by content; "rows" (JSON objects, one a line),
    "list" (one JSON array), "objects" (JSON objects over several lines), "csv", "tsv" and "html" by name when the
    content is text; every other text is "text".
    A NUL without the byte order mark of UTF-16 or UTF-32 (or one of these as `encoding`), or the signature of a known
    binary format, makes it "binary".
    """
    if packed := _signed(head, stem):
        return packed
    wide = next((codec for mark, codec in _WIDE_BOMS if head.startswith(mark)), "")
    if not wide and encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32")):
        wide = encoding
    if wide:
        head = head.decode(wide, "replace").lstrip("\ufeff").encode("utf-8", "replace")
    elif b"\0" in head:
        return "binary"
    return _text_form(head.removeprefix(codecs.BOM_UTF8), stem)


def _is_spread(head: bytes) -> bool:
    """Whether a JSON object begins that does not end in its line."""
    line, newline, _ = head.lstrip().partition(b"\n")
    return bool(newline) and line.startswith(b"{") and not line.rstrip().endswith(b"}")


def _signed(head: bytes, stem: str) -> str:
    """The form of bytes that begin with a signature, or ""."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "binary" if stem.endswith(_ZIPPED) else "zip"
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"ARROW1") or (head.startswith(b"\xff\xff\xff\xff") and stem.endswith(_ARROW_ENDINGS)):
        return "arrow"
    if head[257:262] == b"ustar" or (stem.endswith(".tar") and b"\0" in head):
        return "tar"
    if head.lstrip(b"\r\n").startswith((b"WARC/1.", b"WARC/0.", b"filedesc://")):
        return "warc"
    return "binary" if head.startswith(_BINARY_MAGICS) else ""


def _text_form(head: bytes, stem: str) -> str:
    if stem.endswith(_ROW_ENDINGS):
        return "rows"
    if stem.endswith(".json"):
        return "list" if head.lstrip().startswith(b"[") else "objects" if _is_spread(head) else "rows"
    if stem.endswith(".csv"):
        return "csv"
    if stem.endswith((".tsv", ".tab")):
        return "tsv"
    if stem.endswith(_PAGE_ENDINGS) or (_PAGE.match(head) and not stem.endswith(_TEMPLATES)):
        return "html"
    return "rows" if "." not in stem.rpartition("/")[2] and _begins_rows(head) else "text"


def _begins_rows(head: bytes) -> bool:
    """Whether bytes of no telling name (a pipe's) are JSON objects, one a line."""
    if not _OBJECT.match(head):
        return False
    line, newline, _ = head.lstrip().partition(b"\n")
    try:
        return not newline or isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
