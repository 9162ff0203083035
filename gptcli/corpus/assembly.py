"""The last pass: of all units' documents, in source order, which are kept, in which split and in which shard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gptcli.artifacts.schemas import CORPUS_SCHEMA, SPLITS
from gptcli.artifacts.shards import ShardWriter, shard_name
from gptcli.corpus.spec import CorpusSpec
from gptcli.corpus.units import Index, Unit, read_texts

Ints = np.ndarray[Any, np.dtype[np.integer[Any]]]
LEFT_OUT = -1  # in `Decision.splits`


@dataclass(frozen=True)
class Decision:
    """For every document of all units, in order: the number of its split in SPLITS or LEFT_OUT, and of its shard."""

    splits: Ints
    shards: Ints


def decide(indexes: Sequence[Index], spec: CorpusSpec) -> Decision:
    """Exact deduplication, split and shards, from hashes and lengths alone (about 60 bytes a document in memory)."""
    hashes = np.concatenate([index.hashes for index in indexes])
    splits = split_of(hashes, spec.val_share, spec.test_share, spec.split_seed)
    if spec.dedup == "exact":
        splits[~first_seen(hashes)] = LEFT_OUT
    lengths = np.concatenate([index.bytes for index in indexes])
    shards = np.zeros(len(splits), dtype=np.int32)
    for split in range(len(SPLITS)):
        chosen = splits == split
        shards[chosen] = cut_shards(lengths[chosen], spec.shard_bytes)
    return Decision(splits, shards)


def first_seen(hashes: Ints) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which of the (n, 2) hashes are met for the first time."""
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))  # stable: equal hashes stay in source order
    ordered = hashes[order]
    fresh = np.ones(len(hashes), dtype=bool)
    fresh[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = np.zeros(len(hashes), dtype=bool)
    first[order[fresh]] = True
    return first


def split_of(hashes: Ints, val_share: float, test_share: float, seed: int) -> Ints:
    """The split (0 train, 1 val, 2 test) of (n, 2) content hashes: a document keeps it whatever else is read.

    The seed is mixed in by the finaliser of SplitMix64 (Steele, Lea and Flood 2014), so that every seed holds out
    other documents.
    """
    with np.errstate(over="ignore"):
        value = hashes[:, 0].astype(np.uint64) + np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        value ^= value >> np.uint64(31)
    place = (value >> np.uint64(11)).astype(np.float64) / 2.0**53  # [0, 1), exact
    splits = np.zeros(len(hashes), dtype=np.int8)
    splits[place < val_share + test_share] = SPLITS.index("test")
    splits[place < val_share] = SPLITS.index("val")
    return splits


def cut_shards(lengths: Ints, shard_bytes: int) -> Ints:
    """The shard of each document: one is closed as soon as it holds `shard_bytes` bytes of text."""
    numbers = np.zeros(len(lengths), dtype=np.int32)
    ends = np.cumsum(lengths, dtype=np.int64)
    begin, number, before = 0, 0, 0
    while begin < len(lengths):
        end = int(np.searchsorted(ends, before + shard_bytes)) + 1  # the document that fills it is its last
        numbers[begin:end] = number
        begin, number = end, number + 1
        before = int(ends[min(end, len(ends)) - 1])
    return numbers


class ShardSet:
    """The shards of all splits, one open at a time for each."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[int, tuple[int, ShardWriter]] = {}
        self.rows: dict[str, int] = {}

    def write(self, split: int, shard: int, rows: pa.RecordBatch) -> None:
        number, writer = self._open.get(split, (-1, None))
        if writer is None or number != shard:
            self._close(split)
            path = self._directory / shard_name(SPLITS[split], shard)
            writer = ShardWriter(path, CORPUS_SCHEMA, compression="zstd")
            self._open[split] = (shard, writer)
        writer.write(rows)

    def _close(self, split: int) -> None:
        if split in self._open:
            _, writer = self._open.pop(split)
            self.rows[writer.path.name] = writer.close()

    def close(self) -> None:
        for split in list(self._open):
            self._close(split)


def write_shards(
    units: Sequence[Unit],
    unit_directory: Path,
    directory: Path,
    decision: Decision,
    between: Callable[[Unit], None],
) -> dict[str, int]:
    """Write every document into its shard, in source order; returns rows by file name. `between` is called a unit."""
    shards, begin = ShardSet(directory), 0
    for unit in units:
        for batch in read_texts(unit_directory, unit):
            here = slice(begin, begin + batch.num_rows)
            begin += batch.num_rows
            _write_batch(batch, decision.splits[here], decision.shards[here], shards)
        between(unit)
    shards.close()
    return shards.rows


def _write_batch(batch: pa.RecordBatch, splits: Ints, numbers: Ints, shards: ShardSet) -> None:
    for split in range(len(SPLITS)):
        chosen = np.flatnonzero(splits == split)
        for number in np.unique(numbers[chosen]):
            rows = chosen[numbers[chosen] == number]
            shards.write(split, int(number), _as_corpus(batch.take(pa.array(rows))))


def _as_corpus(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A unit's rows in the columns of a corpus shard."""
    columns = {
        "id": pa.array([digest.hex() for digest in batch.column("hash").to_pylist()], pa.string()),
        "text": batch.column("text").view(pa.large_string()),
        "member": pa.nulls(batch.num_rows, pa.string()),
    }
    arrays = [columns[name] if name in columns else batch.column(name) for name in CORPUS_SCHEMA.names]
    return pa.record_batch(arrays, schema=CORPUS_SCHEMA)
