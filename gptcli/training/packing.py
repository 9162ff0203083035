"""Rows of seq_len tokens filled with a split's documents: an index made once, which training reads.

Two ways, both with every token of every document exactly once:

`concat`   documents end to end, in an order drawn from the seed (PCG64, [seed]), cut wherever a row is full. Only the
           last row has padding.
`bestfit`  a document longer than a row is cut into pieces of seq_len tokens from its beginning, each a row of its own,
           and a remainder. Remainders and the shorter documents, the longest first, each go into the row with the
           least room that still takes them, or open a row (best-fit decreasing, as in "Fewer Truncations Improve
           Language Modeling", Ding et al. 2024, arXiv 2404.10830). So a document is cut only where it must be, and
           what room is left is padding. The seed breaks ties among pieces of one length, and draws the order of the
           segments in a row and of the rows; among rows with the same room, the one touched last is taken.

Where a row of `bestfit` begins: with the beginning of a document, if one begins in it at all. Else it holds nothing
but a later piece of a longer document, or such documents' remainders, and begins with one of these. No row begins
with a piece of a document that was cut anywhere but at a multiple of seq_len from its beginning.

What training makes of a row: its tokens are the inputs, and each token's target is the next token of the stream if
that belongs to the same document, also when it lies in another row. So the last token of a segment that was cut
predicts the first of the next, and cutting loses no target; the last token of a document has none. `sequences` does it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gptcli.artifacts.packing import PackedRow, PackingIndex, packing_facts, rows_per_batch, schema_with
from gptcli.artifacts.shards import ShardWriter, open_shard, shard_paths
from gptcli.artifacts.tokens import TokenStream
from gptcli.errors import ArtifactError
from gptcli.training.bestfit import place_best_fit, write_places
from gptcli.training.concat import write_end_to_end
from gptcli.training.pack import Pack

IGNORED = -100  # training.loss.IGNORED, whose module loads torch

Bounds = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PackingFigures:
    """What an index holds: `rows`; `segments` in them; `documents` that have tokens, and their `tokens`; `padding` in
    tokens; `documents_cut`, those in two rows or more."""

    rows: int
    segments: int
    documents: int
    tokens: int
    padding: int
    documents_cut: int

    @property
    def padding_share(self) -> float:
        """Padding among all places of all rows."""
        return self.padding / max(self.padding + self.tokens, 1)

    @property
    def documents_a_row(self) -> float:
        """Mean number of documents in a row, those of which it has a piece included."""
        return self.segments / max(self.rows, 1)

    def stats(self) -> dict[str, int | float]:
        """For a manifest's stats."""
        return {
            "rows": self.rows,
            "documents": self.documents,
            "tokens": self.tokens,
            "padding": self.padding,
            "padding_share": round(self.padding_share, 6),
            "documents_cut": self.documents_cut,
            "documents_a_row": round(self.documents_a_row, 4),
        }


class Segments(NamedTuple):
    """Segments of some rows: `ends` int32 [rows + 1], each row's first segment and the last one's end; starts int64,
    lengths int32, continues uint8 [segments] as artifacts.packing has them; `cut`: how many are the beginning of a
    document that goes on in another row."""

    ends: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int32]
    continues: npt.NDArray[np.uint8]
    cut: int


def write_packing(tokens: Path, split: str, pack: Pack, place: Path) -> PackingFigures:
    """Write the index of a split as the file `place`, from the token shards in the folder `tokens`.

    Only the list offsets of the memory-mapped shards are read. The same bytes for the same shards and pack. A split
    without documents gives an index without rows. Memory for N documents and R rows, beside some MB: 16 N bytes for
    `concat`; for `bestfit` 20 N + 8 R, and 8 for each row that isn't a single piece. Raises ArtifactError for a broken
    shard.
    """
    return write_rows(document_bounds(tokens, split), split, pack, place)


def write_rows(bounds: Bounds, split: str, pack: Pack, place: Path) -> PackingFigures:
    """`write_packing` for documents with these bounds, as `document_bounds` gives them."""
    documents, total = len(bounds) - 1, int(bounds[-1])
    facts = packing_facts(split, pack.how, pack.seq_len, pack.seed, documents, total)
    schema = schema_with(facts)
    at_once = rows_per_batch(pack.seq_len)
    writer = ShardWriter(place, schema, rows_per_batch=at_once)
    fill = best_fit if pack.how == "bestfit" else end_to_end
    segments = cut = 0
    for batch in fill(bounds, pack.seq_len, pack.seed, at_once):
        columns = [
            pa.ListArray.from_arrays(pa.array(batch.ends), pa.array(values))
            for values in (batch.starts, batch.lengths, batch.continues)
        ]
        writer.write(pa.RecordBatch.from_arrays(columns, schema=schema))
        segments += len(batch.starts)
        cut += batch.cut
    rows = writer.close()
    return PackingFigures(
        rows=rows,
        segments=segments,
        documents=int(np.count_nonzero(bounds[1:] > bounds[:-1])),
        tokens=total,
        padding=rows * pack.seq_len - total,
        documents_cut=cut,
    )


def document_bounds(tokens: Path, split: str) -> Bounds:
    """Where the documents of a split begin in its token stream, int64 [documents + 1]; the last is the stream's end.

    Raises ArtifactError for a shard that is broken or holds no tokens.
    """
    ends = [_document_ends(path) for path in shard_paths(tokens, split)]
    bounds = np.zeros(1 + sum(map(len, ends)), np.int64)
    row = 1
    for each in ends:
        np.add(each, bounds[row - 1], out=bounds[row : row + len(each)])
        row += len(each)
    return bounds


