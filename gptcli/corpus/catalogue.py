"""All units' documents as one numbered row, in source order: their hashes and lengths in memory, texts on disk."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from gptcli.corpus.plan import Unit
from gptcli.corpus.units import Counts, read_index, read_texts, text_path

Ints = np.ndarray[Any, np.dtype[Any]]
_HELD_BATCHES = 16  # of unpacked text, by one reader


@dataclass(frozen=True)
class Catalogue:
    """Of every document: hash (n, 2) uint64, UTF-8 bytes, characters, numbers of shingles, of hashed paragraphs, and
    of its typed source."""

    texts: TextReader
    hashes: Ints
    bytes: Ints
    chars: Ints
    shingles: Ints
    paragraphs: Ints
    sources: Ints
    counts: list[Counts]  # by unit

    def __len__(self) -> int:
        return len(self.bytes)

    def scores(self) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Of every document with kept scores its number, and for each filter rule → value."""
        number = 0
        for key in self.texts.keys:
            for batch in read_texts(self.texts.directory, key):
                for told in batch.column("scores").to_pylist():
                    if told:
                        yield number, json.loads(told)
                    number += 1


def open_catalogue(directory: Path, units: Sequence[Unit]) -> Catalogue:
    """About 48 bytes a document in memory."""
    indexes = [read_index(directory, unit.key) for unit in units]
    lengths = [len(index) for index in indexes]
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    keys = [unit.key for unit in units]
    return Catalogue(
        TextReader(directory, keys, starts, [index.batches for index in indexes]),
        np.concatenate([index.hashes for index in indexes]),
        np.concatenate([index.bytes for index in indexes]),
        np.concatenate([index.chars for index in indexes]),
        np.concatenate([index.shingles for index in indexes]),
        np.concatenate([index.paragraphs for index in indexes]),
        np.repeat(np.array([unit.source for unit in units], dtype=np.int32), lengths),
        [index.counts for index in indexes],
    )


class TextReader:
    """The texts of documents by number; picklable, so that workers can read for themselves."""

    def __init__(self, directory: Path, keys: list[str], starts: Ints, batches: list[list[int]]) -> None:
        self.directory, self.keys, self.starts = directory, keys, starts
        self._ends = [np.cumsum(rows, dtype=np.int64) for rows in batches]
        self._held: OrderedDict[tuple[int, int], pa.RecordBatch] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_held": OrderedDict()}

    def rows(self, numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
        """Of each document in turn all columns of `TEXT_SCHEMA`, the text as bytes."""
        for number in numbers:
            batch, row = self._find(int(number))
            yield {name: batch.column(name)[row].as_py() for name in batch.schema.names}

    def __call__(self, numbers: Iterable[int]) -> Iterator[str]:
        """The text of each document in turn."""
        for number in numbers:
            batch, row = self._find(int(number))
            yield batch.column("text")[row].as_py().decode()

    def _find(self, number: int) -> tuple[pa.RecordBatch, int]:
        unit = int(np.searchsorted(self.starts, number, side="right")) - 1
        inside = number - int(self.starts[unit])
        ends = self._ends[unit]
        batch = int(np.searchsorted(ends, inside, side="right"))
        return self._batch(unit, batch), inside - (int(ends[batch - 1]) if batch else 0)

    def _batch(self, unit: int, number: int) -> pa.RecordBatch:
        found = self._held.get((unit, number))
        if found is None:
            with pa.OSFile(str(text_path(self.directory, self.keys[unit]))) as file:
                found = pa.ipc.open_file(file).get_batch(number)
            if len(self._held) >= _HELD_BATCHES:
                self._held.popitem(last=False)
        self._held[(unit, number)] = found
        self._held.move_to_end((unit, number))
        return found
