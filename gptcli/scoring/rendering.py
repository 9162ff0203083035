"""Chats made ready for learning and scoring: encoded, those too long left out, the held-out share set apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gptcli.errors import SpecError
from gptcli.records.chats import Chat, held_out
from gptcli.scoring.chats import RenderedChat
from gptcli.templates import encode_chat
from gptcli.tokenizer import Tokenizer

TOO_LONG = "longer_than_seq_len"


@dataclass(frozen=True)
class RenderedChats:
    """Chats to learn from, chats held out, and what was left out, by reason."""

    train: list[RenderedChat]
    held_out: list[RenderedChat]
    left_out: dict[str, int]


def render_chats(chats: Iterable[Chat], tokenizer: Tokenizer, seq_len: int, val_share: float) -> RenderedChats:
    """Encode every chat and hold out those whose question falls into `val_share` by its content hash.

    A chat of more than seq_len inputs is left out, so that no answer is learned without its end. Raises SpecError
    naming the shortest when all are.
    """
    train: list[RenderedChat] = []
    unseen: list[RenderedChat] = []
    too_long: list[tuple[int, str]] = []  # inputs, file:line
    for chat in chats:
        ids, loss = encode_chat(tokenizer, [vars(message) for message in chat.messages])
        if len(ids) > seq_len + 1:
            too_long.append((len(ids) - 1, chat.where))
        else:
            (unseen if held_out(chat.question, val_share) else train).append((ids, loss))
    if too_long and not (train or unseen):
        length, where = min(too_long)
        raise SpecError(
            f"every chat is longer than seq_len = {seq_len}; the shortest, {where}, has {length} tokens",
            "use a longer seq_len, or shorter chats",
        )
    return RenderedChats(train, unseen, {TOO_LONG: len(too_long)} if too_long else {})
