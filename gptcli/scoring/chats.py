"""Scoring of the assistant's tokens in chats, each chat alone with itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gptcli.scoring.language_modelling import TOP, LanguageModel, TokenScore, autocast, token_scores

RenderedChat = tuple[Sequence[int], Sequence[bool]]  # ids, and for each id whether it carries loss


def score_chats(
    model: LanguageModel,
    chats: Sequence[RenderedChat],
    *,
    batch_tokens: int,
    device: torch.device,
    dtype: torch.dtype,
    check: Callable[[], None] | None = None,
    advance: Callable[[int], None] | None = None,
) -> TokenScore:
    """Score the ids that carry loss, each given all of its chat before it.

    Chats of like length share a batch of about `batch_tokens` ids, padded on the right, where causal attention
    doesn't look. `check` is called before each batch and may raise; `advance` after it with its number of chats.
    Precision and reproducibility: see score_stream. The model is in eval mode meanwhile.
    """
    was_training = model.training
    model.train(False)
    nats: list[Tensor] = []
    counts: list[Tensor] = []
    try:
        with torch.inference_mode(), autocast(device, dtype):
            head = model.head_weight if dtype == torch.float32 else model.head_weight.to(dtype)
            for batch in _batches(chats, batch_tokens):
                if check is not None:
                    check()
                batch_nats, batch_counts = _score_batch(model, head, batch, device)
                nats.append(batch_nats)
                counts.append(batch_counts)
                if advance is not None:
                    advance(len(batch))
    finally:
        model.train(was_training)
    if not nats:
        return TokenScore()
    tokens, correct, correct_top5 = torch.stack([count.cpu() for count in counts]).sum(0).tolist()
    return TokenScore(math.fsum(torch.cat(nats).tolist()), tokens, correct, correct_top5)


def _batches(chats: Sequence[RenderedChat], batch_tokens: int) -> Iterator[list[RenderedChat]]:
    """The chats by length, longest first, so many together that padding and all stay below `batch_tokens`."""
    ordered = sorted((chat for chat in chats if any(chat[1][1:])), key=lambda chat: -len(chat[0]))
    start = 0
    while start < len(ordered):
        count = max(batch_tokens // len(ordered[start][0]), 1)
        yield ordered[start : start + count]
        start += count


def _score_batch(
    model: LanguageModel, head: Tensor, batch: list[RenderedChat], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Nats of every scored token (fp64, on the CPU), and tokens, correct, correct in the top five [3]."""
    longest = len(batch[0][0])
    ids = torch.stack([F.pad(torch.tensor(list(ids)), (0, longest - len(ids))) for ids, _ in batch]).to(device)
    loss = torch.stack([F.pad(torch.tensor(list(loss)), (0, longest - len(loss))) for _, loss in batch]).to(device)
    scored = loss[:, 1:]
    nats, ranks = token_scores(model.hidden(ids[:, :-1])[scored], head, ids[:, 1:][scored], model.softcap)
    counts = torch.stack([scored.sum(), (ranks == 0).sum(), (ranks < TOP).sum()])
    return nats.cpu().double(), counts
