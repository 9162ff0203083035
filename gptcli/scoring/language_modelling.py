"""Next-token scoring of a token stream: the one rule by which pretraining validates and eval measures.

The documents of a split in order, concatenated to s[0], s[1], …; windows of seq_len inputs s[i:i+seq_len] with
targets s[i+1:i+seq_len+1], i in steps of seq_len, the last window shorter. Neighbouring windows share one token, so
each token but the first is predicted exactly once. A target equal to bos_id carries no loss and is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from gptcli.artifacts.tokens import TokenStream
from gptcli.models.ops.native import bits, native

# fp32 logits held at once, whatever the vocabulary or the batch: 8 MiB stays in a CPU's cache, 256 MiB fills a GPU.
CPU_LOGITS = 1 << 21
GPU_LOGITS = 1 << 26
TOP = 5


class LanguageModel(Protocol):
    """What scoring asks of a model (models/llama.py has it)."""

    training: bool

    def hidden(self, input_ids: Tensor) -> Tensor:
        """Hidden states [B,T,H] of token ids [B,T]."""
        ...

    @property
    def head_weight(self) -> Tensor:
        """The output matrix [V,H]."""
        ...

    @property
    def softcap(self) -> float:
        """Logits are softcap·tanh(h·Wᵀ/softcap); 0: they are h·Wᵀ."""
        ...

    def train(self, mode: bool = True) -> Any: ...


class TokenFigures(NamedTuple):
    """Of N predicted tokens, each [N]: `nats` of negative log-likelihood (fp32), the `ranks` of their logits (0: the
    highest; exact below 5), and, where asked for, the model's `confidence`: the probability of its likeliest token."""

    nats: Tensor
    ranks: Tensor
    confidence: Tensor | None = None


class Collector(Protocol):
    """Takes note of every predicted token while a stream is scored."""

    confident: bool  # whether `add` wants the model's confidence

    def add(self, places: npt.NDArray[np.int64], figures: TokenFigures) -> None:
        """`places` [N]: where in the stream the predicted tokens stand; their figures, on the CPU."""
        ...


@dataclass(frozen=True)
class TokenScore:
    """The sum over predicted tokens: `nats` of negative log-likelihood, how many `tokens` were predicted, and how
    many of them ranked first (`correct`) and among the first five (`correct_top5`)."""

    nats: float = 0.0
    tokens: int = 0
    correct: int = 0
    correct_top5: int = 0

    def __add__(self, other: TokenScore) -> TokenScore:
        return TokenScore(
            self.nats + other.nats,
            self.tokens + other.tokens,
            self.correct + other.correct,
            self.correct_top5 + other.correct_top5,
        )

    @property
    def loss(self) -> float:
        """Mean nats per token; NaN where nothing was predicted."""
        return self.nats / self.tokens if self.tokens else math.nan

    @property
    def perplexity(self) -> float:
        """exp(loss); infinity where that exceeds a float."""
        return math.exp(self.loss) if not self.loss > 700 else math.inf

    @property
    def accuracy(self) -> float:
        """Share of tokens whose highest logit was theirs."""
        return self.correct / self.tokens if self.tokens else math.nan

    @property
    def top5_accuracy(self) -> float:
        """Share of tokens whose logit was among the five highest."""
        return self.correct_top5 / self.tokens if self.tokens else math.nan


def bits_per_byte(score: TokenScore, text_bytes: int) -> float:
    """Bits of text and end-of-document tokens over the UTF-8 bytes of the stored text; NaN for no bytes."""
    return score.nats / math.log(2) / text_bytes if text_bytes else math.nan


def count_windows(stream: TokenStream, seq_len: int) -> int:
    """How many windows of `seq_len` inputs the stream makes."""
    return max(math.ceil((len(stream) - 1) / seq_len), 0)


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Compute in `dtype` whatever the weights are kept in; fp32 leaves everything as it is."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)


def score_stream(
    model: LanguageModel,
    stream: TokenStream,
    *,
    seq_len: int,
    batch_size: int,
    bos_id: int | None,
    device: torch.device,
    dtype: torch.dtype,
    check: Callable[[], None] | None = None,
    advance: Callable[[int], None] | None = None,
    share: tuple[int, int] = (0, 1),
    collectors: Sequence[Collector] = (),
) -> TokenScore:
    """Score a stream by the module's rule; `share` (r, n): of its batches only the r-th of every n.

    `check` is called before each batch and may raise; `advance` is called after it with the number of inputs done;
    `collectors` are told of each token. Weights stay in their own dtype, arithmetic is done in `dtype`, the
    log-sum-exp in fp32; windows are summed in fp64 and their sums added exactly, so batch_size moves the figures by no
    more than the noise of the matrix products. The model is in eval mode meanwhile.
    """
    nats: list[Tensor] = []
    counts: list[Tensor] = []
    confident = any(collector.confident for collector in collectors)
    with computing(model, device, dtype) as head:
        for start, rows in islice(_batches(stream, seq_len, batch_size), share[0], None, share[1]):
            if check is not None:
                check()
            ids = rows.to(device)
            targets = ids[:, 1:]
            figures = token_figures(
                model.hidden(ids[:, :-1]).flatten(0, 1), head, targets.flatten(), model.softcap, confident
            )
            counted = torch.ones_like(targets, dtype=torch.bool) if bos_id is None else targets != bos_id
            window_nats, window_counts = _summed(figures, counted)
            nats.append(window_nats)
            counts.append(window_counts)
            if collectors:
                kept = counted.flatten().cpu()
                tell(collectors, np.flatnonzero(kept.numpy()) + (start + 1), figures, kept)
            if advance is not None:
                advance(targets.numel())
    if not nats:
        return TokenScore()
    tokens, correct, correct_top5 = torch.stack([count.cpu() for count in counts]).sum(0).tolist()
    return TokenScore(math.fsum(torch.cat([value.cpu() for value in nats]).tolist()), tokens, correct, correct_top5)


