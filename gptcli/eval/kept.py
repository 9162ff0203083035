"""Judged items kept from one evaluation to the next: what a model answered to a task's items is not asked again.

evals/.judged/KEY/ holds an Arrow file a group of items, named by the hash of its bytes; KEY is a hash of all that
decides the answers: the model, the task, its data and the way it is computed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc

from gptcli.artifacts.durable import canonical_json, write_bytes
from gptcli.scoring.judged import JUDGED_SCHEMA, Judged, from_batch, to_batch

FOLDER = ".judged"  # in evals/
MOST_KEPT = 256  # models' answers to tasks
_ROWS = 4096  # of a record batch
_VERSION = 1  # counted up when the same question would be judged otherwise


class KeptItems:
    """The items of one task that one model has answered so far."""

    def __init__(self, evals: Path, decides: Any) -> None:
        key = hashlib.sha256(canonical_json([_VERSION, decides])).hexdigest()
        self.folder = evals / FOLDER / key[:32]

    def read(self) -> dict[str, Judged]:
        """Every item kept, by its id; a file that is not what its name says counts as none."""
        found: dict[str, Judged] = {}
        for path in sorted(self.folder.glob("*.arrow")):
            try:
                data = path.read_bytes()
            except FileNotFoundError:  # another evaluation of the same model made one file of several
                continue
            if hashlib.sha256(data).hexdigest() == path.stem:
                reader = pa.ipc.open_file(pa.BufferReader(data))
                for number in range(reader.num_record_batches):
                    found.update((row.item, row) for row in from_batch(reader.get_batch(number)))
        return found

    def add(self, rows: Sequence[Judged]) -> Path:
        """Keep a group of items, durably; returns its file."""
        data = file_of(rows)
        path = self.folder / f"{hashlib.sha256(data).hexdigest()}.arrow"
        write_bytes(path, data)
        return path

    def forget_others(self) -> None:
        """Drop what was kept longest ago, beyond MOST_KEPT; of this model and task nothing."""
        os.utime(self.folder)
        folders = sorted(self.folder.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for folder in folders[MOST_KEPT:]:
            shutil.rmtree(folder, ignore_errors=True)

    def tidy(self) -> None:
        """Make one file of all."""
        paths = sorted(self.folder.glob("*.arrow"))
        if len(paths) < 2:
            return
        rows = self.read()
        whole = self.add([rows[item] for item in sorted(rows)])
        for path in paths:
            if path != whole:
                path.unlink(missing_ok=True)


def file_of(rows: Sequence[Judged]) -> bytes:
    """Judged items as an Arrow IPC file, zstd."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, JUDGED_SCHEMA, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        for start in range(0, len(rows), _ROWS):
            writer.write_batch(to_batch(rows[start : start + _ROWS]))
    data: bytes = sink.getvalue().to_pybytes()
    return data
