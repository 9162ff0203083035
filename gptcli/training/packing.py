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
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gptcli.artifacts.packing import PackedRow, packing_facts, rows_per_batch, schema_with
from gptcli.artifacts.shards import ShardWriter
from gptcli.artifacts.tokens import Bounds, TokenStream, document_bounds
from gptcli.errors import ArtifactError
from gptcli.training.bestfit import place_best_fit, write_places
from gptcli.training.concat import write_end_to_end
from gptcli.training.pack import Pack
from gptcli.training.rows import IGNORED


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
    segments = cut = 0
    for batch in FILLS[pack.how](bounds, pack.seq_len, pack.seed, at_once):
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


FILLS = {"bestfit": best_fit, "concat": end_to_end}


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


class RowsOfSegments(Protocol):
    """What an index is to `sequences`; artifacts.packing.PackingIndex is one."""

    @property
    def path(self) -> Path: ...

    @property
    def seq_len(self) -> int: ...

    @property
    def tokens(self) -> int:
        """Of the split that it was made from."""

    def __len__(self) -> int: ...

    def rows(self, numbers: Iterable[int]) -> Iterator[PackedRow]: ...


def sequences(
    stream: TokenStream, index: RowsOfSegments, numbers: Iterable[int], pad_id: int, bos_id: int | None
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
    rows, seq_len = list(index.rows(numbers)), index.seq_len
    shape = (len(rows), seq_len)
    if not rows:
        ids, narrow = np.zeros(shape, np.int64), np.zeros(shape, np.int32)
        return PackedSequences(ids, ids, narrow, narrow)
    starts = np.concatenate([row.starts for row in rows])
    lengths = np.concatenate([row.lengths for row in rows]).astype(np.int64)
    continues = np.concatenate([row.continues for row in rows])
    counts = np.array([len(row.starts) for row in rows])
    places, document_ids, positions = _laid_out(counts, lengths, seq_len)
    input_ids = np.full(shape, pad_id, np.int64)
    stream.read_runs(starts, lengths, input_ids.reshape(-1), places)
    targets = np.full(len(rows) * seq_len, IGNORED, np.int64)
    targets[:-1] = input_ids.reshape(-1)[1:]
    last = places + lengths - 1
    targets[last] = IGNORED
    following = np.flatnonzero(continues)
    stream.read_runs((starts + lengths)[following], np.ones(len(following), np.int64), targets, last[following])
    targets = targets.reshape(shape)
    targets[document_ids < 0] = IGNORED
    if bos_id is not None:
        targets[targets == bos_id] = IGNORED
    return PackedSequences(input_ids, targets, document_ids, positions)


def _laid_out(
    counts: Bounds, lengths: Bounds, seq_len: int
) -> tuple[Bounds, npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Where each segment begins among all places of the rows end to end, int64 [segments]; document_ids and positions,
    int32 [rows, seq_len]. `counts` int64 [rows]: segments of each row."""
    ends = np.cumsum(counts)
    tokens = np.add.reduceat(lengths, ends - counts)
    first_of_row = np.repeat(ends - counts, counts)
    numbers = np.arange(len(lengths)) - first_of_row
    # Padding is one more segment of its row: then the places of all are a plain running sum.
    sizes = np.insert(lengths, ends, seq_len - tokens)
    begins = np.cumsum(sizes) - sizes
    is_padding = np.zeros(len(sizes), np.bool_)
    is_padding[ends + np.arange(len(counts))] = True
    names = np.insert(numbers, ends, -1).astype(np.int32)
    shape = (len(counts), seq_len)
    document_ids = np.repeat(names, sizes).reshape(shape)
    positions = (np.arange(shape[0] * shape[1]) - np.repeat(begins, sizes)).astype(np.int32).reshape(shape)
    positions[document_ids < 0] = 0
    return begins[~is_padding], document_ids, positions
