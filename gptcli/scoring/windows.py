"""Two more rules by which a text is scored, beside the one of language_modelling.py; figures are named after them.

sliding: the stream of all documents in windows of seq_len inputs that begin every `stride` tokens. Of each window but
the first only the last `stride` targets count, so every token but the first is predicted once, from at least
seq_len - stride tokens before it where there are that many. Where stride is seq_len it is the one rule.

per_document: every document alone, from its bos (where the model has none, eos stands before it); nothing of another
document is ever seen. One that is longer than seq_len is read in consecutive windows that share one token, the last of
them begun earlier, so that it is full, and counting only what is new in it: the windows of EleutherAI lm-eval's rolling
log-likelihood.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gptcli.artifacts.tokens import Bounds, TokenStream
from gptcli.scoring.language_modelling import Collector, LanguageModel, computing, tell, token_figures


@dataclass(frozen=True)
class Windows:
    """A batch. `ids` [b, T+1]: inputs and, one place on, targets; `places` [b]: where in the stream each row's first
    target stands; `counted` [b, T]: which targets count."""

    ids: Tensor
    places: Bounds
    counted: Tensor


def score_windows(
    model: LanguageModel,
    batches: Iterable[Windows],
    collectors: Sequence[Collector],
    *,
    bos_id: int | None,
    device: torch.device,
    dtype: torch.dtype,
    check: Callable[[], None] | None = None,
    advance: Callable[[int], None] | None = None,
    share: tuple[int, int] = (0, 1),
) -> None:
    """Tell `collectors` of every counted target of the batches that is no bos.

    `share`, `check` and `dtype` as in score_stream; `advance` is called with the number of targets that counted, bos
    among them. The model is in eval mode meanwhile.
    """
    confident = any(collector.confident for collector in collectors)
    with computing(model, device, dtype) as head:
        for batch in islice(batches, share[0], None, share[1]):
            if check is not None:
                check()
            targets = batch.ids[:, 1:]
            counted = batch.counted if bos_id is None else batch.counted & (targets != bos_id)
            rows, columns = counted.nonzero(as_tuple=True)
            hidden = model.hidden(batch.ids[:, :-1].to(device))[rows.to(device), columns.to(device)]
            wanted = targets[rows, columns].to(device)
            places = batch.places[rows.numpy()] + columns.numpy()
            if len(places):
                tell(collectors, places, token_figures(hidden, head, wanted, model.softcap, confident))
            if advance is not None:
                advance(int(batch.counted.sum()))


def sliding_windows(stream: TokenStream, seq_len: int, stride: int, batch_size: int) -> Iterator[Windows]:
    """The windows of the rule `sliding`, `batch_size` at once; the short last one comes alone.

    `stride` is 1 … seq_len.
    """
    inputs = max(len(stream) - 1, 0)
    count = 0 if not inputs else 1 + max(-(-(inputs - seq_len) // stride), 0)
    full = count if inputs >= seq_len and (inputs - seq_len) % stride == 0 else count - 1
    for first in range(0, full, batch_size):
        number = min(batch_size, full - first)
        begin = first * stride
        ids = torch.from_numpy(stream.read(begin, begin + (number - 1) * stride + seq_len + 1))
        rows = ids.unfold(0, seq_len + 1, stride)
        counted = torch.zeros(number, seq_len, dtype=torch.bool)
        counted[:, seq_len - stride :] = True
        counted[: 1 if first == 0 else 0] = True
        yield Windows(rows, np.arange(number, dtype=np.int64) * stride + (begin + 1), counted)
    if 0 <= full < count:
        begin = full * stride
        ids = torch.from_numpy(stream.read(begin, len(stream)))[None]
        counted = torch.ones(1, ids.shape[1] - 1, dtype=torch.bool)
        if full:
            counted[:, : seq_len - stride] = False
        yield Windows(ids, np.array([begin + 1], np.int64), counted)


def document_windows(
    stream: TokenStream, seq_len: int, batch_tokens: int, bos_id: int | None, eos_id: int
) -> Iterator[Windows]:
    """The windows of the rule `per_document`, those of like length together, the longest first, in batches of about
    `batch_tokens`, padded on the right, where causal attention does not look."""
    spans = _document_spans(stream, seq_len, bos_id)
    order = np.lexsort((spans.starts, -spans.lengths))
    at = 0
    while at < len(order):
        rows = order[at : at + max(batch_tokens // int(spans.lengths[order[at]]), 1)]
        yield _padded(stream, spans, rows, eos_id if bos_id is None else bos_id)
        at += len(rows)


@dataclass(frozen=True)
class _Spans:
    """Of each window the place of its first target, its targets, how many of them, the last ones, are new, and whether
    a token has to be put before its first target, which has none of its document before it."""

    starts: Bounds
    lengths: Bounds
    new: Bounds
    bare: npt.NDArray[np.bool_]


def _document_spans(stream: TokenStream, seq_len: int, bos_id: int | None) -> _Spans:
    bounds = stream.bounds
    begins, ends = (each[bounds[:-1] < bounds[1:]] for each in (bounds[:-1], bounds[1:]))
    marked = np.zeros(len(begins), np.bool_)
    if bos_id is not None:  # a document's own bos is no target
        firsts = np.empty(len(begins), np.int64)
        stream.read_runs(begins, np.ones_like(begins), firsts, np.arange(len(begins), dtype=np.int64))
        marked = firsts == bos_id
    begins = begins + marked
    targets = ends - begins
    counts = -(-targets // seq_len)
    owners = np.repeat(np.arange(len(begins)), counts)
    done = (np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)) * seq_len
    new = np.minimum(targets[owners] - done, seq_len)
    starts = begins[owners] + np.maximum(done + new - seq_len, 0)
    lengths = begins[owners] + done + new - starts
    return _Spans(starts, lengths, new, (starts == begins[owners]) & ~marked[owners])


def _padded(stream: TokenStream, spans: _Spans, rows: Bounds, prefix: int) -> Windows:
    starts, lengths, new = (each[rows] for each in (spans.starts, spans.lengths, spans.new))
    bare = spans.bare[rows]
    width = int(lengths.max())
    ids = np.zeros((len(rows), width + 1), np.int64)
    ids[:, 0] = prefix
    places = np.arange(len(rows), dtype=np.int64) * (width + 1) + bare
    stream.read_runs(starts - 1 + bare, lengths + 1 - bare, ids.reshape(-1), places)
    steps = np.arange(width)
    counted = (steps >= (lengths - new)[:, None]) & (steps < lengths[:, None])
    return Windows(torch.from_numpy(ids), starts, torch.from_numpy(counted))
