"""Hashes of the words and word n-grams of a text: one definition for what a corpus stores, compares and looks up.

A gram's words are compared as in Brown et al. 2020, appendix C (lowercased, delimited by white space, without
punctuation), and also without accents and with every digit as 0: "Don't" and "don’t" are `dont`, 1,024 is `0000`. A
character of a script that is written without spaces is a word by itself. Hashes depend on the text alone.
"""

from __future__ import annotations

import functools
import hashlib
import re
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint32]
Numbers = TypeVar("Numbers", bound=np.generic)

NGRAM_WORDS = 13  # of the n-grams a corpus stores (Brown et al. 2020: at most 13)

_BLOCK = 1 << 17  # characters folded at once: what is made of them stays in the processor's cache
_LONG = 64  # bytes: longer words are hashed one by one
_BOUNDARY = "\0"  # between two texts hashed together; inside a text it is replaced by another control character
_BREAK = r"[\s\u3041-\u3096\u30a1-\u30fa\u3400-\u4dbf\u4e00-\u9fff]"  # before these no word goes on
_SPACE = ord(" ")
_ALONE, _REMOVED = 1 << 31, 1 << 30  # in the table of foldings: this character is a word; nothing is left of it
_PAGE = 256  # characters whose foldings are found at once, when one of them is first met
_STEP, _BASE, _SHIFT = np.uint64(0xD6E8FEB86659FD93), 0xA24BAED4963EE407, np.uint64(32)  # odd, with mixed bits
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))
_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_MASKS = np.array([(1 << 8 * size) - 1 for size in range(9)], dtype=np.uint64)  # of a word's last bytes

