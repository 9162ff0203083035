"""Chats made ready for learning and scoring: encoded, those too long left out, the held-out share set apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from gptcli.records.chats import Chat, held_out
from gptcli.scoring.chats import RenderedChat
from gptcli.templates import ROLES, encode_chat
from gptcli.tokenizer import Tokenizer

TOO_LONG = "longer_than_seq_len"
UNKNOWN_ROLE = "unknown_role"


@dataclass(frozen=True)
class RenderedChats:
    """Chats to learn from, chats held out, and what was left out, by reason."""

    train: list[RenderedChat]
    held_out: list[RenderedChat]
    left_out: dict[str, int]


def render_chats(chats: Iterable[Chat], tokenizer: Tokenizer, seq_len: int, val_share: float) -> RenderedChats:
    """Encode every chat and hold out those whose question falls into `val_share` by its content hash.

    A chat of more than seq_len inputs is left out, so that no answer is learned without its end.
    """
    train: list[RenderedChat] = []
    unseen: list[RenderedChat] = []
    left_out: Counter[str] = Counter()
    for chat in chats:
        if any(message.role not in ROLES for message in chat.messages):
            left_out[UNKNOWN_ROLE] += 1
            continue
        ids, loss = encode_chat(tokenizer, [vars(message) for message in chat.messages])
        if len(ids) > seq_len + 1:
            left_out[TOO_LONG] += 1
        else:
            (unseen if held_out(chat.question, val_share) else train).append((ids, loss))
    return RenderedChats(train, unseen, dict(sorted(left_out.items())))
