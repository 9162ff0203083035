"""Writes the n-gram index of one corpus shard, in which other texts can be looked up (artifacts/ngrams.py)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from gptcli.artifacts.durable import disk_errors
from gptcli.artifacts.ngrams import NGRAM_SCHEMA, ROWS_PER_BATCH
from gptcli.artifacts.shards import ShardWriter, open_shard
from gptcli.records.ngrams import NGRAM_WORDS, Hashes, ngram_hashes_of, sorted_unique

_CHARS = 1 << 22  # of documents hashed together
_RUN = 1 << 22  # hashes sorted in memory: 32 MiB, and as much again while they are
_RANGE = 1 << 20  # hashes merged at once, about: they are uniform over their 64 bits


def write_ngrams(shard: Path, out: Path) -> int:
    """Write the sorted, unique hashes of all 13-grams of a shard's documents; their number.

    No n-gram spans two documents. Memory is bounded by a few hundred MiB and the longest document: sorted runs go to a
    nameless file beside `out` and are merged by ranges of the hash. The bytes depend on the documents alone. Raises
    ArtifactError when the shard is missing or broken, ResourceError when the disk is full.
    """
    writer = ShardWriter(out, NGRAM_SCHEMA, rows_per_batch=ROWS_PER_BATCH)
    with disk_errors(out), tempfile.TemporaryFile(dir=out.parent) as file:
        sizes = [_spill(run, file) for run in _sorted_runs(shard)]
        for merged in _merged(file, sizes):
            writer.write(pa.record_batch([pa.array(merged)], schema=NGRAM_SCHEMA))
    return writer.close()


def _sorted_runs(shard: Path) -> Iterator[Hashes]:
    waiting: list[Hashes] = []
    for texts in _documents(shard):
        waiting.append(ngram_hashes_of(texts, NGRAM_WORDS))
        if sum(map(len, waiting)) >= _RUN:
            yield sorted_unique(waiting)
            waiting = []
    yield sorted_unique(waiting)


def _documents(shard: Path) -> Iterator[list[str]]:
    """The shard's texts, some at a time: about `_CHARS` characters, or one longer document."""
    reader = open_shard(shard)
    waiting: list[str] = []
    chars = 0
    for number in range(reader.num_record_batches):
        for text in reader.get_batch(number).column("text"):
            waiting.append(text.as_py())
            chars += len(waiting[-1])
            if chars >= _CHARS:
                yield waiting
                waiting, chars = [], 0
    yield waiting


def _spill(run: Hashes, file: IO[bytes]) -> int:
    file.write(run.tobytes())
    return len(run)


def _merged(file: IO[bytes], sizes: list[int]) -> Iterator[Hashes]:
    """The union of the sorted runs in `file`, in order, a range of the hash at a time."""
    total = sum(sizes)
    if not total:
        return
    file.flush()
    whole = np.memmap(file, dtype=np.uint64, mode="r", shape=(total,))
    runs = np.split(whole, np.cumsum(sizes)[:-1])
    ranges = total // _RANGE + 1
    bounds = np.array([(number << 64) // ranges for number in range(1, ranges)], dtype=np.uint64)
    cuts = [[0, *np.searchsorted(run, bounds).tolist(), len(run)] for run in runs]
    for number in range(ranges):
        parts = [run[cut[number] : cut[number + 1]] for run, cut in zip(runs, cuts, strict=True)]
        yield sorted_unique(parts, in_runs=True)
