"""A split of a tokens artifact as one stream of ids, memory-mapped from its shards without a copy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptcli.artifacts.shards import open_shard, shard_paths
from gptcli.errors import ArtifactError


@dataclass(frozen=True)
class TokenStream:
    """The documents of one split in order, end to end.

    `pieces`: views into the shards (uint16 or uint32), `starts`: the position of each piece's first token in the
    stream (one more entry for the end), `text_bytes`: UTF-8 bytes of all documents' stored text, `documents`: their
    number.
    """

    pieces: tuple[NDArray[np.unsignedinteger], ...]
    starts: NDArray[np.int64]
    text_bytes: int
    documents: int

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
        pieces, text_bytes, documents = [], 0, 0
        for batch in _first_rows(paths, limit):
            pieces.append(batch.column("tokens").flatten().to_numpy(zero_copy_only=True))
            text_bytes += int(batch.column("bytes").to_numpy(zero_copy_only=True).sum())
            documents += batch.num_rows
        starts = np.zeros(len(pieces) + 1, np.int64)
        np.cumsum([len(piece) for piece in pieces], out=starts[1:])
        return TokenStream(tuple(pieces), starts, text_bytes, documents)

    @staticmethod
    def of(ids: NDArray[np.unsignedinteger], text_bytes: int, documents: int = 1) -> TokenStream:
        """A stream held in memory."""
        return TokenStream((ids,), np.array([0, len(ids)], np.int64), text_bytes, documents)

    def __len__(self) -> int:
        return int(self.starts[-1])

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
