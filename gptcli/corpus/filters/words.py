"""Words as arrays: what the rules ask of the words of a text, without a Python object for each of them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from gptcli.records.ngrams import mixed

_CODES = 0x40000  # above: no letter, number or space, only private use, tags and variation selectors
_BLOCK = 1 << 16  # characters split at a time, which bounds the arrays that have one row a character
_LONGEST = 1 << 20  # characters of a word
_UNDERSCORE, _POINT = ord("_"), ord(".")
_SPACES = re.compile(r"\s")

# The kind of a character, in the two lowest bits of its flags: words and signs never share a word.
_SPACE, _WORD, _SIGN = 0, 1, 2
LETTER, SUBSTANCE, DIGIT, APOSTROPHE, INNER, SINGLE = 4, 8, 16, 32, 64, 128

_UNKNOWN = 255  # no character has all flags
_PAGE = 256  # characters looked up at once

_MIX = np.uint64(0x9E3779B97F4A7C15)  # the step of SplitMix64 (Steele et al. 2014), also as an odd base of polynomials


@dataclass(frozen=True, eq=False)
class WordTable:
    """The words of one text in order, one row a word."""

    lengths: NDArray[np.int64]  # characters
    hashes: NDArray[np.uint64]  # equal for equal words; two different words share one by chance of 2^-64
    flags: NDArray[np.uint8]  # LETTER where the word holds one, SUBSTANCE where it holds more than punctuation

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """Characters up to and with each word, a 0 before them: [words + 1]."""
        ends = np.zeros(len(self.lengths) + 1, np.int64)
        np.cumsum(self.lengths, out=ends[1:])
        return ends

    def count(self, flag: int) -> int:
        """Words that have the flag."""
        return int(np.count_nonzero(self.flags & np.uint8(flag)))


def table_of_text(text: str) -> WordTable:
    """Split a text and describe its words; the splitting is that of `split`."""
    parts = []
    for block in _blocks(text):
        codes, flags = _codes_and_flags(block)
        parts.append(_described(codes, flags, *_bounds(codes, flags)))
    return _joined(parts)


def table_of_words(words: list[str]) -> WordTable:
    """Describe words that somebody else has split."""
    parts, some, size = [], [], 0
    for word in words:
        if word:
            some.append(word)
            size += len(word)
        if size >= _BLOCK - _BLOCK // 8:
            parts.append(_described_words(some))
            some, size = [], 0
    if some:
        parts.append(_described_words(some))
    return _joined(parts)


def _described_words(words: list[str]) -> WordTable:
    ends = np.fromiter(accumulate(map(len, words)), np.intp, len(words))
    starts = np.append(np.zeros(1, np.intp), ends[:-1])
    return _described(*_codes_and_flags("".join(words)), starts, ends)


def split(text: str) -> list[str]:
    """Runs of letters, digits and marks, with their inner signs as in 1,234.5 and 3:30, U.S and some_name; signs.

    An apostrophe between letters begins a word, as contracted endings stand apart in the Penn Treebank: "don", "'t".
    Brackets, quotes and most signs of ASCII stand alone, others in runs of the same sign, as ... and ----.
    A script without spaces gives runs as long as its clauses. A run of over a million characters is cut.
    """
    words: list[str] = []
    for block in _blocks(text):
        starts, ends = _bounds(*_codes_and_flags(block))
        words += [block[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    return words


def hash_of_word(word: str) -> np.uint64:
    """The hash that a word has in every table."""
    return np.uint64(table_of_words([word]).hashes[0])


def _blocks(text: str) -> Iterator[str]:
    """Parts of a text that begin and end at spaces, of about `_BLOCK` characters where there are any."""
    start = 0
    while len(text) - start > _BLOCK:
        end = max(text.rfind(" ", start, start + _BLOCK), text.rfind("\n", start, start + _BLOCK))
        if end <= start:  # one long run
            found = _SPACES.search(text, start + _BLOCK, start + _LONGEST)
            end = found.start() if found else min(start + _LONGEST, len(text))
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


@lru_cache(1)
def _tables() -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    """Flags and a hash for every character, `_UNKNOWN` and 0 before the first of its page is met; spaces hash to 0."""
    flags, hashes = np.full(_CODES, _UNKNOWN, np.uint8), np.zeros(_CODES, np.uint64)
    flags[-1:], hashes[-1:] = _SIGN | SUBSTANCE, _mixed(np.array([_CODES], np.uint64))  # all above it
    return flags, hashes


def _fill(begin: int) -> None:
    """Find out the flags and hashes of one page of characters."""
    flags, hashes = _tables()
    codes = range(begin, min(begin + _PAGE, _CODES - 1))
    page = np.fromiter(map(_flags, codes), np.uint8, len(codes))
    values = _mixed(np.arange(codes.start + 1, codes.stop + 1, dtype=np.uint64))
    values[page & 3 == _SPACE] = 0
    hashes[codes.start : codes.stop] = values
    flags[codes.start : codes.stop] = page


def _flags(code: int) -> int:
    character = chr(code)
    category = unicodedata.category(character)
    if character.isspace():
        return _SPACE
    if category[0] == "L":
        return _WORD | SUBSTANCE | LETTER
    if category[0] in "NM":
        return _WORD | SUBSTANCE | (DIGIT if category == "Nd" else 0)
    if category == "Cf":  # joiners and soft hyphens stand inside words
        return _WORD
    flags = _SIGN if category[0] == "P" or category == "Cc" or code < 0x80 else _SIGN | SUBSTANCE
    flags |= SINGLE if character in "#*<>{}()[]\"'&:;,!?`_" else 0
    flags |= APOSTROPHE if character in "'’" else 0
    return flags | (INNER if character in ".,:/=_" else 0)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return mixed(values * _MIX)


@lru_cache(1)
def _powers(size: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The base to the powers of 0 … size - 1, and its inverses, modulo 2^64."""
    powers = np.full(size, _MIX, np.uint64)
    inverses = np.full(size, np.uint64(pow(int(_MIX), -1, 1 << 64)), np.uint64)
    powers[0] = inverses[0] = 1
    return np.multiply.accumulate(powers), np.multiply.accumulate(inverses)


