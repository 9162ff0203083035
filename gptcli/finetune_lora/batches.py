"""Batches of chats, each a function of (seed, step)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gptcli.scoring.chats import RenderedChat
from gptcli.training.batches import Batch, sample_index
from gptcli.training.loss import IGNORED


class ChatBatches:
    """Chats in an order drawn anew for every epoch; those of like length share a micro-batch, so little is padding."""

    def __init__(self, chats: Sequence[RenderedChat], sequences: int, seed: int) -> None:
        self.chats, self.sequences, self.seed = chats, sequences, seed
        self.mean_tokens = sum(len(ids) - 1 for ids, _ in chats) / len(chats)  # inputs a chat

    def step(self, step: int, micro_batch_size: int) -> list[Batch]:
        """The micro-batches of one optimizer step, counted from 0."""
        first = step * self.sequences
        numbers = range(first, first + self.sequences)
        chosen = [self.chats[sample_index(self.seed, number, len(self.chats))] for number in numbers]
        chosen.sort(key=lambda chat: len(chat[0]))
        return [pad(chosen[start : start + micro_batch_size]) for start in range(0, len(chosen), micro_batch_size)]


def pad(chats: Sequence[RenderedChat]) -> Batch:
    """Inputs and targets filled up at the end to the longest chat; causal attention never looks at what is filled."""
    longest = max(len(ids) for ids, _ in chats)
    ids = torch.zeros(len(chats), longest, dtype=torch.int64)
    loss = torch.zeros(len(chats), longest, dtype=torch.bool)
    for row, (chat_ids, chat_loss) in enumerate(chats):
        ids[row, : len(chat_ids)] = torch.tensor(chat_ids)
        loss[row, : len(chat_loss)] = torch.tensor(chat_loss)
    targets = torch.where(loss, ids, IGNORED)[:, 1:].contiguous()
    return Batch(
        ids[:, :-1].contiguous(), targets, valid=int(loss[:, 1:].sum()), tokens=sum(len(ids) - 1 for ids, _ in chats)
    )
