"""The cleaned documents of one unit on disk, kept until the corpus is whole, and after it for `--update`.

Unit KEY is `KEY.text.arrow`, its documents; `KEY.dropped.arrow`, what was left out; `KEY.index.arrow`, with what
deciding needs (hashes, lengths) and the counts as schema metadata; where asked for, `KEY.bands`, the MinHash bands, and
`KEY.paragraphs`, the paragraphs' hashes; and `KEY.done`, written last, with the sums of all of them.
"""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from gptcli.artifacts.durable import PENDING, disk_errors, fsync_file, replace, write_bytes, write_json
from gptcli.corpus.dedup.join import band_bytes
from gptcli.corpus.dedup.minhash import band_hashes
from gptcli.corpus.dedup.shingles import Hashes
from gptcli.corpus.plan import Unit
from gptcli.corpus.spec import NearSpec

_BATCH_BYTES = 1 << 20  # text held before it is written; also what one document's text costs to look up
_BATCH_ROWS = 1024
_NEEDED = {"text.arrow", "dropped.arrow", "index.arrow"}  # endings of a unit's files
SAMPLES = 10  # dropped documents of which the text is kept, a reason

TEXT_SCHEMA = pa.schema(
    [
        pa.field("hash", pa.binary(16)),
        pa.field("text", pa.large_binary()),  # UTF-8
        pa.field("path", pa.string()),
        pa.field("member", pa.string()),
        pa.field("source_offset", pa.int64()),
        pa.field("source_bytes", pa.int64()),
        pa.field("license", pa.string()),
        pa.field("meta", pa.string()),
        pa.field("scores", pa.string()),  # JSON: for each filter rule → value
    ]
)
DROPPED_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("path", pa.string()),
        pa.field("member", pa.string()),
        pa.field("source_offset", pa.int64()),
        pa.field("source_bytes", pa.int64()),
        pa.field("reason", pa.string()),
        pa.field("value", pa.string()),  # what the rule measured
        pa.field("text", pa.string()),  # the beginning; of few of each reason
    ]
)
_INDEX_SCHEMA = pa.schema(
    [
        pa.field("hash", pa.binary(16)),
        pa.field("bytes", pa.int64()),
        pa.field("chars", pa.int64()),
        pa.field("shingles", pa.int32()),  # their number; 0 where none were made
        pa.field("paragraphs", pa.int32()),  # their number; 0 where they were not hashed
    ]
)


@dataclass
class Counts:
    """What was read, changed and left out of one unit or source; JSON-able through `asdict`."""

    read: int = 0  # documents
    invalid: int = 0  # bytes
    left_out: dict[str, int] = field(default_factory=dict)  # reason → documents
    rewritten: dict[str, int] = field(default_factory=dict)  # what filters cut or replaced → how many
    languages: dict[str, int] = field(default_factory=dict)  # code → documents measured
    faults: list[list[str]] = field(default_factory=list)  # [file, fault]: ends too early, damaged, …
    columns: dict[str, list[str]] = field(default_factory=dict)  # files of rows without the text key → their keys
    with_text: list[str] = field(default_factory=list)  # files in which a row had it

    def add(self, other: Counts) -> None:
        self.read += other.read
        self.invalid += other.invalid
        for mine, theirs in (
            (self.left_out, other.left_out),
            (self.rewritten, other.rewritten),
            (self.languages, other.languages),
        ):
            for name, count in theirs.items():
                mine[name] = mine.get(name, 0) + count
        self.faults += [fault for fault in other.faults if fault not in self.faults[-1:]]
        for name, keys in other.columns.items():
            self.columns.setdefault(name, keys)
        self.with_text += [name for name in other.with_text if name not in self.with_text[-1:]]


@dataclass(frozen=True, slots=True)
class Kept:
    """A document that came through cleaning."""

    hash: bytes  # 128 bits, of the text
    text: bytes  # UTF-8
    chars: int
    path: str
    member: str | None
    offset: int
    size: int
    license: str | None
    meta: str | None
    scores: str | None = None
    shingles: Hashes | None = None  # where near-duplicates are looked for
    paragraphs: Hashes | None = None  # where repeated ones are to be removed


@dataclass(frozen=True, slots=True)
class Dropped:
    """A document that did not."""

    id: str
    path: str
    member: str | None
    offset: int
    size: int
    reason: str
    value: str | None = None
    text: str | None = None


