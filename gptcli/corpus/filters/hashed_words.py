"""A text as a vector: its words and pairs of words, hashed into buckets.

All words of a text are hashed at once: a running sum of byte · P^place (modulo 2^64, P odd) gives the polynomial hash
of any stretch of bytes as a difference of two sums, times P^-start.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

BITS = 18
BUCKETS = 1 << BITS
MOST_BYTES = 16_384  # of a text: its head tells enough, and a long text costs no more than a short one

_P = 0x9E3779B97F4A7C15  # odd, so it has an inverse modulo 2^64
_PAIR = np.uint64(0xC2B2AE3D27D4EB4F)
_MIX = np.uint64(0xFF51AFD7ED558CCD)  # murmur3's finaliser
_SPACE, _SIGN, _WORD = 0, 1, 2


def _byte_kinds() -> np.ndarray:
    """By byte: whitespace, a sign, or part of a word (letters, digits and all that is not ASCII)."""
    kinds = np.full(256, _SIGN, dtype=np.uint8)
    kinds[[byte for byte in range(256) if chr(byte).isspace() or byte < 0x20]] = _SPACE
    kinds[[byte for byte in range(128) if chr(byte).isalnum()]] = _WORD
    kinds[0x80:] = _WORD
    return kinds


_KINDS = _byte_kinds()
_UNSPACED = np.zeros(256, dtype=bool)
_UNSPACED[0xE3:0xEA] = True  # first bytes of U+3000 to U+9FFF: each of these characters is a word
_DIGITS = bytes.maketrans(b"123456789", b"000000000")


def features(text: str) -> tuple[np.ndarray, np.ndarray]:
    """(buckets, values): the distinct buckets in order and the square roots of the shares of their counts.

    So the vector's Euclidean length is 1 (Hellinger's map), and a word that is everywhere doesn't drown the rest. Lower
    case, digits as 0; both arrays are empty where there is no word.
    """
    data = text[:MOST_BYTES].lower().encode("utf-8", "surrogatepass")[:MOST_BYTES].translate(_DIGITS)
    words = _word_hashes(np.frombuffer(data, dtype=np.uint8))
    if not len(words):
        return np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
    grams = np.concatenate((words, words[:-1] * _PAIR + words[1:]))
    buckets = np.sort((_mixed(grams) >> np.uint64(64 - BITS)).astype(np.int32))
    first = np.flatnonzero(np.concatenate((np.ones(1, dtype=bool), buckets[1:] != buckets[:-1])))
    counts = np.diff(first, append=len(buckets))
    return buckets[first], np.sqrt(counts / len(buckets)).astype(np.float32)


def is_empty(text: str) -> bool:
    """Whether `features` finds no word in it."""
    return not any(sign > " " and not sign.isspace() for sign in text[:MOST_BYTES])


def _word_hashes(data: np.ndarray) -> np.ndarray:
    """A 64-bit hash of each run of word bytes and each run of signs, in order."""
    if not len(data):
        return np.zeros(0, dtype=np.uint64)
    kinds = _KINDS[data]
    begins = np.ones(len(data), dtype=bool)
    begins[1:] = (kinds[1:] != kinds[:-1]) | _UNSPACED[data[1:]]
    starts = np.flatnonzero(begins)
    ends = np.append(starts[1:], len(data))
    inside = kinds[starts] != _SPACE
    starts, ends = starts[inside], ends[inside]
    powers, inverses = _powers()
    sums = np.zeros(len(data) + 1, dtype=np.uint64)
    np.cumsum((data.astype(np.uint64) + np.uint64(1)) * powers[: len(data)], out=sums[1:])
    return _mixed((sums[ends] - sums[starts]) * inverses[starts])


def _mixed(values: np.ndarray) -> np.ndarray:
    """Spread what the low bits hold over all bits."""
    mixed: np.ndarray = (values ^ (values >> np.uint64(33))) * _MIX
    mixed ^= mixed >> np.uint64(29)
    return mixed


@lru_cache(maxsize=1)
def _powers() -> tuple[np.ndarray, np.ndarray]:
    """P^place and P^-place modulo 2^64 for every place of a text."""
    both = np.ones((2, MOST_BYTES), dtype=np.uint64)
    both[0, 1:] = np.uint64(_P)
    both[1, 1:] = np.uint64(pow(_P, -1, 1 << 64))
    both = np.cumprod(both, axis=1, dtype=np.uint64)
    return both[0], both[1]
