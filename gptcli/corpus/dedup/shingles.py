"""The shingles of a text, by which near-duplicates are compared: 64-bit hashes of runs of words.

Words are those of n-grams (see `records.ngrams`), so two texts share a shingle where they share five words in a row,
whatever their case, accents, punctuation and digits.
"""

from __future__ import annotations

from gptcli.records.ngrams import Hashes, combined, distinct, word_hashes

__all__ = ["WORDS", "Hashes", "shingle_hashes"]

WORDS = 5  # in a shingle


def shingle_hashes(text: str, words: Hashes | None = None) -> Hashes:
    """The set of the text's 5-word shingles: sorted, unique (shingles,) uint64. words: its `word_hashes`, where known.

    A text of one to four words has one shingle, of them all; a text without words has none.
    """
    words = word_hashes(text) if words is None else words
    hashes = combined(words, min(WORDS, max(1, len(words))))
    hashes.sort()
    return distinct(hashes)
