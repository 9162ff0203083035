"""Words and shingles of a normalised text as 64-bit hashes, without a Python object for any word.

A text is folded (lowercased; accents, punctuation, symbols and controls removed; every digit a 0), its characters are
hashed by position with prefix sums modulo 2^64 (Karp and Rabin 1987), and a word's hash is a difference of two of
them. All constants come from SplitMix64, so hashes are the same in every process and on every machine.
"""

from __future__ import annotations

import functools
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

WORDS = 5  # in a shingle
_BLOCK = 1 << 18  # characters hashed at once: bounds memory, whatever the text's length
_GAMMA = np.uint64(0x9E3779B97F4A7C15)  # of SplitMix64, as the next two, and the shifts
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)
_BASE = 0xD1342543DE82EF95  # odd, so that it has an inverse modulo 2^64
_SPACE = 32

# Scripts that are written without spaces: each of their characters is a word.
_ALONE = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x4DBF),  # Han, extension A
    (0x4E00, 0x9FFF),  # Han
    (0xF900, 0xFAFF),  # Han, compatibility
    (0x20000, 0x3FFFF),  # Han, the supplementary planes
)

# Where characters that change may stand: not the Han, Hangul and private blocks, which would take most of the time.
_CHANGING = (
    (0, 0x3400),
    (0x4DC0, 0x4E00),
    (0xA000, 0xAC00),
    (0xD7A4, 0xE000),
    (0xF900, 0x20000),
    (0x2F800, 0x2FA20),
    (0xE0000, 0xE0200),
)


def mix(values: Hashes) -> Hashes:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014), a bijection; a new array."""
    mixed = values ^ (values >> _30)
    mixed *= _FIRST
    mixed ^= mixed >> _27
    mixed *= _SECOND
    mixed ^= mixed >> _31
    return mixed


@functools.cache
def constants(count: int, seed: int) -> Hashes:
    """`count` odd 64-bit numbers of a SplitMix64 stream; streams of different seeds (32 bits) do not overlap."""
    places = np.arange(1, count + 1, dtype=np.uint64) + np.uint64((seed << 32) % 2**64)
    return mix(places * _GAMMA) | np.uint64(1)


def folded(text: str) -> str:
    """The text as near-duplicates are compared: lowercased; accents, punctuation, symbols, controls removed; digits 0.

    Removed, not replaced by a space: "don't" is "dont". White space stays as it is, as " " each.
    """
    if text.isascii():
        return text.encode("ascii").translate(*_ascii_table()).decode("ascii")
    codes = _folding()[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")]
    kept: bytes = codes[codes != 0].astype("<u4", copy=False).tobytes()
    return kept.decode("utf-32-le", "surrogatepass")


def word_hashes(text: str) -> Hashes:
    """One 64-bit hash for each word of the folded text, in order: (words,) uint64.

    A word is what stands between white space; a character of a script that is written without spaces is one word.
    """
    parts = [_words_of_block(block) for block in _blocks(text)]
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype=np.uint64), *parts])


def shingle_hashes(text: str) -> Hashes:
    """The set of the text's 5-word shingles: sorted, unique (shingles,) uint64.

    A text of one to four words has one shingle, of them all; a text without words has none.
    """
    words = word_hashes(text)
    if len(words) == 0:
        return words
    length = len(words) - WORDS + 1
    factors = constants(WORDS, seed=5)
    if length < 1:
        return mix((words * factors[: len(words)]).sum(keepdims=True))
    total = words[:length] * factors[0]
    for place in range(1, WORDS):
        total += words[place : place + length] * factors[place]
    total = mix(total)
    total.sort()
    fresh = np.empty(length, dtype=bool)
    fresh[0] = True
    np.not_equal(total[1:], total[:-1], out=fresh[1:])
    return total if fresh.all() else total[fresh]


def _blocks(text: str) -> Iterator[str]:
    """The text in runs of at most `_BLOCK` characters, cut after a space where there is one."""
    begin = 0
    while len(text) - begin > _BLOCK:
        end = text.rfind(" ", begin, begin + _BLOCK) + 1 or begin + _BLOCK
        yield text[begin:end]
        begin = end
    if begin < len(text):
        yield text[begin:]


def _words_of_block(text: str) -> Hashes:
    text = folded(text)
    if text.isascii():
        codes: npt.NDArray[Any] = np.frombuffer(text.encode("ascii"), dtype=np.uint8)
        values = _ascii_values()[codes]
        begins, ends = _bounds(codes != _SPACE)
    else:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        values = mix(codes.astype(np.uint64) * _GAMMA)
        begins, ends = _bounds_with_single(codes)
    if not len(begins):
        return np.empty(0, dtype=np.uint64)
    powers, inverses = _powers()
    sums = np.zeros(len(codes) + 1, dtype=np.uint64)
    np.cumsum(values * powers[: len(codes)], out=sums[1:])
    return mix((sums[ends] - sums[begins]) * inverses[begins])


def _bounds(inside: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where runs of True begin and end."""
    padded = np.zeros(len(inside) + 2, dtype=bool)
    padded[1:-1] = inside
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    return edges[::2], edges[1::2]