@contextmanager
def computing(model: LanguageModel, device: torch.device, dtype: torch.dtype) -> Iterator[Tensor]:
    """Evaluation mode, no gradients, arithmetic in `dtype`; gives the output matrix in it."""
    was_training = model.training
    model.train(False)
    try:
        with torch.inference_mode(), autocast(device, dtype):
            yield model.head_weight if dtype == torch.float32 else model.head_weight.to(dtype)
    finally:
        model.train(was_training)


def tell(
    collectors: Sequence[Collector], places: npt.NDArray[np.int64], figures: TokenFigures, kept: Tensor | None = None
) -> None:
    """Hand figures over to collectors, those that are `kept` alone (a mask on the CPU)."""
    parts = [None if part is None else part.cpu() if kept is None else part.cpu()[kept] for part in figures]
    assert parts[0] is not None and parts[1] is not None
    for collector in collectors:
        collector.add(places, TokenFigures(parts[0], parts[1], parts[2]))


def _batches(stream: TokenStream, seq_len: int, batch_size: int) -> Iterator[tuple[int, Tensor]]:
    """Batches of windows with their last target, [b, seq_len + 1] int64, and where in the stream they begin; the
    short last window comes alone."""
    full = max(len(stream) - 1, 0) // seq_len
    for first in range(0, full, batch_size):
        count = min(batch_size, full - first)
        ids = torch.from_numpy(stream.read(first * seq_len, (first + count) * seq_len + 1))
        yield first * seq_len, ids.unfold(0, seq_len + 1, seq_len)
    if full < count_windows(stream, seq_len):
        yield full * seq_len, torch.from_numpy(stream.read(full * seq_len, len(stream)))[None]


def _summed(figures: TokenFigures, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Nats of each window [B] (fp64), and tokens, correct, correct in the top five [3] of the batch, of those targets
    [B,T] that are counted."""
    nats = torch.where(counted, figures.nats.view_as(counted), 0.0)
    ranks = torch.where(counted, figures.ranks.view_as(counted), TOP)
    counts = torch.stack([counted.sum(), (ranks == 0).sum(), (ranks < TOP).sum()])
    if nats.device.type == "mps":  # Metal has no fp64
        nats = nats.cpu()
    return nats.double().sum(1), counts


def token_scores(hidden: Tensor, head: Tensor, targets: Tensor, softcap: float = 0.0) -> tuple[Tensor, Tensor]:
    """`nats` and `ranks` of token_figures."""
    return token_figures(hidden, head, targets, softcap)[:2]


def token_figures(
    hidden: Tensor, head: Tensor, targets: Tensor, softcap: float = 0.0, confident: bool = False
) -> TokenFigures:
    """What the model makes of each target: `hidden` [N,H], `head` [V,H], `targets` [N]; `softcap` as the model has it.

    Logits are made for a few rows at a time, so [N,V] is never held whole. Equal logits rank by token id, as argmax
    takes the first. `confident`: with the model's confidence.
    """
    rows = max((CPU_LOGITS if hidden.device.type == "cpu" else GPU_LOGITS) // head.shape[0], 1)
    parts = [
        _chunk_figures(F.linear(part.to(head.dtype), head), wanted, softcap, confident)
        for part, wanted in zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)
    ]
    confidence = [part.confidence for part in parts if part.confidence is not None]
    return TokenFigures(
        torch.cat([part.nats for part in parts]),
        torch.cat([part.ranks for part in parts]),
        torch.cat(confidence) if confident else None,
    )


def _chunk_figures(raw: Tensor, targets: Tensor, softcap: float, confident: bool) -> TokenFigures:
    if native(raw):
        return _native_figures(raw, targets, softcap)
    logits = raw.float()
    if softcap:
        logits = logits.div_(softcap).tanh_().mul_(softcap)
    nats = F.cross_entropy(logits, targets, reduction="none")
    own = logits.gather(1, targets[:, None])
    # log p(likeliest) is the target's plus how far its logit lies below the highest: no second pass of exponentials.
    confidence = (logits.amax(1) - own[:, 0] - nats).exp_().clamp_(max=1.0) if confident else None
    # Counted in fp32 (exact below 2^24): several times faster on a CPU than summing booleans.
    ranks = (logits - own).gt_(0).sum(1).long()
    near = (ranks < TOP).nonzero()[:, 0]  # ties matter here alone
    ids = torch.arange(logits.shape[1], device=logits.device)
    ties = (logits[near] == own[near]) & (ids < targets[near, None])
    return TokenFigures(nats, ranks.index_add(0, near, ties.sum(1)), confidence)


def _native_figures(logits: Tensor, targets: Tensor, softcap: float) -> TokenFigures:
    from gptcli.scoring import score_loops

    nats, confidence = (torch.empty(len(targets), dtype=torch.float32) for _ in range(2))
    ranks = torch.empty(len(targets), dtype=torch.int64)
    outputs = nats.numpy(), ranks.numpy(), confidence.numpy()
    score_loops.score(bits(logits), targets.contiguous().numpy(), np.float32(softcap), *outputs)
    return TokenFigures(nats, ranks, confidence)
