"""Finding one document in a finished corpus, kept or left out, by its id or by where it came from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gptcli.artifacts.schemas import CORPUS_SCHEMA, DROPPED_SCHEMA, SPLITS
from gptcli.artifacts.shards import shard_paths
from gptcli.errors import ArtifactError, SpecError

DROPPED = "dropped.arrow"
_PREFIX = re.compile(r"[0-9a-fA-F]{6,32}")
_ID_CHARS = 32
_TOLD = 10  # candidates named in an error

_PLACE = ("id", "path", "member", "source_offset", "source_bytes")
_KEPT_COLUMNS = (*_PLACE, "license")
_LEFT_OUT_COLUMNS = (*_PLACE, "reason", "value", "kept_id")
_OF_RECORD = {"source_offset": "offset", "source_bytes": "size"}

Mask = Callable[[pa.RecordBatch], Any]


@dataclass(frozen=True)
class Record:
    """One row of a shard, or of the list of what was left out."""

    id: str
    path: str
    member: str | None
    offset: int
    size: int
    license: str | None = None
    file: str = ""
    row: int = 0
    reason: str = ""  # "": kept
    value: str | None = None
    kept_id: str | None = None

    @property
    def place(self) -> str:
        """PATH:OFFSET, or PATH!MEMBER:OFFSET, as `find` takes it."""
        member = "" if self.member is None else f"!{self.member}"
        return f"{self.path}{member}:{self.offset}"


def find(directory: Path, wanted: str) -> list[Record]:
    """All rows of one document: the one that is meant first, then those of the same text.

    wanted: an id, 6 or more of its first hex digits, PATH:OFFSET or PATH!MEMBER:OFFSET. Raises SpecError for what is
    none of these or fits several documents, ArtifactError where no document is found.
    """
    place, colon, offset = wanted.rpartition(":")
    by_place = bool(colon and place and offset.isascii() and offset.isdigit())
    if not by_place and not _PREFIX.fullmatch(wanted):
        raise SpecError(
            f"{wanted!r} names no document",
            "name it by its id, by 6 or more of the id's first digits, or by PATH:OFFSET",
        )
    found = list(scan(directory, at_place(place, int(offset)) if by_place else with_prefix(wanted.lower())))
    if not found:
        hint = _begins(directory, place) if by_place else ""
        raise ArtifactError(
            f"no document {wanted} was kept or left out", hint or "gptcli corpus --show 5 and report.html name some"
        )
    candidates = {record.place if by_place else record.id: record for record in found}
    if len(candidates) > 1:
        told = "; ".join(f"{key} ({record.reason or 'kept'}: {record.place})" for key, record in candidates.items())
        told = told if len(candidates) <= _TOLD else "; ".join([*list(candidates)[:_TOLD], "…"])
        hint = "name the member too: PATH!MEMBER:OFFSET" if by_place else "give more digits of the id"
        raise SpecError(f"{wanted} fits {len(candidates)} documents: {told}", hint)
    if not by_place:
        return found
    return [*found, *(one for one in scan(directory, with_prefix(found[0].id)) if one.place != found[0].place)]


def _begins(directory: Path, place: str) -> str:
    """Where documents of a file begin, or "" where it has none."""
    offsets = sorted({record.offset for record in scan(directory, at_place(place, None))})
    more = ", …" if len(offsets) > _TOLD else ""
    return f"documents of {place} begin at {', '.join(map(str, offsets[:_TOLD]))}{more}" if offsets else ""


def with_prefix(prefix: str) -> Mask:
    if len(prefix) == _ID_CHARS:
        return lambda batch: pc.equal(batch.column("id"), prefix)
    return lambda batch: pc.starts_with(batch.column("id"), pattern=prefix)


def at_place(place: str, offset: int | None) -> Mask:
    """place: PATH or PATH!MEMBER; offset: None for all documents there."""

    def mask(batch: pa.RecordBatch) -> Any:
        whole = pc.binary_join_element_wise(batch.column("path"), batch.column("member"), "!")
        named = pc.or_kleene(pc.equal(batch.column("path"), place), pc.equal(whole, place))
        return named if offset is None else pc.and_kleene(named, pc.equal(batch.column("source_offset"), offset))

    return mask


def instead_of(identity: str) -> Mask:
    """Duplicates and near-duplicates in whose place a document stands."""
    return lambda batch: pc.equal(batch.column("kept_id"), identity)


def scan(directory: Path, mask: Mask) -> Iterator[Record]:
    """Every row that a mask chooses: of the shards in order, then of the list of what was left out.

    Texts are not read. Raises ArtifactError for a file that can't be read.
    """
    for split in SPLITS:
        for path in shard_paths(directory, split):
            yield from _rows(path, CORPUS_SCHEMA, _KEPT_COLUMNS, mask)
    yield from scan_left_out(directory, mask)


def scan_left_out(directory: Path, mask: Mask) -> Iterator[Record]:
    if (directory / DROPPED).is_file():
        yield from _rows(directory / DROPPED, DROPPED_SCHEMA, _LEFT_OUT_COLUMNS, mask)


def _rows(path: Path, schema: pa.Schema, columns: tuple[str, ...], mask: Mask) -> Iterator[Record]:
    options = pa.ipc.IpcReadOptions(included_fields=[schema.get_field_index(name) for name in columns])
    try:
        begin = 0
        with pa.memory_map(str(path), "r") as file:
            reader = pa.ipc.open_file(file, options=options)
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                for row in pc.indices_nonzero(pc.fill_null(mask(batch), False)).to_pylist():
                    told = {_OF_RECORD.get(name, name): batch.column(name)[row].as_py() for name in columns}
                    yield Record(**told, file=path.name, row=begin + row)
                begin += batch.num_rows
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}", "build the artifact again with --force") from error


def text_of(directory: Path, record: Record) -> tuple[str, str | None]:
    """The stored text of a kept document, and its metadata as JSON."""
    with pa.memory_map(str(directory / record.file), "r") as file:
        reader = pa.ipc.open_file(file)
        left = record.row
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            if left < batch.num_rows:
                return batch.column("text")[left].as_py(), batch.column("meta")[left].as_py()
            left -= batch.num_rows
    raise ArtifactError(f"{record.file} has no row {record.row}", "gptcli corpus --force builds it again")
