"""The documents of any file or archive member, whatever its form: one table tells which reader a form has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from gptcli.records.columns import Columns
from gptcli.records.gutenberg import book_of, within_book
from gptcli.records.opening import (
    BOMB,
    CORRUPT,
    HEAD,
    TRUNCATED,
    Blocks,
    Held,
    compression_at,
    form_of,
    opened,
    sniff,
    stem_of,
)
from gptcli.records.parts import WHOLE, Part, Rest
from gptcli.records.pieces import EMPTY, NOT_TEXT, TOO_LONG, ByteStream, Notes, Piece, ReadOptions
from gptcli.records.rows import RowFile, row_limit
from gptcli.records.tables import TableFile, TableRow, column_names, named
from gptcli.records.text import TextFile, separator_pattern

_SPOOLED = 1 << 33  # bytes of a compressed parquet file or zip that are put on disk to be read
_PAGE_BYTES = 1 << 27  # of an HTML page, where documents have no limit of their own


@dataclass(frozen=True)
class _Item:
    """One file or member to be read by the reader of its form."""

    stream: ByteStream  # decompressed
    form: str
    options: ReadOptions
    notes: Notes
    part: Part = WHOLE
    path: Path | None = None  # of a file, not of a member
    compression: str = ""  # of a file
    member: str | None = None


def read(path: Path, name: str, options: ReadOptions, notes: Notes, part: Part | None = None) -> Iterator[Piece]:
    """The pieces of one file, or of one part of it (`parts.parts_of`), in order; memory is bounded.

    What is wrong with the content is told by `Piece.reason` and `notes`; a file without any document gives one EMPTY
    piece (but none for a part). Raises SpecError naming a file that can't be opened, and for an unknown encoding.
    """
    part = part or WHOLE
    form = sniff(path, name, options.encoding)
    packed = compression_at(path, name)
    stream: ByteStream
    if part.data is not None:
        stream = Held(part.data, name, part.fault)
    elif packed and part.start and form not in ("parquet", "arrow"):
        stream = Rest(Blocks(path, name), part.start)
    elif form in ("parquet", "arrow"):
        stream = Blocks(path, name)
    else:
        stream = Blocks(path, name, part.start, part.end)
    item = _Item(stream, form, options, notes, part, path, packed)
    if form == "binary":
        yield Piece("", 0, path.stat().st_size, reason=NOT_TEXT)
    else:
        yield from _read(item)


def read_stream(
    stream: ByteStream, stem: str, options: ReadOptions, notes: Notes, member: str | None = None
) -> Iterator[Piece]:
    """The pieces of a member of an archive, its form told by its first bytes and its name (`stem`, any case)."""
    found = opened(stream)
    form = form_of(found.peek(HEAD), stem_of(stem), options.encoding)
    yield from _read(_Item(found, form, options, notes, member=member))


def _read(item: _Item) -> Iterator[Piece]:
    given, name, faults = False, item.stream.name, item.notes.faults
    known = len(faults)
    for piece in _READERS[item.form](item):
        given = True
        if "\r" in piece.text:
            piece = replace(piece, text=piece.text.replace("\r\n", "\n").replace("\r", "\n"))
        yield piece
    fault = item.stream.fault
    if fault and (name, fault) not in faults:
        faults.append((name, fault))
    if not given and item.part.is_whole:
        found = next((fault for place, fault in faults[known:] if place == name), fault)
        yield Piece("", 0, 0, item.member, reason=found or EMPTY)


def _texts(item: _Item) -> Iterator[Piece]:
    options, part = item.options, item.part
    separator = separator_pattern(options.separator)
    texts = TextFile(item.stream, separator, options.encoding, options.max_chars, part.codec, part.start)
    is_whole_book = options.gutenberg and separator is None
    for found in within_book(texts) if options.gutenberg and separator else texts:
        if found.problem == EMPTY or not (found.size or part.is_whole):
            continue  # `_read` gives it, where it is to be given
        text = book_of(found.text) if is_whole_book else found.text
        yield Piece(text, found.offset, found.size, item.member, found.invalid_bytes, reason=found.problem)


def _rows(item: _Item) -> Iterator[Piece]:
    options, part = item.options, item.part
    limit = row_limit(options.max_chars)
    rows = RowFile(item.stream, options.encoding, item.form, limit, part.codec, part.start)
    columns = Columns(item.stream.name, options, item.notes)
    for row in rows:
        if row.problem:
            reason = row.problem if row.problem in (CORRUPT, TRUNCATED, BOMB) else f"bad_row:{row.problem}"
            yield Piece("", row.offset, row.size, item.member, row.invalid_bytes, reason=reason)
        else:
            yield columns.piece(row.value, row.offset, row.size, row.invalid_bytes, item.member)
    if rows.fault and not item.stream.fault:
        item.notes.faults.append((item.stream.name, rows.fault))


def _table(item: _Item) -> Iterator[Piece]:
    options, part = item.options, item.part
    limit = row_limit(options.max_chars)
    table = TableFile(item.stream, item.form, options.encoding, limit, part.codec, part.start, part.delimiter)
    names, headed = part.columns, options.header and part.start == 0
    columns = Columns(item.stream.name, options, item.notes)
    for row in table:
        if headed:
            headed = False
            if not row.problem:
                names = column_names(row.fields)
                columns.met(names)
                continue
        yield _row_of_table(row, names, columns, item.member)


def _row_of_table(row: TableRow, names: tuple[str, ...], columns: Columns, member: str | None) -> Piece:
    if row.problem:
        reason = row.problem if row.problem in (CORRUPT, BOMB) else f"bad_row:{row.problem}"
        return Piece("", row.offset, row.size, member, row.invalid_bytes, reason=reason)
    return columns.piece(named(names, row.fields), row.offset, row.size, row.invalid_bytes, member)


def _page(item: _Item) -> Iterator[Piece]:
    from gptcli.records.pages import read_page

    limit = 4 * item.options.max_chars or _PAGE_BYTES
    blocks, size = [], 0
    for block in item.stream:
        size += len(block)
        if size <= limit:
            blocks.append(block)
    fault = item.stream.fault
    if not size:
        return
    if size > limit or fault in (CORRUPT, BOMB):
        yield Piece("", 0, size, item.member, reason=TOO_LONG if size > limit else fault)
        return
    text, meta, reason = read_page(b"".join(blocks), item.options)
    yield Piece("" if reason else text, 0, size, item.member, 0, meta, reason)


def _webarchive(item: _Item) -> Iterator[Piece]:
    from gptcli.records.webarchive import read_webarchive, read_webarchive_file

    if item.path is not None and item.compression == "gz":
        yield from read_webarchive_file(item.path, item.stream.name, item.options, item.notes)
    else:
        yield from read_webarchive(item.stream, item.options, item.notes, item.member)


def _tar(item: _Item) -> Iterator[Piece]:
    from gptcli.records.archives import members_of_tar

    yield from _members(item, members_of_tar(item.stream, item.notes))


def _zip(item: _Item) -> Iterator[Piece]:
    from gptcli.records.archives import members_of_zip

    name, notes = item.stream.name, item.notes
    within = item.stream if item.member is not None else None
    yield from _seekable(item, lambda path: _members(item, members_of_zip(path, name, notes, within)))


def _columnar(item: _Item) -> Iterator[Piece]:
    from gptcli.records.columnar import read_columnar

    part, name, notes = item.part, item.stream.name, item.notes
    yield from _seekable(
        item, lambda path: read_columnar(path, name, item.options, notes, item.member, part.start, part.end)
    )


def _members(item: _Item, members: Iterator[tuple[str, ByteStream]]) -> Iterator[Piece]:
    for inner, stream in members:
        member = inner if item.member is None else f"{item.member}!{inner}"
        yield from read_stream(stream, inner, item.options, item.notes, member)


def _seekable(item: _Item, pieces: Callable[[Path], Iterator[Piece]]) -> Iterator[Piece]:
    """What reads from a path: the file itself, or a temporary copy of a compressed file or a member."""
    from gptcli.records.archives import spooled

    if item.path is not None and not item.compression:
        yield from pieces(item.path)
        return
    with spooled(item.stream, _SPOOLED) as place:
        if place is not None:
            yield from pieces(place)


def _binary(item: _Item) -> Iterator[Piece]:
    yield Piece("", 0, sum(map(len, item.stream)), item.member, reason=NOT_TEXT)


Reader = Callable[[_Item], Iterator[Piece]]

_READERS: dict[str, Reader] = {
    "text": _texts,
    "rows": _rows,
    "list": _rows,
    "objects": _rows,
    "csv": _table,
    "tsv": _table,
    "html": _page,
    "warc": _webarchive,
    "tar": _tar,
    "zip": _zip,
    "parquet": _columnar,
    "arrow": _columnar,
    "binary": _binary,
}
