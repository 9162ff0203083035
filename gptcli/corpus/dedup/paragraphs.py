"""Paragraphs that stand in more than one place of a corpus: the first stays, the others can be taken out.

A paragraph is what stands between blank lines. Two are the same when their words are, as shingles have them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from gptcli.corpus.dedup.join import Mask
from gptcli.records.ngrams import Hashes, folded

MIN_CHARS = 80  # shorter ones (headings, lines of dialogue, list items) repeat by right
BUDGET_BYTES = 256 << 20
_SORT_BYTES = 40  # a paragraph in a pass: hash, place, and the sorted copies
_BLANK = re.compile(r"\n[^\S\n]*(?:\n[^\S\n]*)*\n")  # one or more blank lines


def paragraph_hashes(text: str, min_chars: int = MIN_CHARS) -> Hashes:
    """A 64-bit hash of each paragraph of at least `min_chars` characters, in order: (paragraphs,) uint64.

    It is BLAKE2b of its words. A paragraph without words (a rule of dashes) has none.
    """
    digests = [hashlib.blake2b(words, digest_size=8).digest() for _, _, words in _long(text, min_chars)]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64, copy=False)


def repeated(read: Callable[[], Iterable[Hashes]], budget_bytes: int = BUDGET_BYTES) -> Mask:
    """Which paragraphs stand in an earlier place already: (paragraphs,) bool, in the order they are read.

    read: gives the paragraphs' hashes in document order, in pieces of any size; called once to count and once a pass.
    budget_bytes: what a pass may hold beside the result; the result does not depend on it.
    """
    total = sum(len(piece) for piece in read())
    mask = np.zeros(total, dtype=bool)
    passes = max(1, -(-total * _SORT_BYTES // max(1, budget_bytes)))
    for part in range(passes):
        low, high = part * 2**64 // passes, (part + 1) * 2**64 // passes - 1
        hashes, places, begin = [np.empty(0, dtype=np.uint64)], [np.empty(0, dtype=np.int64)], 0
        for piece in read():
            chosen = np.flatnonzero((piece >= np.uint64(low)) & (piece <= np.uint64(high)))
            hashes.append(piece[chosen])
            places.append(chosen + begin)
            begin += len(piece)
        together = np.concatenate(hashes)
        again = np.ones(len(together), dtype=bool)
        again[np.unique(together, return_index=True)[1]] = False  # of each, the first place
        mask[np.concatenate(places)[again]] = True
    return mask


def without(text: str, mask: Mask, min_chars: int = MIN_CHARS) -> str:
    """The text without the paragraphs that the mask, one for each of `paragraph_hashes(text, min_chars)`, names.

    The blank lines before a paragraph go with it (before the first one kept: all). Raises ValueError where the mask is
    of another text.
    """
    spans = [(begin, end) for begin, end, _ in _long(text, min_chars)]
    if len(spans) != len(mask):
        raise ValueError(f"a mask of {len(mask)} for a text of {len(spans)} paragraphs")
    if not mask.any():
        return text
    gone = {span for span, out in zip(spans, mask.tolist(), strict=True) if out}
    kept: list[str] = []
    before = 0
    for begin, end in _spans(text):
        if (begin, end) not in gone:
            kept.append(text[before:end] if kept else text[begin:end])
        before = end
    return "".join(kept) + text[before:] if kept else ""


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Where paragraphs begin and end, without the blank lines between, before and after them."""
    begin = 0
    for blank in _BLANK.finditer(text):
        if text[begin : blank.start()].strip():
            yield begin, blank.start()
        begin = blank.end()
    if text[begin:].strip():
        yield begin, len(text.rstrip())


def _long(text: str, min_chars: int) -> Iterator[tuple[int, int, bytes]]:
    """Where those begin and end that have a hash, and their folded words."""
    spans = [(begin, end) for begin, end in _spans(text) if end - begin >= min_chars]
    for (begin, end), data in zip(spans, folded([text[begin:end] for begin, end in spans]), strict=True):
        words = b" ".join(data.split())
        if words:
            yield begin, end, words
