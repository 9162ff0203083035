"""Arrow shards: written under a temporary name and renamed when whole, read through a memory map."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc

from gptcli.artifacts.durable import PENDING, disk_errors, replace
from gptcli.errors import ArtifactError

ROWS_PER_BATCH = 1024


class ShardWriter:
    """Writes one Arrow IPC file in record batches cut at fixed row counts, so that the bytes depend on rows alone."""

    def __init__(
        self, path: Path, schema: pa.Schema, compression: str | None = None, rows_per_batch: int = ROWS_PER_BATCH
    ) -> None:
        self.path = path
        self.rows = 0
        self._rows_per_batch = rows_per_batch
        self._pending_path = path.with_name(path.name + PENDING)
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._pending_path.open("wb")
        options = pa.ipc.IpcWriteOptions(compression=compression, use_threads=False)
        self._writer = pa.ipc.new_file(self._file, schema, options=options)
        self._schema = schema

    def write(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Add rows; full batches are written at once, the rest waits."""
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_batches([rows])
        self._waiting.append(table.cast(self._schema))
        self._waiting_rows += table.num_rows
        if self._waiting_rows >= self._rows_per_batch:
            self._flush(whole=False)

    def _flush(self, whole: bool) -> None:
        table = pa.concat_tables(self._waiting) if self._waiting else self._schema.empty_table()
        end = table.num_rows if whole else table.num_rows - table.num_rows % self._rows_per_batch
        with disk_errors(self.path):
            for start in range(0, end, self._rows_per_batch):
                piece = _compact(table.slice(start, min(self._rows_per_batch, end - start)))
                for batch in piece.to_batches():
                    self._writer.write_batch(batch)
                self.rows += piece.num_rows
        rest = table.slice(end)
        self._waiting, self._waiting_rows = ([rest] if rest.num_rows else []), rest.num_rows

    def close(self) -> int:
        """Write what waits, fsync, take the final name; the number of rows."""
        self._flush(whole=True)
        with disk_errors(self.path):
            self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        replace(self._pending_path, self.path)
        return self.rows


def _compact(table: pa.Table) -> pa.Table:
    """The rows in buffers of their own: a slice would write bytes of its neighbours along."""
    columns = [
        pa.concat_arrays([*column.chunks, pa.array([], column.type)]) for column in table.combine_chunks().columns
    ]
    return pa.table(columns, schema=table.schema)


def shard_paths(directory: Path, split: str) -> list[Path]:
    """The shards of one split, in order."""
    return sorted(directory.glob(f"{split}-[0-9]*.arrow"))


def shard_name(split: str, number: int) -> str:
    return f"{split}-{number:05d}.arrow"


def open_shard(path: Path) -> Any:
    """A memory-mapped pyarrow.ipc.RecordBatchFileReader; ArtifactError when the file is missing or broken."""
    try:
        return pa.ipc.open_file(pa.memory_map(str(path), "r"))
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{path} cannot be read: {error}", "build the artifact again with --force") from error
