"""Answers in words and numbers: normalised, extracted, compared."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
# What stands around an answer and is no part of it: quotes, brackets, marks that end sentences, Markdown's signs. No
# sign of arithmetic: -5 is not 5.
_AROUND = " \t\n\"'`*_“”‘’«»„()[]{}.,;:!?…。，！？、"


def plain(text: str) -> str:
    """Form NFKC, case folded, runs of blanks as one, and what stands around an answer (quotes, brackets, full stops and
    the like) taken off its ends; a text of nothing else keeps it."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return folded.strip(_AROUND) or folded


def squad(text: str) -> str:
    """As SQuAD's evaluation has it (Rajpurkar et al. 2016): lower case, ASCII punctuation and the articles a, an, the
    taken out, runs of blanks as one.

    A text of which nothing is left is given as `plain` has it, so that + is not -.
    """
    return _squad(text) or plain(text)


def _squad(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def untouched(text: str) -> str:
    """Without blanks at its ends, else as it stands."""
    return text.strip()


NORMAL_FORMS: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {"plain": plain, "squad": squad, "none": untouched},
)


def exact_match(text: str, answers: Sequence[str], normal: Callable[[str], str] = plain) -> bool:
    """Whether a text is one of the answers once both are normalised."""
    return normal(text) in {normal(answer) for answer in answers}


def token_f1(text: str, answer: str) -> float:
    """SQuAD's F1 of the words that both have (each as often as both), in its normal form, split at blanks.

    Where either has no words, 1.0 if neither has, else 0.0, as SQuAD 2.0 has it.
    """
    words, wanted = _squad(text).split(), _squad(answer).split()
    if not words or not wanted:
        return float(words == wanted)
    shared = sum((Counter(words) & Counter(wanted)).values())
    return 2 * shared / (len(words) + len(wanted))


def extracted(text: str, pattern: re.Pattern[str]) -> str | None:
    """The first match's first group that took part in it, the whole match where the pattern has none; None without a
    match."""
    match = pattern.search(text)
    if match is None:
        return None
    return next((group for group in match.groups() if group is not None), match[0])


@dataclass(frozen=True)
class Number:
    """A number as a text has it: exactly, and whether a percent sign stood behind it (then 50 for 50 %)."""

    value: Fraction
    percent: bool = False

    def equals(self, other: Number, tolerance: Fraction = Fraction(0)) -> bool:
        """Whether both are the same number, or differ by at most `tolerance`; where only one has a percent sign, 50 %
        is both 50 and 0.5."""
        if abs(self.value - other.value) <= tolerance:
            return True
        if self.percent == other.percent:
            return False
        mine, theirs = (each.value / 100 if each.percent else each.value for each in (self, other))
        return abs(mine - theirs) <= tolerance


_SIGN, _CURRENCY = "[-+\N{MINUS SIGN}]", "[$€£¥₹]"
_UNSIGNED = r"(?:\d{1,3}(?:,\d{3})+(?!\d|,\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3}(?!\d))?"
# A sign right behind a letter, a digit or a bracket is a hyphen or an operation (10-5 holds 10 and 5), one with a blank
# behind it a dash or a list's; a fraction is two whole numbers with one stroke between them (11/22/2026 is three
# numbers).
_NUMBER = re.compile(
    rf"(?<![\d.])(?P<sign>(?<![\w)\]]){_SIGN})?(?:{_CURRENCY}\s?)?(?P<second>(?<=[$€£¥₹]){_SIGN})?"
    rf"(?:(?:(?P<whole>\d+)[ ])?(?<!/)(?P<above>\d+)/(?P<below>\d+)(?![\d/]|\.\d)|(?P<plain>{_UNSIGNED}))"
    r"(?P<percent>\s?%)?"
)


def numbers_in(text: str) -> list[Number]:
    """Every number of a text, in order, in English notation: 1,234.5, -5 (− too), $5, 3/4, 1 3/4, 50 %, 1e-3.

    Commas part thousands only where all groups have three digits: `3,14` holds two numbers.
    """
    found = []
    for match in _NUMBER.finditer(text):
        found += _read(match)
    return found


def _read(match: re.Match[str]) -> list[Number]:
    sign = -1 if (match["sign"] or match["second"] or "").strip() in ("-", "\N{MINUS SIGN}") else 1
    percent = match["percent"] is not None
    if match["plain"] is not None:
        return [Number(sign * Fraction(Decimal(match["plain"].replace(",", ""))), percent)]
    whole, above, below = (Fraction(Decimal(match[name] or "0")) for name in ("whole", "above", "below"))
    if below:
        return [Number(sign * (whole + above / below), percent)]
    return [Number(sign * above), Number(below, percent)]  # no fraction: two numbers


def number_in(text: str, which: str = "last") -> Number | None:
    """The `first` or `last` number of a text; None where it has none."""
    found = numbers_in(text)
    return (found[0] if which == "first" else found[-1]) if found else None
