"""Packed rows as training reads them, from an index in tokens/NAME or from one made on the spot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from gptcli.artifacts.packing import PackedRow, rows_per_batch
from gptcli.artifacts.tokens import Bounds, TokenStream
from gptcli.errors import ArtifactError
from gptcli.training.packing import FILLS, RowsOfSegments, Segments, sequences
from gptcli.training.rows import Ints, Rows, positions_of


class PackedRows:
    """The rows of a packing index. Raises ArtifactError where it has none."""

    left_out = 0

    def __init__(
        self, stream: TokenStream, index: RowsOfSegments, pad_id: int, bos_id: int | None, masked: bool
    ) -> None:
        self.stream, self.index, self.pad_id, self.bos_id, self.masked = stream, index, pad_id, bos_id, masked
        self.count, self.seq_len = len(index), index.seq_len
        if self.count < 1:
            raise ArtifactError(f"{index.path}: the train split has no tokens", "use more text")

    def rows(self, numbers: Ints) -> Rows:
        made = sequences(self.stream, self.index, (numbers % self.count).tolist(), self.pad_id, self.bos_id)
        padded = made.document_ids < 0
        tokens = self.seq_len - np.count_nonzero(padded, axis=1)
        if not self.masked:
            return Rows(made.input_ids, made.targets, None, None, tokens)
        # Padding begins where the tokens end.
        starts = np.arange(self.seq_len, dtype=np.int32) - made.positions
        starts = np.where(padded, tokens[:, None].astype(np.int32), starts)
        return Rows(made.input_ids, made.targets, starts, positions_of(starts), tokens)

    def spans(self, number: int) -> Bounds:
        row = next(iter(self.index.rows([number % self.count])))
        return np.stack([row.starts, row.starts + row.lengths], axis=1).astype(np.int64)


class MadePacking:
    """An index held in memory, 13 bytes a segment and 8 a row: the same rows as the file of the same pack has.

    bounds: of the documents in the folder `path`; how, seq_len and seed as training.pack.Pack has them; `check`: called
    between blocks of rows, may raise StoppedError.
    """

    def __init__(
        self, path: Path, bounds: Bounds, how: str, seq_len: int, seed: int, check: Callable[[], None] = lambda: None
    ) -> None:
        self.path, self.seq_len, self.tokens = path, seq_len, int(bounds[-1])
        parts: list[Segments] = []
        for part in FILLS[how](bounds, seq_len, seed, rows_per_batch(seq_len)):
            parts.append(part)
            check()
        firsts = np.cumsum([0, *(len(part.starts) for part in parts)])
        ends = [part.ends[1:] + first for part, first in zip(parts, firsts, strict=False)]
        self._ends = np.concatenate([np.zeros(1, np.int64), *ends])
        self._segments = PackedRow(
            np.concatenate([np.zeros(0, np.int64), *(part.starts for part in parts)]),
            np.concatenate([np.zeros(0, np.int32), *(part.lengths for part in parts)]),
            np.concatenate([np.zeros(0, np.bool_), *(part.continues.view(np.bool_) for part in parts)]),
        )

    def __len__(self) -> int:
        """Rows."""
        return len(self._ends) - 1

    def rows(self, numbers: Iterable[int]) -> Iterator[PackedRow]:
        """The rows of these numbers, in the order asked for."""
        starts, lengths, continues = self._segments
        for number in numbers:
            begin, end = int(self._ends[number]), int(self._ends[number + 1])
            yield PackedRow(starts[begin:end], lengths[begin:end], continues[begin:end])
