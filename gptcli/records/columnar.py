"""Rows of Parquet and Arrow files as documents, a batch at a time; damaged groups cost only themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptcli.records.cells import NO_TEXT, NOT_STRING, metadata, metadata_type, text_type, texts, validate
from gptcli.records.compression import CORRUPT, TRUNCATED
from gptcli.records.opening import os_error
from gptcli.records.pieces import EMPTY, TOO_LONG, Notes, Piece, ReadOptions
from gptcli.records.window import tell

_BATCH_ROWS = 1024
_BATCH_BYTES = 16 << 20  # bytes of decoded columns that a batch is meant to have
_READ_BUFFER = 1 << 20  # bytes read at once of a column, instead of the whole of it
_STREAM_IN_FILE = 8  # bytes: the magic and its padding
_MOST_ROWS, _MOST_ROWS_A_BYTE = 1 << 20, 64  # a group that claims more than both is damaged: rows cost a loop each


def read_columnar(
    path: Path,
    name: str,
    options: ReadOptions,
    notes: Notes,
    member: str | None = None,
    start: int = 0,
    end: int | None = None,
) -> Iterator[Piece]:
    """One piece for every row of a Parquet or Arrow IPC file (file or stream format), in order.

    start, end: row groups of Parquet, record batches of Arrow, as `groups` lists them. The text column is
    `options.text_key`: strings, binary that is UTF-8, dictionaries of those; another type gives every row the reason
    bad_row:text_not_string, a null bad_row:no_text. `offset` is the row in the file, `size` the text's UTF-8 bytes;
    meta: the other columns (`options.metadata`), see `cells.metadata`; binary columns are left out.
    Without the text column every row is counted as bad_row:no_text, no data is decoded, and `notes.columns[name]`
    lists the columns there are. A row group or batch that can't be decoded gives those rows that could be, and one
    piece with reason "corrupt" whose offset is the first row lost and whose `size` is how many were (0 where that is
    unknown); the file has that fault in `notes` then. An Arrow file without
    its footer has the fault "truncated", and is read as the stream it holds.
    Raises SpecError naming the file when it can't be opened.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(6)
    except OSError as error:
        raise os_error(name, error) from error
    told = name if member is None or name.endswith(f"!{member}") else f"{name}!{member}"
    place = _Place(notes, told, member)
    try:
        if magic.startswith(b"PAR1"):
            source: _Parquet | _Arrow = _Parquet(path)
        else:
            source = _arrow(path, magic == b"ARROW1", place)
        columns = _Columns(source.schema, options)
    except Exception:  # a damaged footer or schema: nothing of the file can be read
        yield place.lost(0, 0)
        return
    if columns.text is None:
        notes.columns[name] = list(source.schema.names)
    else:
        notes.with_text.add(name)
    yield from _groups(source, columns, (start, end), place, options.max_chars)


def groups(path: Path) -> list[int]:
    """The uncompressed bytes of every row group of a Parquet file; of an Arrow file with n record batches, n equal
    shares of its bytes; [bytes of the file] for a stream of batches, and where the file can't be read."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            magic = file.read(6)
        if magic.startswith(b"PAR1"):
            return _Parquet(path).sizes()
        if magic == b"ARROW1":
            count = _Arrow(path, True).count or 0
            return [size * (k + 1) // count - size * k // count for k in range(min(count, size))]
    except Exception:  # reading it will tell what is wrong
        pass
    return [size]


def rows_within(path: Path, start: int = 0, end: int | None = None) -> int:
    """Rows of the row groups or record batches `start` to `end`; 0 where they can't be told without reading them, as of
    a stream of batches."""
    try:
        with path.open("rb") as file:
            magic = file.read(6)
        if magic.startswith(b"PAR1"):
            source: _Parquet | _Arrow = _Parquet(path)
        elif magic == b"ARROW1":
            source = _Arrow(path, True)
        else:
            return 0
        return sum(map(source.rows, range(start, source.count or 0)[: None if end is None else end - start]))
    except Exception:  # reading it will tell what is wrong
        return 0


def text_share(path: Path, text_key: str, most: int) -> float:
    """Bytes of text for each byte of a stream of record batches, told from about its first `most`; 1 where that fails.

    Over 1 where the batches are compressed.
    """
    import pyarrow as pa
    import pyarrow.compute as compute

    text = read = 0
    try:
        with pa.OSFile(str(path)) as file:
            reader = pa.ipc.open_stream(file)
            begin = file.tell()
            while read < most and (batch := next(reader, None)) is not None:
                text += compute.sum(compute.binary_length(batch.column(text_key))).as_py() or 0
                read = file.tell() - begin
    except Exception:  # reading it will tell what is wrong
        return 1.0
    return text / read if text and read else 1.0


class _Columns:
    """The columns that are wanted of a schema; of equal names the first."""

    def __init__(self, schema: Any, options: ReadOptions) -> None:
        names: list[str] = list(schema.names)
        key = options.text_key
        self.text = names.index(key) if key in names else None
        self.is_text = self.text is not None and text_type(schema.field(self.text).type)
        wanted = names if options.metadata is None else options.metadata
        self.kept = [
            names.index(name)
            for name in dict.fromkeys(wanted)
            if name != key and name in names and metadata_type(schema.field(names.index(name)).type)
        ]
        self.names = [names[number] for number in self.kept]
        self.read = sorted({*self.kept, self.text}) if self.text is not None and self.is_text else []
        self.read_names = [names[number] for number in self.read]
        self.reason = NO_TEXT if self.text is None else NOT_STRING  # of every row, where nothing is read

    def of(self, batch: Any, number: int) -> Any:
        """Column `number` of the schema, of a batch that has only those of `read`."""
        return batch.column(self.read.index(number))


class _Parquet:
    """A Parquet file, a row group at a time."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as parquet

        self._file = parquet.ParquetFile(str(path), pre_buffer=False, buffer_size=_READ_BUFFER)
        self._bytes = path.stat().st_size
        self.schema = self._file.schema_arrow
        self.count: int | None = self._file.metadata.num_row_groups

    def sizes(self) -> list[int]:
        return [max(0, self._file.metadata.row_group(group).total_byte_size) for group in range(self.count or 0)]

    def rows(self, group: int) -> int:
        rows = int(self._file.metadata.row_group(group).num_rows)
        if rows < 0 or rows > max(_MOST_ROWS, _MOST_ROWS_A_BYTE * self._bytes):
            raise ValueError("a row group with more rows than its file can hold")
        return rows

    def batches(self, group: int, columns: _Columns) -> Iterator[Any]:
        told = self._file.metadata.row_group(group)
        size = max(1, told.total_byte_size) // max(1, told.num_rows)
        rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, size)))
        for batch in self._file.iter_batches(rows, [group], columns.read_names, use_threads=False):
            places = [batch.schema.names.index(name) for name in columns.read_names]
            yield batch.select(places)