def _document_ends(path: Path) -> Bounds:
    """The ends of a shard's documents, counted from its beginning."""
    remedy = "build the artifact again with --force"
    reader = open_shard(path)
    parts, end = [np.zeros(0, np.int64)], 0
    for number in range(reader.num_record_batches):
        try:
            column = reader.get_batch(number).column("tokens")
            column.validate()
            offsets: Bounds = column.offsets.to_numpy(zero_copy_only=True)  # over the memory map
        except (OSError, KeyError, AttributeError, pa.ArrowException) as error:
            raise ArtifactError(f"{path} cannot be read: {error}", remedy) from error
        if column.null_count or (offsets[1:] < offsets[:-1]).any():
            raise ArtifactError(f"{path}: the lists of tokens in record batch {number} are damaged", remedy)
        parts.append(offsets[1:] + (end - offsets[0]))
        end = int(parts[-1][-1]) if len(parts[-1]) else end
    return np.concatenate(parts)


def best_fit(bounds: Bounds, seq_len: int, seed: int, at_once: int) -> Iterator[Segments]:
    """The rows of `bestfit`, `at_once` a time; `bounds` as `document_bounds` gives them."""
    generator = np.random.Generator(np.random.PCG64([seed]))
    places = place_best_fit(bounds, seq_len, generator)
    room = _Room(at_once, seq_len)
    for first in range(0, len(places.codes), at_once):
        some = places.codes[first : first + at_once]
        written = write_places(
            bounds, seq_len, some, places.counts, places.documents, places.state, room.ends, *room.columns
        )
        yield room.taken(len(some), *written)


def end_to_end(bounds: Bounds, seq_len: int, seed: int, at_once: int) -> Iterator[Segments]:
    """The rows of `concat`, `at_once` a time; `bounds` as `document_bounds` gives them."""
    order = np.random.Generator(np.random.PCG64([seed])).permutation(len(bounds) - 1)
    left = -(-int(bounds[-1]) // seq_len)
    room, state = _Room(at_once, seq_len), np.zeros(2, np.int64)
    while left:
        rows = min(left, at_once)
        written = write_end_to_end(bounds, seq_len, rows, order, state, room.ends, *room.columns)
        yield room.taken(rows, *written)
        left -= rows


class _Room:
    """Buffers for the segments of as many rows as are made at once, at worst one a token."""

    def __init__(self, rows: int, seq_len: int) -> None:
        self.ends = np.zeros(rows + 1, np.int32)
        slots = rows * seq_len
        self.columns = np.empty(slots, np.int64), np.empty(slots, np.int32), np.empty(slots, np.uint8)

    def taken(self, rows: int, segments: int, cut: int) -> Segments:
        """A copy of what was written."""
        starts, lengths, continues = self.columns
        return Segments(
            self.ends[: rows + 1].copy(),
            starts[:segments].copy(),
            lengths[:segments].copy(),
            continues[:segments].copy(),
            cut,
        )


@dataclass(frozen=True)
class PackedSequences:
    """Rows as a model takes them, each [rows, seq_len]: input_ids int64, the pad id where padding is; targets int64,
    IGNORED where no loss falls; document_ids int32, the documents of a row from 0, -1 for padding (two tokens see each
    other where they are equal); positions int32, from 0 in each segment, 0 for padding."""

    input_ids: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    document_ids: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int32]


def sequences(
    stream: TokenStream, index: PackingIndex, numbers: Iterable[int], pad_id: int, bos_id: int | None
) -> PackedSequences:
    """The rows of these numbers, in the order asked for.

    No loss falls on padding, on the last token of a document, and where the target is bos_id. Raises ArtifactError
    where the index was made from another stream than `stream`.
    """
    if index.tokens != len(stream):
        raise ArtifactError(
            f"{index.path} was made for {index.tokens} tokens, and the split has {len(stream)}",
            "build the artifact again with --force",
        )
    rows = list(index.rows(numbers))
    shape = (len(rows), index.seq_len)
    made = PackedSequences(
        input_ids=np.full(shape, pad_id, np.int64),
        targets=np.full(shape, IGNORED, np.int64),
        document_ids=np.full(shape, -1, np.int32),
        positions=np.zeros(shape, np.int32),
    )
    for place, row in enumerate(rows):
        _fill(made, place, stream, row)
    if bos_id is not None:
        made.targets[made.targets == bos_id] = IGNORED
    return made


def _fill(made: PackedSequences, place: int, stream: TokenStream, row: PackedRow) -> None:
    lengths = row.lengths.astype(np.int64)
    ends = np.cumsum(lengths)
    tokens = int(lengths.sum())
    made.document_ids[place, :tokens] = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    made.positions[place, :tokens] = np.arange(tokens) - np.repeat(ends - lengths, lengths)
    segments = zip((ends - lengths).tolist(), row.starts.tolist(), row.lengths.tolist(), row.continues, strict=True)
    for begin, start, length, continues in segments:
        ids = stream.read(start, start + length + int(continues))
        made.input_ids[place, begin : begin + length] = ids[:length]
        made.targets[place, begin : begin + len(ids) - 1] = ids[1:]
