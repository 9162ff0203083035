"""A split of a tokens artifact as one stream of ids, memory-mapped from its shards without a copy; and where its
documents begin in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gptcli.artifacts.shards import open_shard, shard_paths
from gptcli.errors import ArtifactError

Bounds = NDArray[np.int64]


@dataclass(frozen=True)
class TokenStream:
    """The documents of one split in order, end to end.

    `pieces`: views into the shards (uint16 or uint32), `starts`: the position of each piece's first token in the
    stream (one more entry for the end), `text_bytes`: UTF-8 bytes of all documents' stored text, `documents`: their
    number; `offsets` and `sizes`, where they are known: of each piece the list offsets of its documents (one more entry
    for the end) and the bytes of each one's text, views into the shards too.
    """

    pieces: tuple[NDArray[np.unsignedinteger], ...]
    starts: NDArray[np.int64]
    text_bytes: int
    documents: int
    offsets: tuple[Bounds, ...] = ()
    sizes: tuple[NDArray[np.int64], ...] = ()

    @staticmethod
    def open(directory: Path, split: str, limit: int = 0) -> TokenStream:
        """The first `limit` documents (0: all) of the split `train`, `val` or `test` of tokens/NAME.

        Raises ArtifactError when the split has no shard.
        """
        paths = shard_paths(directory, split)
        if not paths:
            raise ArtifactError(
                f"{directory} has no {split} split",
                f"give the corpus a {split} share (corpus --set {split}_share=0.05)",
            )
        pieces, offsets, sizes = [], [], []
        for batch in _first_rows(paths, limit):
            column = batch.column("tokens")
            pieces.append(column.flatten().to_numpy(zero_copy_only=True))
            offsets.append(column.offsets.to_numpy(zero_copy_only=True))
            sizes.append(batch.column("bytes").to_numpy(zero_copy_only=True))
        starts = np.zeros(len(pieces) + 1, np.int64)
        np.cumsum([len(piece) for piece in pieces], out=starts[1:])
        text_bytes, documents = sum(int(each.sum()) for each in sizes), sum(map(len, sizes))
        return TokenStream(tuple(pieces), starts, text_bytes, documents, tuple(offsets), tuple(sizes))

    @staticmethod
    def of_documents(ids: Sequence[NDArray[np.uint32]], sizes: Sequence[int]) -> TokenStream:
        """Documents held in memory, each one's ids, and the UTF-8 bytes of its text."""
        whole = np.concatenate([np.empty(0, np.uint32), *ids])
        bounds = np.cumsum([0, *map(len, ids)], dtype=np.int64)
        place = np.array([0, len(whole)], np.int64)
        return TokenStream((whole,), place, sum(sizes), len(ids), (bounds,), (np.array(sizes, np.int64),))

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def bounds(self) -> Bounds:
        """Where the documents begin, int64 [documents + 1]; the last is the stream's end. They must be known."""
        parts = [offsets[1:] - offsets[0] + start for offsets, start in zip(self.offsets, self.starts, strict=False)]
        return np.concatenate([np.zeros(1, np.int64), *parts])

    @property
    def document_bytes(self) -> NDArray[np.int64]:
        """UTF-8 bytes of each document's stored text, int64 [documents]. They must be known."""
        return np.concatenate([np.zeros(0, np.int64), *self.sizes])

    def read(self, start: int, stop: int) -> NDArray[np.int64]:
        """The ids at positions start … stop-1 (cut at the stream's end), int64."""
        stop = min(stop, len(self))
        out = np.empty(max(stop - start, 0), np.int64)
        piece = int(np.searchsorted(self.starts, start, side="right")) - 1
        filled = 0
        while filled < len(out):
            offset = start + filled - int(self.starts[piece])
            part = self.pieces[piece][offset : offset + len(out) - filled]
            out[filled : filled + len(part)] = part
            filled += len(part)
            piece += 1
        return out

    def read_runs(self, starts: Bounds, lengths: Bounds, out: Bounds, places: Bounds) -> None:
        """Copy many runs of ids: those at starts[i] … starts[i]+lengths[i]-1 to out[places[i]:], all int64.

        Every run lies in the stream and every place in `out`.
        """
        pieces = np.searchsorted(self.starts, starts, side="right") - 1
        runs = zip(
            pieces.tolist(), (starts - self.starts[pieces]).tolist(), lengths.tolist(), places.tolist(), strict=True
        )
        for number, offset, length, place in runs:
            piece = self.pieces[number]
            if offset + length <= len(piece):
                out[place : place + length] = piece[offset : offset + length]
            else:  # across shards or record batches
                start = int(self.starts[number]) + offset
                out[place : place + length] = self.read(start, start + length)


def document_bounds(tokens: Path, split: str) -> Bounds:
    """Where the documents of a split begin in its token stream, int64 [documents + 1]; the last is the stream's end.

    Only the list offsets of the memory-mapped shards are read. Raises ArtifactError for a shard that is broken or
    holds no tokens.
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


def _first_rows(paths: list[Path], limit: int) -> Iterator[Any]:
    """Record batches of the first `limit` rows of the shards; 0: of all."""
    left = limit
    for path in paths:
        reader = open_shard(path)
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            if limit:
                batch = batch.slice(0, left)
                left -= batch.num_rows
            yield batch
            if limit and not left:
                return
