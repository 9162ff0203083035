"""The rows that training reads, by number: windows of a split's stream here, packed rows in packed_rows.py.

Nothing here loads torch.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gptcli.artifacts.tokens import Bounds, TokenStream
from gptcli.errors import ArtifactError

IGNORED = -100  # training.loss.IGNORED, whose module loads torch

Ints = NDArray[np.int64]


class Rows(NamedTuple):
    """Some rows, arrays [rows, seq_len] of their own. input_ids int64; targets int64, IGNORED where no loss falls;
    where documents are masked starts int32, for each place where its document begins in the row (padding counts as one
    document), and positions int64, the place less that start, else None for both; tokens int64 [rows]: inputs of each
    row that are no padding."""

    input_ids: Ints
    targets: Ints
    starts: NDArray[np.int32] | None
    positions: Ints | None
    tokens: Ints


class TrainingRows(Protocol):
    """The samples of every epoch, `count` rows of `seq_len` tokens; those of epoch e are numbered from e·count."""

    @property
    def count(self) -> int: ...

    @property
    def seq_len(self) -> int: ...

    @property
    def left_out(self) -> int:
        """Tokens at the end of the split that no row has as inputs, the last target not counted."""

    def rows(self, numbers: Ints) -> Rows:
        """The rows of these numbers, in the order asked for."""

    def spans(self, number: int) -> Bounds:
        """What a row's inputs are of the split's stream, in their order: int64 [spans, 2], begin and end. Padding, if
        any, is behind them."""


GOLDEN = 0.618034  # its multiples spread most evenly over the circle


class StreamRows:
    """Windows of seq_len + 1 tokens of a stream that overlap by one, so that every target is there once an epoch.

    After the first epoch the windows begin elsewhere, for a text that is read several times to be seen in other
    contexts: then fewer than seq_len targets at the beginning are left out, and as many at the end are there twice.
    No loss falls where the target is `bos_id`. `bounds`: the documents' bounds, as artifacts.tokens.document_bounds
    gives them, where documents are masked. A mask keeps attention inside a document, and changes no target: behind an
    end of document a tokenizer without bos has the next document's first token. Raises ArtifactError for a stream
    shorter than one window.
    """

    def __init__(self, stream: TokenStream, seq_len: int, bos_id: int | None, bounds: Bounds | None = None) -> None:
        self.stream, self.seq_len, self.bos_id, self.bounds = stream, seq_len, bos_id, bounds
        self.count = (len(stream) - 1) // seq_len
        if self.count < 1:
            raise ArtifactError(
                f"the train split has {len(stream)} tokens, fewer than one sequence of seq_len={seq_len}",
                "use a smaller seq_len or more text",
            )
        self.left_out = len(stream) - 1 - self.count * seq_len

    def rows(self, numbers: Ints) -> Rows:
        begins = self._begins(numbers)
        size = self.seq_len + 1
        windows = np.empty((len(begins), size), np.int64)
        self.stream.read_runs(begins, np.full(len(begins), size), windows.reshape(-1), np.arange(len(begins)) * size)
        targets = windows[:, 1:].copy()
        if self.bos_id is not None:
            targets[targets == self.bos_id] = IGNORED
        starts = None if self.bounds is None else self._starts(self.bounds, begins)
        return Rows(
            np.ascontiguousarray(windows[:, :-1]),
            targets,
            starts,
            None if starts is None else positions_of(starts),
            np.full(len(begins), self.seq_len),
        )

    def spans(self, number: int) -> Bounds:
        begin = int(self._begins(np.array([number]))[0])
        return np.array([[begin, begin + self.seq_len]], np.int64)

    def _begins(self, numbers: Ints) -> Ints:
        epochs, places = np.divmod(np.asarray(numbers, np.int64), self.count)
        shift = np.floor(epochs * GOLDEN % 1.0 * self.seq_len).astype(np.int64)
        return np.minimum(places * self.seq_len + shift, len(self.stream) - 1 - self.seq_len)

    def _starts(self, bounds: Bounds, begins: Bounds) -> NDArray[np.int32]:
        """Where each place's document begins in its window; at 0 for the one that began before it."""
        first = np.searchsorted(bounds, begins, side="right")
        counts = np.searchsorted(bounds, begins + self.seq_len, side="left") - first
        number = np.arange(int(counts.sum())) + np.repeat(first - (np.cumsum(counts) - counts), counts)
        inside = bounds[number] - np.repeat(begins, counts)
        starts = np.zeros((len(begins), self.seq_len), np.int32)
        starts[np.repeat(np.arange(len(begins)), counts), inside] = inside
        return np.maximum.accumulate(starts, axis=1)


def positions_of(starts: NDArray[np.int32]) -> Ints:
    """Places counted from their document's start in the row, int64 like `starts` [rows, seq_len]."""
    positions: Ints = np.arange(starts.shape[1], dtype=np.int64) - starts
    return positions


def valid_targets(rows: Rows) -> Ints:
    """How many targets of each row carry loss, int64 [rows]."""
    counts: Ints = np.count_nonzero(rows.targets != IGNORED, axis=1)
    return counts


def document_parts(bounds: Bounds, spans: Bounds) -> list[tuple[int, int, int]]:
    """Which documents lie in some spans of the stream, in order: (number among the split's, begin, end), the tokens of
    it that the spans hold."""
    parts = []
    for begin, end in spans.tolist():
        number = int(np.searchsorted(bounds, begin, side="right")) - 1
        while begin < end:
            stop = min(int(bounds[number + 1]), end)
            if begin < stop:
                parts.append((number, begin, stop))
            begin, number = stop, number + 1
    return parts
