"""Writing what was decided: the shards of every split, and the list of all that was left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gptcli.artifacts.schemas import CORPUS_SCHEMA, DROPPED_SCHEMA, SPLITS
from gptcli.artifacts.shards import ShardWriter, shard_name
from gptcli.corpus.catalogue import Catalogue, Ints
from gptcli.corpus.cleaning import judged, shown
from gptcli.corpus.decisions import KEPT, Decision
from gptcli.corpus.plan import Unit
from gptcli.corpus.samples import Samples
from gptcli.corpus.spec import CorpusSpec
from gptcli.corpus.units import read_dropped, read_texts

DROPPED = "dropped.arrow"
Rewrite = Callable[[int, pa.RecordBatch], pa.RecordBatch]  # (number of the first document, a unit's rows)


class ShardSet:
    """The shards of all splits, one open at a time for each; one is closed as soon as it holds `shard_bytes`."""

    def __init__(self, directory: Path, shard_bytes: int) -> None:
        self._directory, self._shard_bytes = directory, shard_bytes
        self._open: dict[str, tuple[ShardWriter, int]] = {}  # and how many bytes of text it holds
        self._made: dict[str, int] = {}
        self.rows: dict[str, int] = {}

    def write(self, split: str, rows: pa.RecordBatch) -> None:
        """rows: in CORPUS_SCHEMA."""
        ends = np.cumsum(pc.binary_length(rows.column("text")).to_numpy(zero_copy_only=False), dtype=np.int64)
        begin = 0
        while begin < len(ends):
            writer, held = self._open.get(split) or (self._begin(split), 0)
            before = int(ends[begin - 1]) if begin else 0
            # The document that fills a shard is its last.
            end = min(int(np.searchsorted(ends, before + self._shard_bytes - held)) + 1, len(ends))
            writer.write(rows.slice(begin, end - begin))
            held += int(ends[end - 1]) - before
            self._open[split] = (writer, held)
            if held >= self._shard_bytes:
                self._end(split)
            begin = end

    def _begin(self, split: str) -> ShardWriter:
        number = self._made[split] = self._made.get(split, -1) + 1
        return ShardWriter(self._directory / shard_name(split, number), CORPUS_SCHEMA, compression="zstd")

    def _end(self, split: str) -> None:
        writer, _ = self._open.pop(split)
        self.rows[writer.path.name] = writer.close()

    def close(self) -> dict[str, int]:
        """Rows by file name."""
        for split in list(self._open):
            self._end(split)
        return self.rows


def write_shards(
    units: Sequence[Unit],
    catalogue: Catalogue,
    directory: Path,
    decision: Decision,
    shard_bytes: int,
    between: Callable[[Unit], None],
    rewrite: Rewrite | None = None,
) -> dict[str, int]:
    """Write every kept document into its split, in source order; further copies in rounds after all first ones.

    Returns rows by file name. `between` is called a unit, `rewrite` changes the texts of a unit's rows.
    """
    shards, starts = ShardSet(directory, shard_bytes), catalogue.texts.starts
    rounds = int(decision.copies[decision.kept].max(initial=1))
    for number in range(rounds):
        wanted = decision.kept & (decision.copies > number)
        for place, unit in enumerate(units):
            if wanted[starts[place] : starts[place + 1]].any():
                for begin, batch in _batches(catalogue.texts.directory, unit, int(starts[place])):
                    here = slice(begin, begin + batch.num_rows)
                    rows = rewrite(begin, batch) if rewrite else batch
                    _write_batch(rows, np.where(wanted[here], decision.splits[here], -1), shards)
            if number == 0:
                between(unit)
    return shards.close()


def _batches(directory: Path, unit: Unit, begin: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """A unit's rows, and the number of the first of them."""
    for batch in read_texts(directory, unit.key):
        yield begin, batch
        begin += batch.num_rows


def _write_batch(batch: pa.RecordBatch, splits: Ints, shards: ShardSet) -> None:
    for number, split in enumerate(SPLITS):
        chosen = np.flatnonzero(splits == number)
        if len(chosen):
            shards.write(split, _as_corpus(batch.take(pa.array(chosen))))


def _as_corpus(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A unit's rows in the columns of a corpus shard."""
    columns = {
        "id": pa.array(hex_ids(batch.column("hash")), pa.string()),
        "text": batch.column("text").view(pa.large_string()),
    }
    arrays = [columns[name] if name in columns else batch.column(name) for name in CORPUS_SCHEMA.names]
    return pa.record_batch(arrays, schema=CORPUS_SCHEMA)


def hex_ids(hashes: Any) -> list[str]:
    return [digest.hex() for digest in hashes.to_pylist()]


def write_dropped(
    units: Sequence[Unit],
    catalogue: Catalogue,
    directory: Path,
    decision: Decision,
    samples: Samples,
    spec: CorpusSpec,
) -> dict[str, int]:
    """Write every document that was left out, unit by unit: those of the cleaning first, then those of the last pass.

    Everything shown to people is offered to `samples` on the way. Returns rows by file name.
    """
    writer = ShardWriter(directory / DROPPED, DROPPED_SCHEMA, compression="zstd", rows_per_batch=1 << 14)
    for number, unit in enumerate(units):
        for batch in read_dropped(catalogue.texts.directory, unit.key):
            samples.offer_batch(batch)
            ids = pa.nulls(batch.num_rows, pa.string())
            rows = [batch.column(name) if name != "kept_id" else ids for name in DROPPED_SCHEMA.names]
            writer.write(pa.record_batch(rows, schema=DROPPED_SCHEMA))
        starts = catalogue.texts.starts
        here = np.arange(starts[number], starts[number + 1])
        gone = here[decision.reasons[here] != KEPT]
        if len(gone):
            writer.write(_left_out(gone, catalogue, decision, samples, spec))
    return {DROPPED: writer.close()}


def _left_out(
    numbers: Ints, catalogue: Catalogue, decision: Decision, samples: Samples, spec: CorpusSpec
) -> pa.RecordBatch:
    """Documents that cleaning kept and the last pass did not, in DROPPED_SCHEMA."""
    found: dict[str, list[Any]] = {name: [] for name in DROPPED_SCHEMA.names}
    for number, row in zip(numbers.tolist(), catalogue.texts.rows(numbers), strict=True):
        instead = int(decision.kept_id[number])
        is_like = instead >= 0
        told = {
            "id": row["hash"].hex(),
            "path": row["path"],
            "member": row["member"],
            "source_offset": row["source_offset"],
            "source_bytes": row["source_bytes"],
            "reason": decision.names[decision.reasons[number]],
            "value": f"{decision.similarity[number]:.6g}" if is_like else _value(row["scores"], spec),
            "kept_id": id_of(catalogue, instead) if is_like else None,
        }
        for name, value in told.items():
            found[name].append(value)
        samples.offer(str(told["reason"]), str(told["id"]), str(told["path"]), told["value"], row["text"])
    return pa.record_batch([pa.array(found[name], DROPPED_SCHEMA.field(name).type) for name in found], DROPPED_SCHEMA)


def _value(scores: str | None, spec: CorpusSpec) -> str | None:
    """What the rule measured that a document failed by its kept scores, where it failed one."""
    reason, value = judged(json.loads(scores), spec) if scores else ("", 0.0)
    return shown(value) if reason else None


def id_of(catalogue: Catalogue, number: int) -> str:
    """The id of a document by its number."""
    digest: str = catalogue.hashes[number].astype("<u8").tobytes().hex()
    return digest