def _codes_and_flags(text: str) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.intp)
    table = _tables()[0]
    flags = table.take(codes, mode="clip")
    if flags.max(initial=0) == _UNKNOWN:
        for page in set((codes[flags == _UNKNOWN] // _PAGE).tolist()):
            _fill(page * _PAGE)
        flags = table.take(codes, mode="clip")
    return codes, flags


def _bounds(codes: NDArray[np.intp], flags: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where each word starts, and where it ends."""
    kinds = flags & np.uint8(3)
    filled = kinds != _SPACE
    starts, stops = np.zeros(len(kinds) + 1, np.bool_), np.zeros(len(kinds) + 1, np.bool_)
    starts[0], changes = True, starts[1:-1]
    np.not_equal(codes[1:], codes[:-1], out=changes)
    changes |= flags[1:] >= SINGLE
    changes &= kinds[1:] == _SIGN
    changes |= kinds[1:] != kinds[:-1]
    _join_inner_signs(starts, codes, flags)
    stops[1:], stops[-1] = starts[1:], True
    starts[:-1] &= filled
    stops[1:] &= filled
    return starts[:-1].nonzero()[0], stops.nonzero()[0]


def _join_inner_signs(starts: NDArray[np.bool_], codes: NDArray[np.intp], flags: NDArray[np.uint8]) -> None:
    """'ll of "you'll" is a word, and so are "1,234.5", "3:30", "1/2", "U.S" and "some_name"."""
    signs = (flags[1:-1] & np.uint8(APOSTROPHE | INNER)).nonzero()[0] + 1
    near = flags[signs - 1] & flags[signs + 1]
    between = (near & np.uint8(3)) == _WORD
    signs, near = signs[between], near[between]
    if not len(signs):
        return
    own = codes[signs]
    apostrophe = (flags[signs] & np.uint8(APOSTROPHE)).astype(np.bool_)
    starts[signs[apostrophe & (near & np.uint8(LETTER)).astype(np.bool_)] + 1] = False
    joined = (near & np.uint8(DIGIT)).astype(np.bool_) & ~apostrophe
    joined |= (own == _UNDERSCORE) | (own == _POINT)
    within = signs[joined]
    starts[within] = starts[within + 1] = False


def _described(
    codes: NDArray[np.intp], flags: NDArray[np.uint8], starts: NDArray[np.intp], ends: NDArray[np.intp]
) -> WordTable:
    """The table of one block; a word's hash is a polynomial of its characters, whatever stands before it."""
    if not len(starts):
        return _joined([])
    values = _tables()[1].take(codes, mode="clip")
    powers, inverses = _powers(_BLOCK) if len(codes) <= _BLOCK else _powers.__wrapped__(len(codes))
    values *= powers[: len(codes)]
    hashes = np.add.reduceat(values, starts)
    hashes *= inverses[starts]
    return WordTable(ends - starts, hashes, np.bitwise_or.reduceat(flags, starts))


def _joined(tables: list[WordTable]) -> WordTable:
    if len(tables) == 1:
        return tables[0]
    if not tables:
        return WordTable(np.zeros(0, np.int64), np.zeros(0, np.uint64), np.zeros(0, np.uint8))
    return WordTable(
        np.concatenate([table.lengths for table in tables]),
        np.concatenate([table.hashes for table in tables]),
        np.concatenate([table.flags for table in tables]),
    )