# Scripts without spaces between words: Thai and Lao, Burmese, Khmer, Kana, Han (with its extensions).
_UNSPACED = (
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3005, 0x3007),
    (0x3040, 0x30FF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
# Letters that stay as they are, in blocks so large that finding it out takes time: Han, Hangul, private use, Han.
_UNCHANGED = (
    (0x3400, 0x4DC0, _ALONE),
    (0x4E00, 0xA000, _ALONE),
    (0xAC00, 0xD7A4, 0),
    (0xE000, 0xF900, 0),
    (0x20000, 0x2F800, _ALONE),
)


def word_hashes(text: str) -> Hashes:
    """One 64-bit hash for each word of the text, in order: (words,) uint64."""
    return _words(text.replace(_BOUNDARY, "\1"))


def folded(texts: Sequence[str]) -> list[bytes]:
    """Of each text the words themselves, as they are compared: UTF-8, with a space or more between them."""
    text = _BOUNDARY.join(text.replace(_BOUNDARY, "\1") for text in texts)
    data = b"".join(_folded_block(text[begin:end]) for begin, end in _blocks(text))
    return data.split(bytes([_fold(ord(_BOUNDARY))])) if len(texts) else []


def word_spans(text: str) -> Places:
    """Where each word stands in the text: (words, 2) int64, its characters [start, end)."""
    text = text.replace(_BOUNDARY, "\1")
    found = [_spans(text[begin:end]) + begin for begin, end in _blocks(text)]
    return np.concatenate([np.empty((0, 2), dtype=np.int64), *found])


def combined(words: Hashes, count: int) -> Hashes:
    """The hashes of all runs of `count` words, given their words' hashes: (words - count + 1 or 0,) uint64."""
    if len(words) < count:
        return np.empty(0, dtype=np.uint64)
    # Windows of 1, 2, 4 … words, each made of two of the last; those that `count` is the sum of are strung together.
    window, size, told, total = words, 1, 0, None
    while True:
        if count & size:
            rest = window[: len(words) - count + 1] if total is None else window[told : told + len(total)]
            total = rest if total is None else total * _power(size) + rest
            told += size
        if 2 * size > count:
            break
        window = window[:-size] * _power(size) + window[size:]
        size *= 2
    assert total is not None  # count is at least 1
    return mixed(total)


def ngram_hashes(text: str, words: int = NGRAM_WORDS) -> Hashes:
    """One 64-bit hash for each run of `words` words, by the word it starts with: (words of the text - words + 1,)."""
    return combined(word_hashes(text), words)


def ngram_spans(text: str, words: int = NGRAM_WORDS) -> tuple[Hashes, Places]:
    """The hashes of `ngram_hashes`, and the characters [start, end) of each n-gram in the text: (n-grams, 2)."""
    hashes, spans = ngram_hashes(text, words), word_spans(text)
    return hashes, np.column_stack([spans[: len(hashes), 0], spans[words - 1 :, 1]])


def words_of(texts: Sequence[str]) -> tuple[Hashes, Places]:
    """The word hashes of many texts, one text after the other, and where each begins: (texts + 1,) int64.

    Many short texts are hashed faster together than one by one.
    """
    hashes = _words(f" {_BOUNDARY} ".join(text.replace(_BOUNDARY, "\1") for text in texts))
    is_boundary = hashes == _boundary()
    ends = np.flatnonzero(is_boundary) - np.arange(max(len(texts) - 1, 0))
    hashes = hashes[~is_boundary]
    return hashes, np.concatenate([[0], ends, [len(hashes)] if len(texts) else []]).astype(np.int64)


def ngram_hashes_of(texts: Sequence[str], words: int = NGRAM_WORDS) -> Hashes:
    """The n-gram hashes of many texts, one text after the other; none spans two of them."""
    hashes, begins = words_of(texts)
    return combined(hashes, words)[starts_within(begins, words)]


def starts_within(begins: Places, count: int) -> npt.NDArray[np.bool_]:
    """Which runs of `count` words (those of `combined`) stay within one text; begins: see `words_of`."""
    within = np.ones(int(begins[-1]), dtype=bool)
    for place in range(1, count):
        starts = begins[1:] - place
        within[starts[starts >= begins[:-1]]] = False
    return within[: max(len(within) - count + 1, 0)]


def sorted_unique(parts: Sequence[Hashes], in_runs: bool = False) -> Hashes:
    """The union of hashes, ascending; in_runs: each part is so already, and merging them is faster than sorting.

    numpy's own `unique` goes through a hash table, which takes five times as long for random numbers.
    """
    values = np.concatenate([np.empty(0, dtype=np.uint64), *parts])
    values.sort(kind="stable" if in_runs else "quicksort")
    return distinct(values)


def firsts(ordered: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which elements of a sorted array differ from the one before them."""
    first = np.empty(len(ordered), dtype=bool)
    first[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return first


def distinct(ordered: npt.NDArray[Numbers]) -> npt.NDArray[Numbers]:
    """The values of a sorted array, each once; the array itself where none is there twice."""
    first = firsts(ordered)
    return ordered if first.all() else ordered[first]


def mixed(values: Hashes) -> Hashes:
    """A bijection that makes every bit depend on every other (the finaliser of SplitMix64, Steele et al. 2014)."""
    result = values ^ (values >> _SHIFTS[0])
    result *= _FACTORS[0]
    result ^= result >> _SHIFTS[1]
    result *= _FACTORS[1]
    result ^= result >> _SHIFTS[2]
    return result


@functools.cache
def _power(exponent: int) -> np.uint64:
    return np.uint64(pow(_BASE, exponent, 1 << 64))


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Where the text is cut into runs of about `_BLOCK` characters, each but the last before a `_BREAK`."""
    begin = 0
    while begin < len(text):
        cut = _break().search(text, begin + _BLOCK) if len(text) - begin > _BLOCK else None
        end = cut.start() if cut else len(text)
        yield begin, end
        begin = end


@functools.cache
def _break() -> re.Pattern[str]:
    return re.compile(_BREAK)  # it takes milliseconds, and most texts are shorter than a block


def _words(text: str) -> Hashes:
    """As `word_hashes`; the boundary is a word of its own."""
    if len(text) <= _BLOCK:
        return _hashes_of_block(text)
    return np.concatenate([_hashes_of_block(text[begin:end]) for begin, end in _blocks(text)])


def _folded_block(text: str) -> bytes:
    if text.isascii():
        return text.encode("ascii").translate(*_ascii_table())
    codes = _folded_codes(text)
    codes, _ = _spaced(codes[codes != _REMOVED])
    if codes.max(initial=0) < 0x80:  # as of most languages of Latin script
        return codes.astype(np.uint8).tobytes()
    return codes.tobytes().decode("utf-32-le").encode()


def _hashes_of_block(text: str) -> Hashes:
    data = _folded_block(text)
    starts, ends = _bounds(np.frombuffer(data, dtype=np.uint8))
    return _hashed(data, starts, ends - starts)


def _spans(text: str) -> Places:
    """The slow way to the same words, which keeps their places."""
    codes = _folded_codes(text)
    kept = np.flatnonzero(codes != _REMOVED)
    codes, counts = _spaced(codes[kept])
    places = np.repeat(kept, counts)
    starts, ends = _bounds(codes)
    return np.column_stack([places[starts], places[ends - 1] + 1])


def _bounds(codes: npt.NDArray[Any]) -> tuple[Places, Places]:
    """Where the words of a folded text start and end: what stands between spaces."""
    inside = np.zeros(len(codes) + 2, dtype=bool)
    np.not_equal(codes, _SPACE, out=inside[1:-1])
    edges = (inside[1:] != inside[:-1]).nonzero()[0]
    return edges[::2], edges[1::2]


def _hashed(data: bytes, starts: Places, sizes: Places) -> Hashes:
    """The hashes of words in UTF-8: eight bytes at a time, of all words that have so many."""
    padded = data + bytes(8)
    eights: Hashes = np.ndarray(len(data) + 1, dtype="<u8", buffer=padded, strides=(1,))  # those from each byte on
    hashes = _stirred(eights[starts] & _MASKS.take(sizes, mode="clip"))
    todo, done = (sizes > 8).nonzero()[0], 8
    while len(todo) and done < _LONG:
        left = sizes.take(todo) - done
        more = eights[starts.take(todo) + done] & _MASKS.take(left, mode="clip")
        hashes[todo] = _stirred(more ^ hashes.take(todo))
        todo, done = todo[left > 8], done + 8
    for word in todo.tolist():
        rest = data[starts[word] + done : starts[word] + sizes[word]]
        hashes[word] ^= np.uint64(int.from_bytes(hashlib.blake2b(rest, digest_size=8).digest(), "little"))
    return hashes


def _stirred(values: Hashes) -> Hashes:
    """A bijection, in place: enough mixing that the sums of `combined` do not cancel."""
    values *= _STEP
    values ^= values >> _SHIFT
    values *= _STEP
    values ^= values >> _SHIFT
    return values


def _folded_codes(text: str) -> Codes:
    """What each character becomes (see `_fold`)."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    table = _table()
    folded = table.take(codes, mode="clip")
    if not folded.all():
        for page in set((codes[folded == 0] // _PAGE).tolist()):
            _fill(table, page * _PAGE)
        folded = table.take(codes, mode="clip")
    return folded


def _spaced(folded: Codes) -> tuple[Codes, Places]:
    """Words of one character set apart by spaces; how many characters stand now for each, or one 1 for all."""
    if folded.max(initial=0) < _ALONE:
        return folded, np.ones(1, dtype=np.int64)
    alone = folded >= _ALONE
    counts = np.where(alone, 3, 1)
    spaces = np.repeat(alone, counts)
    spaces[(np.cumsum(counts) - 2)[alone]] = False
    folded = np.repeat(folded & np.uint32(_ALONE - 1), counts)
    folded[spaces] = _SPACE
    return folded, counts


@functools.cache
def _boundary() -> np.uint64:
    return np.uint64(_words(_BOUNDARY)[0])


@functools.cache
def _ascii_table() -> tuple[bytes, bytes]:
    """For bytes.translate: what each byte becomes, and which are removed."""
    folded = [_fold(code) for code in range(128)]
    removed = bytes(code for code in range(128) if folded[code] == _REMOVED)
    return bytes(code % _REMOVED for code in folded) + bytes(range(128, 256)), removed


@functools.cache
def _table() -> Codes:
    """What each code point becomes; 0: not yet found out. What is never met takes no memory."""
    return np.zeros(sys.maxunicode + 1, dtype=np.uint32)


def _fill(table: Codes, begin: int) -> None:
    """Find out what the characters of one page become."""
    end = begin + _PAGE
    for first, last, alone in _UNCHANGED:
        if first <= begin and end <= last:
            table[begin:end] = np.arange(begin, end, dtype=np.uint32) | np.uint32(alone)
            return
    table[begin:end] = [_fold(code) for code in range(begin, end)]


def _fold(code: int) -> int:
    """What a code point becomes: a space, `_REMOVED`, or one other, with `_ALONE` added where it is a word.

    Of a letter's canonical decomposition the marks are removed; where more than one letter is left, as of a Hangul
    syllable, the letter stays as it is.
    """
    character = chr(code)
    if character == _BOUNDARY:
        return 1
    if character.isspace():
        return _SPACE
    lower = character.casefold()
    if len(lower) > 1:
        lower = character.lower()
    letters = [part for part in unicodedata.normalize("NFD", lower) if unicodedata.category(part) not in ("Mn", "Me")]
    if not letters:
        return _REMOVED
    kind = unicodedata.category(letters[0])
    if kind == "Nd":
        return ord("0")
    if kind[0] in "PSC" and kind not in ("Cn", "Co"):  # what is unassigned may become a letter
        return _REMOVED
    base = ord(letters[0]) if len(letters) == 1 else ord(lower[0])
    return base | _ALONE if any(low <= base <= high for low, high in _UNSPACED) else base
