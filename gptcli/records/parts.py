"""One big file as parts that many processes can read: byte ranges, row groups, or decompressed bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from gptcli.records.cutting import OVERLAP, CannotCutError, Cutter, cutter_of, has_content, pattern_of
from gptcli.records.decoding import codec_of
from gptcli.records.encodings import AUTO, LONGEST_BOM, SAMPLE, Detector, bom_of, is_cuttable, require_known
from gptcli.records.opening import BLOCK, Blocks, Held, compression_at, os_error, sniff
from gptcli.records.pieces import ByteStream, ReadOptions
from gptcli.records.rows import row_limit
from gptcli.records.tables import TableFile, column_names

PART_BYTES = 16 << 20
_HELD_PARTS = 8  # so many parts' bytes are held at most; what can't be cut by then is one part
_PACKED_SHARE = 4  # text is taken to be packed so many times tighter
_SEARCH = 1 << 18  # bytes looked at at once


@dataclass(frozen=True)
class Part:
    """A piece of a file that is read by itself; picklable. What decides how it is read stands in the file's head."""

    start: int = 0  # bytes into the decompressed file; of a columnar file row groups or record batches
    end: int | None = None  # None: to the end
    codec: str = ""  # "": told when it is read
    columns: tuple[str, ...] = ()  # of a table with a header
    data: bytes | None = None  # of a compressed file: the decompressed bytes
    delimiter: str = ""  # of a table
    fault: str = ""  # of the compressed file, with its last part

    @property
    def is_whole(self) -> bool:
        return self.start == 0 and self.end is None


WHOLE = Part()


class Rest:
    """A stream without its first `start` bytes."""

    def __init__(self, stream: ByteStream, start: int) -> None:
        self.name = stream.name
        self.fault = ""
        self._stream = stream
        self._start = start

    def __iter__(self) -> Iterator[bytes]:
        past = self._start
        for block in self._stream:
            if past < len(block):
                yield block[past:]
            past = max(0, past - len(block))
        self.fault = self._stream.fault


@dataclass(frozen=True)
class _Plan:
    path: Path
    name: str
    form: str
    options: ReadOptions
    part_bytes: int
    packed: bool


def parts_of(path: Path, name: str, options: ReadOptions, part_bytes: int = PART_BYTES) -> Iterator[Part]:
    """The parts of a file, in order: read one by one (`documents.read`) they give what the whole file gives.

    A file under twice `part_bytes` (compressed: under a quarter of it), and one of a form that can't be cut (JSON
    lists, HTML, UTF-16, zip, tar and web archives, text without a separator or with a regular expression), is one
    part. Parts of compressed files carry their bytes: the file is decompressed once, here. Memory: about ten times
    `part_bytes`. Deterministic. Raises SpecError as `Blocks` does.
    """
    form = sniff(path, name, options.encoding)
    packed = bool(compression_at(path, name))
    plan = _Plan(path, name, form, options, part_bytes, packed)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise os_error(name, error) from error
    small = size <= part_bytes // _PACKED_SHARE if packed else size < 2 * part_bytes
    if small or (packed and form in ("parquet", "arrow")):
        yield WHOLE
    elif form in ("parquet", "arrow"):
        yield from _row_groups(path, part_bytes)
    elif packed or form == "csv":
        yield from _streamed(plan)
    else:
        yield from _ranges(plan, size)


def _row_groups(path: Path, part_bytes: int) -> Iterator[Part]:
    from gptcli.records.columnar import groups

    start, held = 0, 0
    for number, size in enumerate(groups(path)):
        if held and held + size > part_bytes:
            yield Part(start, number)
            start, held = number, 0
        held += size
    yield Part(start)


def _ranges(plan: _Plan, size: int) -> Iterator[Part]:
    """Byte ranges of an uncompressed file, found by seeking."""
    pattern = pattern_of(plan.form, plan.options)
    codec = codec_of(Blocks(plan.path, plan.name), plan.options.encoding) if pattern else ""
    if pattern is None or not is_cuttable(codec):
        yield WHOLE
        return
    columns: tuple[str, ...] = ()
    header_end, delimiter = 0, ""
    if plan.form == "tsv":
        columns, delimiter, header_end = _header(Blocks(plan.path, plan.name), plan, codec)
        if header_end < 0:
            yield WHOLE
            return
    like = Part(codec=codec, columns=columns, delimiter=delimiter)
    yield from _filled(_found(plan, size, like, header_end))


def _found(plan: _Plan, size: int, like: Part, header_end: int) -> Iterator[tuple[Part, bool]]:
    """Ranges of about `part_bytes`, and whether there is something in each."""
    header_end = max(header_end, bom_of(_head(plan))[1])
    start = 0
    cut: int | None = 0
    while cut is not None:
        cut = _cut_behind(plan, start + plan.part_bytes) if start + 2 * plan.part_bytes <= size else None
        yield (
            replace(like, start=start, end=cut),
            has_content(Blocks(plan.path, plan.name, max(start, header_end), cut)),
        )
        start = cut or 0


def _head(plan: _Plan) -> bytes:
    return next(iter(Blocks(plan.path, plan.name, 0, LONGEST_BOM)), b"")


