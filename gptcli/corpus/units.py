"""Units: runs of source files cleaned by one worker at a time, kept on disk until the corpus is whole.

Unit k is two files: `k.arrow`, its documents, and `k.index.arrow`, written last, with what deciding needs (hash,
lengths, source) and the counts as schema metadata. A unit whose index stands is finished.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from gptcli.artifacts.durable import PENDING, disk_errors, fsync_file, replace, write_bytes
from gptcli.artifacts.manifest import Source
from gptcli.records.sources import SourceFile

UNIT_BYTES = 4 << 20  # raw bytes of source files at which a unit is closed; a larger file is one by itself
UNIT_FILES = 1024  # files at which it is closed
LAYOUT = 1  # of the unit files: units of another layout are made again
_BATCH_BYTES = 8 << 20  # text held before it is written
_BATCH_ROWS = 4096

TEXT_SCHEMA = pa.schema(
    [
        pa.field("hash", pa.binary(16)),
        pa.field("text", pa.large_binary()),  # UTF-8
        pa.field("path", pa.string()),
        pa.field("source_offset", pa.int64()),
        pa.field("source_bytes", pa.int64()),
        pa.field("license", pa.string()),
        pa.field("meta", pa.string()),
    ]
)
_INDEX_SCHEMA = pa.schema(
    [
        pa.field("hash", pa.binary(16)),
        pa.field("bytes", pa.int64()),
        pa.field("chars", pa.int64()),
        pa.field("source", pa.int32()),
    ]
)


@dataclass(frozen=True)
class UnitFile:
    """One source file of a unit; `source` is the number of the typed source it came from."""

    path: Path
    recorded: Source
    source: int
    license: str | None

    @property
    def name(self) -> str:
        return self.recorded.path


@dataclass(frozen=True)
class Unit:
    number: int
    files: tuple[UnitFile, ...]
    bytes: int  # raw, of all files


@dataclass
class Counts:
    """What was read and left out, by the number of the typed source; JSON-able through `asdict`."""

    read: dict[str, int] = field(default_factory=dict)  # documents
    invalid: dict[str, int] = field(default_factory=dict)  # bytes
    left_out: dict[str, dict[str, int]] = field(default_factory=dict)  # reason → documents
    faults: list[tuple[str, str]] = field(default_factory=list)  # files that end too early or are damaged

    def document(self, source: int, invalid_bytes: int) -> None:
        key = str(source)
        self.read[key] = self.read.get(key, 0) + 1
        self.invalid[key] = self.invalid.get(key, 0) + invalid_bytes

    def leave_out(self, source: int, reason: str, count: int = 1) -> None:
        reasons = self.left_out.setdefault(str(source), {})
        reasons[reason] = reasons.get(reason, 0) + count

    def add(self, other: Counts) -> None:
        self.read = dict(Counter(self.read) + Counter(other.read))
        self.invalid = dict(Counter(self.invalid) + Counter(other.invalid))
        for source, reasons in other.left_out.items():
            for reason, count in reasons.items():
                self.leave_out(int(source), reason, count)
        self.faults += [(name, fault) for name, fault in other.faults]


def plan_units(files: Sequence[SourceFile], sources: Sequence[Source], licenses: Sequence[str | None]) -> list[Unit]:
    """Cut the files, in order, into units; the cut depends on the files alone.

    sources: what was recorded of every file; licenses: one for each typed source.
    """
    recorded = {source.path: source for source in sources}
    numbers: dict[str, int] = {}
    units: list[Unit] = []
    waiting: list[UnitFile] = []
    held = 0
    for file in files:
        number = numbers.setdefault(file.source, len(numbers))
        size = recorded[file.name].bytes
        if waiting and held + size > UNIT_BYTES:
            units.append(Unit(len(units), tuple(waiting), held))
            waiting, held = [], 0
        waiting.append(UnitFile(file.path, recorded[file.name], number, licenses[number]))
        held += size
        if held >= UNIT_BYTES or len(waiting) >= UNIT_FILES:
            units.append(Unit(len(units), tuple(waiting), held))
            waiting, held = [], 0
    if waiting:
        units.append(Unit(len(units), tuple(waiting), held))
    return units


@dataclass(frozen=True, slots=True)
class Kept:
    """A document that came through cleaning."""

    hash: bytes  # 128 bits, of the text
    text: bytes  # UTF-8
    chars: int
    path: str
    source: int
    offset: int
    size: int
    license: str | None
    meta: str | None


class UnitWriter:
    """Writes one unit; memory is bounded by one batch and the index (about 40 bytes a document)."""

    def __init__(self, directory: Path, unit: Unit) -> None:
        self._unit = unit
        self._path = _text_path(directory, unit)
        self._index_path = _index_path(directory, unit)
        self._pending = self._path.with_name(self._path.name + PENDING)
        self._waiting: list[Kept] = []
        self._waiting_bytes = 0
        self._index: list[pa.RecordBatch] = []
        with disk_errors(self._path):
            self._file = self._pending.open("wb")
        self._writer = pa.ipc.new_file(self._file, TEXT_SCHEMA)

    def write(self, kept: Kept) -> None:
        self._waiting.append(kept)
        self._waiting_bytes += len(kept.text)
        if self._waiting_bytes >= _BATCH_BYTES or len(self._waiting) >= _BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        rows = self._waiting
        hashes = pa.array([row.hash for row in rows], pa.binary(16))
        columns = [
            hashes,
            pa.array([row.text for row in rows], pa.large_binary()),
            pa.array([row.path for row in rows], pa.string()),
            pa.array([row.offset for row in rows], pa.int64()),
            pa.array([row.size for row in rows], pa.int64()),
            pa.array([row.license for row in rows], pa.string()),
            pa.array([row.meta for row in rows], pa.string()),
        ]
        index = [
            hashes,
            pa.array([len(row.text) for row in rows], pa.int64()),
            pa.array([row.chars for row in rows], pa.int64()),
            pa.array([row.source for row in rows], pa.int32()),
        ]
        with disk_errors(self._path):
            self._writer.write_batch(pa.record_batch(columns, schema=TEXT_SCHEMA))
        self._index.append(pa.record_batch(index, schema=_INDEX_SCHEMA))
        self._waiting, self._waiting_bytes = [], 0

    def close(self, counts: Counts) -> None:
        """Make the unit last; the index, written after the text, says that it is finished."""
        if self._waiting:
            self._flush()
        with disk_errors(self._path):
            self._writer.close()
            self._file.close()
            fsync_file(self._pending)
        replace(self._pending, self._path)
        told = json.dumps({"layout": LAYOUT, "files": _names(self._unit), "counts": asdict(counts)})
        buffer = pa.BufferOutputStream()
        with pa.ipc.new_file(buffer, _INDEX_SCHEMA.with_metadata({"unit": told})) as writer:
            for batch in self._index:
                writer.write_batch(batch)
        write_bytes(self._index_path, buffer.getvalue().to_pybytes())


@dataclass(frozen=True)
class Index:
    """Of every document of one unit, in order: hash (n, 2) uint64, UTF-8 bytes, characters, number of its source."""

    hashes: np.ndarray[Any, np.dtype[np.uint64]]
    bytes: np.ndarray[Any, np.dtype[np.int64]]
    chars: np.ndarray[Any, np.dtype[np.int64]]
    sources: np.ndarray[Any, np.dtype[np.int32]]
    counts: Counts


def is_finished(directory: Path, unit: Unit) -> bool:
    """Whether an earlier process finished this very unit."""
    path = _index_path(directory, unit)
    if not path.is_file() or not _text_path(directory, unit).is_file():
        return False
    try:
        told = _told(pa.ipc.open_file(pa.OSFile(str(path))))
    except (OSError, pa.ArrowInvalid, ValueError):
        return False
    return bool(told["layout"] == LAYOUT and told["files"] == _names(unit))


def read_index(directory: Path, unit: Unit) -> Index:
    reader = pa.ipc.open_file(pa.OSFile(str(_index_path(directory, unit))))
    table = reader.read_all().combine_chunks()
    told = _told(reader)["counts"]
    hashes = b"".join(chunk.buffers()[1].to_pybytes()[: 16 * len(chunk)] for chunk in table["hash"].chunks)
    return Index(
        np.frombuffer(hashes, dtype="<u8").reshape(-1, 2),
        table["bytes"].to_numpy(),
        table["chars"].to_numpy(),
        table["source"].to_numpy(),
        Counts(**told),
    )


def read_texts(directory: Path, unit: Unit) -> Iterator[pa.RecordBatch]:
    """A unit's documents in `TEXT_SCHEMA`, a batch of bounded size at a time."""
    # Read, not mapped: mapped pages count as this process's memory.
    with pa.OSFile(str(_text_path(directory, unit))) as file:
        reader = pa.ipc.open_file(file)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)


def _told(reader: Any) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(reader.schema.metadata[b"unit"])
    return told


def _names(unit: Unit) -> list[str]:
    return [file.name for file in unit.files]


def _text_path(directory: Path, unit: Unit) -> Path:
    return directory / f"{unit.number:05d}.arrow"


def _index_path(directory: Path, unit: Unit) -> Path:
    return directory / f"{unit.number:05d}.index.arrow"


def total_bytes(units: Iterable[Unit]) -> int:
    """Raw bytes of all their files."""
    return sum(unit.bytes for unit in units)