def _bounds_with_single(codes: npt.NDArray[np.uint32]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where words begin and end, each character of a script without spaces being one by itself."""
    if codes.max() < _ALONE[0][0]:
        return _bounds(codes != _SPACE)
    alone = np.zeros(len(codes), dtype=bool)
    for low, high in _ALONE:
        alone |= (codes >= low) & (codes <= high)
    begins, ends = _bounds((codes != _SPACE) & ~alone)
    if alone.any():
        single = np.flatnonzero(alone)
        begins, ends = np.concatenate([begins, single]), np.concatenate([ends, single + 1])
        order = np.argsort(begins)  # begins are unique
        begins, ends = begins[order], ends[order]
    return begins, ends


@functools.cache
def _powers() -> tuple[Hashes, Hashes]:
    """The powers of the base and of its inverse, for every place in a block."""
    tables = []
    for base in (_BASE, pow(_BASE, -1, 2**64)):
        table = np.full(_BLOCK, base, dtype=np.uint64)
        table[0] = 1
        tables.append(np.cumprod(table, dtype=np.uint64))
    return tables[0], tables[1]


@functools.cache
def _ascii_values() -> Hashes:
    return mix(np.arange(128, dtype=np.uint64) * _GAMMA)


@functools.cache
def _ascii_table() -> tuple[bytes, bytes]:
    """For `bytes.translate`: what each byte becomes, and which are removed."""
    targets = [_fold(chr(code)) for code in range(128)]
    table = bytes(targets) + bytes(range(128, 256))
    return table, bytes(code for code in range(128) if targets[code] == 0)


@functools.cache
def _folding() -> npt.NDArray[np.uint32]:
    """For every code point what it becomes; 0: removed. 4.4 MB, made once a process."""
    table = np.arange(sys.maxunicode + 1, dtype=np.uint32)
    for begin, end in _CHANGING:
        table[begin:end] = [_fold(chr(code)) for code in range(begin, end)]
    return table


def _fold(character: str) -> int:
    """The code point that a character becomes: of its canonical decomposition, lowercased, the base; 0: removed.

    A character that decomposes into several letters (a Hangul syllable) stays as it is.
    """
    if character.isspace():
        return _SPACE
    parts = unicodedata.normalize("NFD", character.lower())
    bases = [part for part in parts if unicodedata.category(part) not in ("Mn", "Me")]
    if not bases:
        return 0
    kind = unicodedata.category(bases[0])
    if kind[0] in "PSC" and kind not in ("Cn", "Co"):
        return 0
    if kind == "Nd":
        return ord("0")
    return ord(bases[0]) if len(bases) == 1 else ord(character)
