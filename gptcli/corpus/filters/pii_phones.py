"""Spans of phone numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gptcli.corpus.filters.pii_patterns import Span, apart, spans

_PLUS = re.compile(r"(\+)(?<![\w+/=-]\+)[1-9](?:[ .\-/()]{0,2}[0-9]){7,14}(?![\w]|[ .\-/()]{0,2}[0-9])")
_ZEROS = re.compile(r"(0)(?<![\w.,+-]0)0[1-9][0-9]{0,2}[ /(-][ (]?[0-9](?:[ .\-/()]{0,2}[0-9]){5,11}(?!\w)")
_AREA = re.compile(r"(\()(?<![\w(]\()[2-9][0-9]{2}\)[ -]?[2-9][0-9]{2}[-. ][0-9]{4}(?![\w]|[.-][0-9])")
_DASHED = re.compile(r"([2-9])(?<![\w.,+/-][2-9])[0-9]{2}([-.])[2-9][0-9]{2}\2[0-9]{4}(?![\w]|[.,-][0-9])")
_DASHED_ONE = re.compile(r"(1)(?<![\w.,+/-]1)([-.])[2-9][0-9]{2}\2[2-9][0-9]{2}\2[0-9]{4}(?![\w]|[.,-][0-9])")
_LABEL = re.compile(r"(?:tel|phone|fon|fax|mobile?|mobil|cell|call|whatsapp)\w*[\s.:]*\Z", re.IGNORECASE)
_FEWEST, _MOST = 8, 15  # digits with the country code; 15: ITU-T E.164
_BARE = 10  # fewest digits where nothing sets them in groups


def phones(text: str) -> Iterator[Span]:
    """Phone numbers with a country code, and those of the North American plan; conservatively.

    +CC with 8 to 15 digits in groups (10 where there are none); 00CC in groups behind a label such as "Tel.:";
    (NXX) NXX-XXXX, NXX-NXX-XXXX and NXX.NXX.XXXX, also with 1 in front. Other national forms are not told from numbers.
    """
    found: list[Span] = []
    if "+" in text:
        found += spans(text, _PLUS, _international)
    if "00" in text:
        found += spans(text, _ZEROS, _labelled)
    if "(" in text:
        found += spans(text, _AREA, re.Match.span)
    for pattern in (_DASHED_ONE, _DASHED):
        found += spans(text, pattern, re.Match.span)
    return apart(found)


def _international(match: re.Match[str]) -> Span | None:
    number = match[0][1:]
    digits = "".join(filter(str.isdigit, number))
    signs = "".join(sign for sign in number if not sign.isdigit())
    balanced = signs.count("(") == signs.count(")") <= 1
    if not _FEWEST <= len(digits) <= _MOST or digits.endswith("00000") or not balanced or signs == ".":
        return None
    if signs:
        return match.span()
    assigned = match.string[max(0, match.start() - 4) : match.start()].rstrip().endswith("=")  # a = +4294967296
    return None if assigned or len(digits) < _BARE else match.span()


def _labelled(match: re.Match[str]) -> Span | None:
    start = match.start()
    return match.span() if _LABEL.search(match.string[max(0, start - 24) : start]) else None
