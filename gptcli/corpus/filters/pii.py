"""What identifies persons, and keys that open their accounts, replaced by placeholders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from gptcli.corpus.filters.pii_keys import keys
from gptcli.corpus.filters.pii_numbers import cards, ibans, ips
from gptcli.corpus.filters.pii_patterns import Span, emails
from gptcli.corpus.filters.pii_phones import phones
from gptcli.corpus.filters.verdict import Filter
from gptcli.corpus.filters.view import View

Kind = Literal["key", "email", "iban", "card", "ip", "phone"]

# In this order: a key may hold an @, an IBAN or a card may hold what looks like a phone number.
_FINDERS: dict[Kind, Callable[[str], Iterator[Span]]] = {
    "key": keys,
    "email": emails,
    "iban": ibans,
    "card": cards,
    "ip": ips,
    "phone": phones,
}


def _as_list(given: object) -> object:
    return [given] if isinstance(given, str) else given


class PiiFilter(Filter):
    """Replace e-mail addresses, IP addresses, phone numbers, IBANs, payment cards and API keys by [EMAIL], [IP], ….

    What looks alike but isn't stays: checksums (IBAN, cards), numbering plans (IP, phone) and the signs around a find
    decide; see the finders for the exact forms. Names and postal addresses are not looked for. Time is linear in the
    length of the text, whatever it holds.
    """

    name: Literal["pii"] = "pii"
    kinds: Annotated[list[Kind], BeforeValidator(_as_list)] = Field(
        list(_FINDERS), min_length=1, description="what is replaced: email, ip, phone, iban, card, key"
    )

    def rewrite(self, view: View) -> tuple[str, dict[str, int]]:
        text, counts = view.text, dict[str, int]()
        for kind, find in _FINDERS.items():
            if kind in self.kinds:
                text, count = _replaced(text, find(text), f"[{kind.upper()}]")
                if count:
                    counts[kind] = count
        return text, counts


def _replaced(text: str, spans: Iterator[Span], placeholder: str) -> tuple[str, int]:
    """`text` with every span replaced, and their number; spans come in order and do not overlap."""
    parts: list[str] = []
    done = count = 0
    for start, end in spans:
        parts += (text[done:start], placeholder)
        done, count = end, count + 1
    return ("".join(parts) + text[done:], count) if count else (text, 0)