class UnitWriter:
    """Writes one unit; memory is bounded by one batch and the index (about 160 bytes a document)."""

    def __init__(self, directory: Path, unit: Unit, near: NearSpec | None = None) -> None:
        self._directory, self._unit, self._near = directory, unit, near
        self._path = text_path(directory, unit.key)
        self._pending = self._path.with_name(self._path.name + PENDING)
        self._waiting: list[Kept] = []
        self._waiting_bytes = 0
        self._index: list[pa.RecordBatch] = []
        self._bands: list[Hashes] = []
        self._paragraphs: list[Hashes] = []
        self._dropped: list[Dropped] = []
        self._shown: dict[str, list[tuple[str, int]]] = {}  # reason → ids and places of those whose text is held
        with disk_errors(self._path):
            self._file = self._pending.open("wb")
        self._writer = pa.ipc.new_file(self._file, TEXT_SCHEMA, options=_options())

    def write(self, kept: Kept) -> None:
        self._waiting.append(kept)
        self._waiting_bytes += len(kept.text) + len(kept.meta or "") + len(kept.scores or "")
        if self._waiting_bytes >= _BATCH_BYTES or len(self._waiting) >= _BATCH_ROWS:
            self._flush()

    def drop(self, dropped: Dropped) -> None:
        """Put down what is left out; of each reason only the texts with the lowest ids are held."""
        shown = self._shown.setdefault(dropped.reason, [])
        bisect.insort(shown, (dropped.id, len(self._dropped)))
        self._dropped.append(dropped)
        if len(shown) > SAMPLES:
            _, place = shown.pop()
            self._dropped[place] = dataclasses.replace(self._dropped[place], text=None)

    def _flush(self) -> None:
        rows = self._waiting
        hashes = pa.array([row.hash for row in rows], pa.binary(16))
        columns = [
            hashes,
            pa.array([row.text for row in rows], pa.large_binary()),
            pa.array([row.path for row in rows], pa.string()),
            pa.array([row.member for row in rows], pa.string()),
            pa.array([row.offset for row in rows], pa.int64()),
            pa.array([row.size for row in rows], pa.int64()),
            pa.array([row.license for row in rows], pa.string()),
            pa.array([row.meta for row in rows], pa.string()),
            pa.array([row.scores for row in rows], pa.string()),
        ]
        index = [
            hashes,
            pa.array([len(row.text) for row in rows], pa.int64()),
            pa.array([row.chars for row in rows], pa.int64()),
            pa.array([_count(row.shingles) for row in rows], pa.int32()),
            pa.array([_count(row.paragraphs) for row in rows], pa.int32()),
        ]
        with disk_errors(self._path):
            self._writer.write_batch(pa.record_batch(columns, schema=TEXT_SCHEMA))
        self._index.append(pa.record_batch(index, schema=_INDEX_SCHEMA))
        if self._near is not None:
            sets = [row.shingles for row in rows if row.shingles is not None]
            self._bands.append(band_hashes(sets, self._near.bands, self._near.rows, self._near.seed))
        self._paragraphs += [row.paragraphs for row in rows if row.paragraphs is not None]
        self._waiting, self._waiting_bytes = [], 0

    def close(self, counts: Counts) -> None:
        """Make the unit last; `KEY.done`, written after the rest with the sums of all of it, says that it is whole."""
        if self._waiting:
            self._flush()
        with disk_errors(self._path):
            self._writer.close()
            self._file.close()
            fsync_file(self._pending)
            sums = {_ending(self._path): _sum_of(self._pending)}
        replace(self._pending, self._path)
        for path, data in self._beside(counts):
            write_bytes(path, data)
            sums[_ending(path)] = hashlib.blake2b(data, digest_size=16).hexdigest()
        write_json(done_path(self._directory, self._unit.key), sums)

    def _beside(self, counts: Counts) -> Iterator[tuple[Path, bytes]]:
        """The other files of the unit."""
        directory, key = self._directory, self._unit.key
        told = {"counts": asdict(counts), "batches": [batch.num_rows for batch in self._index]}
        index = pa.Table.from_batches(self._index, _INDEX_SCHEMA)
        yield index_path(directory, key), _table(index.replace_schema_metadata({"unit": json.dumps(told)}))
        if self._near is not None:
            bands = np.concatenate([np.empty((0, self._near.bands), dtype=np.uint64), *self._bands])
            yield bands_path(directory, key), band_bytes(bands)
        if self._paragraphs:
            yield paragraphs_path(directory, key), np.concatenate(self._paragraphs).tobytes()
        yield dropped_path(directory, key), _table(_dropped_rows(self._dropped))


