"""Chat messages as token ids, rendered segment by segment, so that nothing a user writes becomes markup.

With chat markers a turn is ChatML: `<|im_start|>role\\ncontent<|im_end|>\\n`, the markers being control ids. A
tokenizer without them gets plain text, `Role:\\ncontent`, each turn closed by eos. Every segment is encoded alone: the
header that generation ends its prompt with is, token for token, the header seen in training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gptcli.errors import SpecError
from gptcli.records.chats import ROLES
from gptcli.tokenizer import TEMPLATE_FILE, TURN_END, TURN_START, Tokenizer

# What transformers' apply_chat_template renders. Its text is encoded with markers matched, so it gives encode_chat's
# ids as long as no message holds a marker's spelling or begins with a newline.
_BOS = "{{- bos_token }}"
_MARKED = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}\n"
)
_PLAIN = (
    "{%- for message in messages %}"
    "{{- message['role'] | capitalize + ':\\n' + message['content'] + eos_token }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- 'Assistant:\\n' }}{%- endif %}\n"
)
CHAT_TEMPLATE = _BOS + _MARKED  # of our own tokenizers


def chat_template(tokenizer: Tokenizer) -> str:
    """The content of chat_template.jinja for a model that learnt chats as `encode_chat` renders them.

    One that came with the tokenizer tells how another model learnt them.
    """
    return (_BOS if tokenizer.bos_id is not None else "") + (_MARKED if tokenizer.marker_ids else _PLAIN)


def encode_chat(
    tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = False
) -> tuple[list[int], list[bool]]:
    """Ids of a chat, and for each id whether it carries loss.

    Loss falls on the assistant's content and on the marker that ends its turn. The ids start with bos where the
    tokenizer has one; `add_generation_prompt` ends them with an assistant's header, for the model to go on from.
    Raises SpecError as `check_messages` does.
    """
    check_messages(messages)
    ids: list[int] = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    loss = [False] * len(ids)
    for message in messages:
        _extend(ids, loss, _header(tokenizer, message["role"]), False)
        spoken = message["role"] == "assistant"
        _extend(ids, loss, [*tokenizer.encode(message["content"]), tokenizer.eot_id], spoken)
        _extend(ids, loss, tokenizer.encode("\n") if tokenizer.marker_ids else [], False)
    if add_generation_prompt:
        _extend(ids, loss, _header(tokenizer, "assistant"), False)
    return ids, loss


def check_messages(messages: Sequence[Mapping[str, Any]]) -> None:
    """Raise SpecError unless `messages` is a non-empty list of {role, content} with known roles and text contents."""
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes) or not messages:
        raise SpecError("a chat needs a list of at least one message", 'write [{"role": "user", "content": "…"}]')
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping):
            raise SpecError(f"message {number} is no object", 'write {"role": "user", "content": "…"}')
        role = message.get("role")
        if role not in ROLES:
            raise SpecError(f"message {number} has role {role!r}", f"roles are {', '.join(ROLES)}")
        if not isinstance(message.get("content"), str):
            what = "no content" if message.get("content") is None else "content that is no text"
            raise SpecError(f"message {number} ({role}) has {what}", "content must be a string")


def _header(tokenizer: Tokenizer, role: str) -> list[int]:
    if tokenizer.marker_ids:
        return [tokenizer.marker_ids[TURN_START], *tokenizer.encode(f"{role}\n")]
    return tokenizer.encode(f"{role.capitalize()}:\n")


def _extend(ids: list[int], loss: list[bool], more: list[int], carries_loss: bool) -> None:
    ids.extend(more)
    loss.extend([carries_loss] * len(more))


__all__ = [
    "CHAT_TEMPLATE",
    "TEMPLATE_FILE",
    "TURN_END",
    "TURN_START",
    "chat_template",
    "check_messages",
    "encode_chat",
]
