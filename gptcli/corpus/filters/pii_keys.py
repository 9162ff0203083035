"""Spans of API keys, tokens and private keys, by the shapes that their makers publish."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gptcli.corpus.filters.pii_patterns import Span, apart

_ALONE = "(?<![A-Za-z0-9_-])"
_BEGIN = "-----BEGIN "
_MOST_BLOCK = 20_000  # characters of a private key: RSA of 16,384 bits has 13,000

# What a shape's every key holds (a text without it is passed over at once), the shape, and whether the tail must hold
# a digit and a letter, which words joined by dashes don't.
_SHAPES: tuple[tuple[tuple[str, ...], re.Pattern[str], bool], ...] = tuple(
    (marks, re.compile(_ALONE + shape), mixed)
    for marks, shape, mixed in (
        # AWS access key IDs, lasting and temporary: 20 signs of base 32
        (("AKIA", "ASIA"), r"(?:AKIA|ASIA)[A-Z2-7]{16}(?![A-Za-z0-9])", False),
        # GitHub: classic, OAuth, user-to-server, server-to-server, refresh; then fine-grained
        (("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"gh[pousr]_[A-Za-z0-9]{36,251}+(?![A-Za-z0-9])", False),
        (("github_pat_",), r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}(?![A-Za-z0-9])", False),
        # OpenAI and Anthropic
        (("sk-",), r"sk-(?:proj|svcacct|admin|ant-[a-z]{2,12}[0-9]{2}|or-v1)-[A-Za-z0-9_-]{20,300}+", True),
        (("sk-",), r"sk-[A-Za-z0-9]{32,64}+(?![A-Za-z0-9_-])", True),
        # Google
        (("AIza",), r"AIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])", False),
        # Slack
        (("xox",), r"xox[abeoprs]-[A-Za-z0-9-]{10,250}+", True),
        # Stripe: secret and restricted
        (("sk_live_", "rk_live_", "sk_test_", "rk_test_"), r"[sr]k_(?:live|test)_[A-Za-z0-9]{16,250}+", True),
        # JSON web tokens: two JSON objects and a signature, each base64url
        (
            ("eyJ",),
            r"eyJ[A-Za-z0-9_-]{8,8000}+\.eyJ[A-Za-z0-9_-]{8,8000}+\.[A-Za-z0-9_-]{16,2000}+",
            False,
        ),
    )
)


def keys(text: str) -> Iterator[Span]:
    """Keys of AWS, GitHub, OpenAI, Anthropic, Google, Slack and Stripe, JSON web tokens, and PEM private keys."""
    found = list(_blocks(text)) if _BEGIN in text else []
    for marks, shape, mixed in _SHAPES:
        if any(mark in text for mark in marks):
            found += [match.span() for match in shape.finditer(text) if not mixed or _is_mixed(match[0])]
    return apart(found)


def _is_mixed(key: str) -> bool:
    tail = key[-20:]
    return any(sign.isdigit() for sign in tail) and any(sign.isalpha() for sign in tail)


def _blocks(text: str) -> Iterator[Span]:
    """-----BEGIN … PRIVATE KEY----- to the END that belongs to it, armour and all."""
    start = text.find(_BEGIN)
    while start >= 0:
        after = start + len(_BEGIN)
        label, dashes, _ = text[after : after + 60].partition("-----")
        end = -1
        if dashes and "PRIVATE KEY" in label and label.replace(" ", "").isalnum():
            closing = f"-----END {label}-----"
            limit = text.find(_BEGIN, after)  # a block holds no other: no end is looked for twice
            end = text.find(closing, after, min(after + _MOST_BLOCK, len(text) if limit < 0 else limit))
        if end >= 0:
            yield start, end + len(closing)
            after = end + len(closing)
        start = text.find(_BEGIN, after)