def _cut_behind(plan: _Plan, begin: int) -> int | None:
    """The first place at `begin` or behind it at which an uncompressed file can be cut."""
    cutter = cutter_of(plan.form, plan.options)
    window, base = bytearray(), begin
    for block in Blocks(plan.path, plan.name, begin):
        for at in range(0, len(block), _SEARCH):
            window += block[at : at + _SEARCH]
            if cutter is not None and (found := cutter.find(window, 0)):
                return base + found
            cutter = cutter_of(plan.form, plan.options)
            base += max(0, len(window) - OVERLAP)
            del window[: max(0, len(window) - OVERLAP)]
    return None


def _filled(found: Iterable[tuple[Part, bool]]) -> Iterator[Part]:
    """Parts of which each has something in it: one that has not is joined to its neighbour.

    So no part is without a document where the file has one, and the last one holds what a damaged file ends in.
    """
    held: Part | None = None
    held_content = False
    for part, content in found:
        if held is None:
            held, held_content = part, content
        elif content and held_content:
            yield held
            held = part
        else:
            data = None if held.data is None or part.data is None else held.data + part.data
            held = replace(part, start=held.start, data=data, columns=held.columns, delimiter=held.delimiter)
            held_content = content or held_content
    if held is not None:
        yield held


def _streamed(plan: _Plan) -> Iterator[Part]:
    """Parts of a file that is read from its beginning on: compressed, or csv."""
    stream = Blocks(plan.path, plan.name)
    cutter = cutter_of(plan.form, plan.options)
    asked = require_known(plan.options.encoding)
    if cutter is None or not (asked == AUTO or is_cuttable(asked)):
        yield WHOLE
        return
    yield from _filled(_Chunks(plan, stream, cutter, asked).parts())


class _Chunks:
    """Cuts a stream into parts; holds what is read and not yet given."""

    def __init__(self, plan: _Plan, stream: Blocks, cutter: Cutter, asked: str) -> None:
        self._plan = plan
        self._stream = stream
        self._cutter = cutter
        self._codec = "" if asked == AUTO else asked
        self._detector = Detector()
        self._buffer = bytearray()
        self._start = 0
        self._like = Part()
        self._header_end = 0

    def parts(self) -> Iterator[tuple[Part, bool]]:
        limit = _HELD_PARTS * self._plan.part_bytes + SAMPLE + BLOCK
        try:
            for block in self._blocks():
                self._buffer += block
                self._detect(block)
                yield from self._cut()
                if len(self._buffer) > limit:
                    raise CannotCutError
            self._codec = self._codec or self._detector.finish()
            yield from self._cut()
            yield self._part(None)
        except CannotCutError:
            rest = replace(self._like, start=self._start, codec=self._known())
            yield (rest if self._start else WHOLE), True

    def _cut(self) -> Iterator[tuple[Part, bool]]:
        while self._may_cut() and (cut := self._cutter.find(self._buffer, self._plan.part_bytes)):
            yield self._part(cut)

    def _blocks(self) -> Iterator[bytes]:
        """The stream's blocks; the first is long enough to hold a byte order mark."""
        blocks = iter(self._stream)
        head = b""
        while len(head) < LONGEST_BOM and (block := next(blocks, b"")):
            head += block
        codec, self._header_end = bom_of(head)
        self._codec = codec or self._codec
        if not is_cuttable(self._codec or "utf-8"):
            raise CannotCutError
        if head:
            yield head
        yield from blocks

    def _known(self) -> str:
        """The codec, or "" where all that was read is ASCII."""
        return self._codec or self._detector.codec

    def _detect(self, block: bytes) -> None:
        if not self._codec:
            self._detector.feed(block)

    def _may_cut(self) -> bool:
        return len(self._buffer) >= self._plan.part_bytes and (bool(self._known()) or not self._detector.begun)

    def _part(self, cut: int | None) -> tuple[Part, bool]:
        plan = self._plan
        data = bytes(self._buffer if cut is None else self._buffer[:cut])
        codec = self._known() or "utf-8"  # ASCII so far
        if self._start == 0 and plan.form in ("csv", "tsv"):
            columns, delimiter, self._header_end = _header(Held(data, plan.name), plan, codec)
            if self._header_end < 0:
                raise CannotCutError
            self._like = Part(columns=columns, delimiter=delimiter)
        end = None if cut is None else self._start + cut
        content = has_content([data[self._header_end if not self._start else 0 :]])
        fault = self._stream.fault if cut is None else ""
        part = replace(
            self._like, start=self._start, end=end, codec=codec, data=data if plan.packed else None, fault=fault
        )
        del self._buffer[: len(data)]
        self._start += len(data)
        return part, content


def _header(stream: ByteStream, plan: _Plan, codec: str) -> tuple[tuple[str, ...], str, int]:
    """A table's columns, delimiter, and the bytes of its header; -1 where its first row can't be read."""
    table = TableFile(stream, plan.form, max_chars=row_limit(plan.options.max_chars), codec=codec)
    first = next(iter(table), None)
    if first is None or first.problem:
        return (), "", -1
    if not plan.options.header:
        return (), table.delimiter, first.offset
    return column_names(first.fields), table.delimiter, first.offset + first.size
