"""Strings a user wants as one token each: which are allowed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gptcli.errors import SpecError

LONGEST_USER_TOKEN = 512  # characters

_RESERVED = {  # what the model writes spaces and its escapes with, and what its trainer never sees
    "\u2581": "stands for a space inside pieces",
    "\ue000": "marks an escape",
    "\0": "ends strings in the model's own tables",
    "\x1f": "parts words in the trainer",
    "\u2585": "stands for the unknown in the trainer",
}
_CONTROL = re.compile(r"<(unk|s|/s|pad|0x[0-9A-F]{2}|\|im_start\||\|im_end\||\|spare_\d+\|)>")


def check_user_tokens(tokens: Sequence[str]) -> None:
    """Raise SpecError, naming it, for a user token that is empty, doubled, too long, or holds what it must not."""
    for number, token in enumerate(tokens):
        fault = _fault(token)
        if not fault and token in tokens[:number]:
            fault = "is there twice"
        if fault:
            raise SpecError(f"user_tokens: {token[:80]!r} {fault}", "leave it out, or change it")


def _fault(token: str) -> str:
    if not token:
        return "is empty"
    if len(token) > LONGEST_USER_TOKEN:
        return f"has {len(token)} characters, more than {LONGEST_USER_TOKEN}"
    if any(character.isspace() for character in token):
        return "holds white space, where words begin"
    if any(0xD800 <= ord(character) < 0xE000 for character in token):
        return "holds a lone surrogate"
    if _CONTROL.fullmatch(token):
        return "is the spelling of a special token"
    for character, use in _RESERVED.items():
        if character in token:
            return f"holds U+{ord(character):04X}, which {use}"
    return ""