def _ending(path: Path) -> str:
    """A unit file's name without the unit's key."""
    return path.name.partition(".")[2]


def _sum_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _count(hashes: Hashes | None) -> int:
    return 0 if hashes is None else len(hashes)


def _dropped_rows(dropped: list[Dropped]) -> pa.Table:
    """In `DROPPED_SCHEMA`."""
    columns: dict[str, list[Any]] = {
        "id": [row.id for row in dropped],
        "path": [row.path for row in dropped],
        "member": [row.member for row in dropped],
        "source_offset": [row.offset for row in dropped],
        "source_bytes": [row.size for row in dropped],
        "reason": [row.reason for row in dropped],
        "value": [row.value for row in dropped],
        "text": [row.text for row in dropped],
    }
    return pa.table(columns, schema=DROPPED_SCHEMA)


def _table(table: pa.Table) -> bytes:
    buffer = pa.BufferOutputStream()
    with pa.ipc.new_file(buffer, table.schema, options=_options()) as writer:
        writer.write_table(table, max_chunksize=1 << 16)
    found: bytes = buffer.getvalue().to_pybytes()
    return found


def _options() -> Any:
    return pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)


@dataclass(frozen=True)
class Index:
    """Of every document of one unit, in order: hash (n, 2) uint64, UTF-8 bytes, characters; numbers of shingles and
    of hashed paragraphs."""

    hashes: np.ndarray[Any, np.dtype[np.uint64]]
    bytes: np.ndarray[Any, np.dtype[np.int64]]
    chars: np.ndarray[Any, np.dtype[np.int64]]
    shingles: np.ndarray[Any, np.dtype[np.int32]]
    paragraphs: np.ndarray[Any, np.dtype[np.int32]]
    batches: list[int]  # rows of each batch of its text file
    counts: Counts

    def __len__(self) -> int:
        return len(self.bytes)


def is_finished(directory: Path, unit: Unit) -> bool:
    """Whether an earlier process finished this very unit, and every byte of it is as it was written."""
    try:
        sums = json.loads(done_path(directory, unit.key).read_bytes())
        whole = (_sum_of(directory / f"{unit.key}.{ending}") == wanted for ending, wanted in sums.items())
        return sums.keys() >= _NEEDED and all(whole)
    except (OSError, ValueError, AttributeError):
        return False


def read_index(directory: Path, key: str) -> Index:
    reader = pa.ipc.open_file(pa.OSFile(str(index_path(directory, key))))
    table = reader.read_all().combine_chunks()
    told = _told(reader)
    hashes = b"".join(chunk.buffers()[1].to_pybytes()[: 16 * len(chunk)] for chunk in table["hash"].chunks)
    return Index(
        np.frombuffer(hashes, dtype="<u8").reshape(-1, 2),
        table["bytes"].to_numpy(),
        table["chars"].to_numpy(),
        table["shingles"].to_numpy(),
        table["paragraphs"].to_numpy(),
        told["batches"],
        Counts(**told["counts"]),
    )


def read_texts(directory: Path, key: str) -> Iterator[pa.RecordBatch]:
    """A unit's documents in `TEXT_SCHEMA`, a batch of bounded size at a time."""
    return _batches(text_path(directory, key))


def read_dropped(directory: Path, key: str) -> Iterator[pa.RecordBatch]:
    """What was left out of a unit while it was cleaned, in `DROPPED_SCHEMA`."""
    return _batches(dropped_path(directory, key))


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    # Read, not mapped: mapped pages count as this process's memory.
    with pa.OSFile(str(path)) as file:
        reader = pa.ipc.open_file(file)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)


def _told(reader: Any) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(reader.schema.metadata[b"unit"])
    return told


def text_path(directory: Path, key: str) -> Path:
    return directory / f"{key}.text.arrow"


def done_path(directory: Path, key: str) -> Path:
    """JSON: the sum of each of the unit's other files by its ending."""
    return directory / f"{key}.done"


def index_path(directory: Path, key: str) -> Path:
    return directory / f"{key}.index.arrow"


def dropped_path(directory: Path, key: str) -> Path:
    return directory / f"{key}.dropped.arrow"


def paragraphs_path(directory: Path, key: str) -> Path:
    """The hashes of its paragraphs: little-endian uint64, a document's after the one's before."""
    return directory / f"{key}.paragraphs"


def bands_path(directory: Path, key: str) -> Path:
    """The MinHash bands, as `join.band_bytes` lays them out."""
    return directory / f"{key}.bands"