class _Arrow:
    """An Arrow IPC file or stream, a record batch at a time. Its bytes are validated: Arrow trusts its offsets."""

    def __init__(self, path: Path, is_file: bool, begin: int = 0) -> None:
        self._path = path
        self._is_file = is_file
        self._begin = begin  # bytes before a stream
        reader = self._open([])
        self.schema: Any = reader.schema
        self.count: int | None = reader.num_record_batches if is_file else None
        self._counter = self._open([0]) if is_file and len(self.schema) else reader
        self._reader: Any = None  # of the wanted columns
        self._next: tuple[int, Any] = (-1, None)

    def _open(self, fields: list[int]) -> Any:
        """fields: numbers of the columns to decode; none: all."""
        import pyarrow as pa

        options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=fields)
        file = pa.OSFile(str(self._path))
        file.seek(self._begin)
        return (pa.ipc.open_file if self._is_file else pa.ipc.open_stream)(file, options=options)

    def rows(self, group: int) -> int:
        """Rows of a batch; IndexError behind the last batch of a stream, whose batches are asked for in order."""
        if self._is_file:
            return int(self._counter.get_batch(group).num_rows)
        return int(self._of_stream(group).num_rows)

    def batches(self, group: int, columns: _Columns) -> Iterator[Any]:
        if self._is_file:
            self._reader = self._reader or self._open(columns.read)
            batch = self._reader.get_batch(group)
        else:
            batch = self._of_stream(group).select(columns.read)
        for column in batch.columns:
            validate(column)
        for begin in range(0, batch.num_rows, _BATCH_ROWS):
            yield batch.slice(begin, _BATCH_ROWS)

    def _of_stream(self, group: int) -> Any:
        if self._next[0] != group:
            try:
                self._next = (group, self._counter.read_next_batch())
            except StopIteration:
                raise IndexError("no more record batches") from None
        return self._next[1]


def _arrow(path: Path, is_file: bool, place: _Place) -> _Arrow:
    """An Arrow file, read as the stream it holds where its footer is cut off."""
    try:
        return _Arrow(path, is_file)
    except Exception:
        if not is_file:
            raise
    source = _Arrow(path, False, _STREAM_IN_FILE)
    tell(place.notes, place.name, TRUNCATED)
    return source


def _groups(
    source: _Parquet | _Arrow, columns: _Columns, span: tuple[int, int | None], place: _Place, max_chars: int
) -> Iterator[Piece]:
    """The rows of the groups within `span`; `row` counts those before, too."""
    row = group = 0
    start, end = span
    while (end is None or group < end) and (source.count is None or group < source.count):
        try:
            rows = source.rows(group)
        except IndexError:
            return
        except Exception:  # whatever the decoder stumbles over
            if group >= start:
                yield place.lost(row, 0)
            if source.count is None:
                return  # behind a damaged batch of a stream nothing can be found
            rows = 0
        else:
            if group >= start:
                yield from _group(source, columns, group, row, rows, place, max_chars)
        row += rows
        group += 1


def _group(
    source: _Parquet | _Arrow, columns: _Columns, group: int, row: int, rows: int, place: _Place, max_chars: int
) -> Iterator[Piece]:
    given = 0
    if not columns.read:
        yield from (Piece("", row + k, 0, place.member, reason=columns.reason) for k in range(rows))
        return
    try:
        for batch in source.batches(group, columns):
            yield from _pieces(batch, columns, row + given, place.member, max_chars)
            given += batch.num_rows
    except Exception:  # whatever the decoder stumbles over
        yield place.lost(row + given, max(0, rows - given))
        return
    if given < rows:
        yield place.lost(row + given, rows - given)


def _pieces(batch: Any, columns: _Columns, row: int, member: str | None, max_chars: int) -> list[Piece]:
    assert columns.text is not None
    metas = metadata(columns.names, [columns.of(batch, number) for number in columns.kept])
    pieces = []
    for k, (text, size, invalid, reason) in enumerate(texts(columns.of(batch, columns.text))):
        if not reason and not text.strip():
            reason = EMPTY
        elif max_chars and len(text) > max_chars:
            reason = TOO_LONG
        meta = metas[k] if metas else None
        pieces.append(Piece("" if reason else text, row + k, size, member, 0 if reason else invalid, meta, reason))
    return pieces


@dataclass(frozen=True)
class _Place:
    """Where the rows come from, and where its faults are told."""

    notes: Notes
    name: str
    member: str | None

    def lost(self, row: int, rows: int) -> Piece:
        tell(self.notes, self.name, CORRUPT)
        return Piece("", row, rows, self.member, reason=CORRUPT)
