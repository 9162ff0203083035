"""Decontamination: documents that hold evaluation items are dropped, or the items are cut out of them.

Brown et al. 2020 (GPT-3), appendix C: a document collides with an item where they share an n-gram of words (see
`records.ngrams`). Cutting takes the n-gram and 200 characters on both sides; of the pieces left those under 200
characters are discarded, and a document that falls into more than 10 pieces is dropped. Not taken over: the rule that
n-grams of more than 10 documents do not count, which would need a pass over the whole corpus.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gptcli.artifacts.durable import write_bytes
from gptcli.errors import ArtifactError
from gptcli.records.ngrams import (
    Hashes,
    Places,
    combined,
    sorted_unique,
    starts_within,
    word_hashes,
    word_spans,
    words_of,
)

SHORTEST = 8  # words of the shortest text that can be found (Brown et al. 2020: the least n)
MIN_PIECE = 200  # characters
MAX_PIECES = 10

# Why a document is dropped; `Treated.failed`.
OVERLAPS = "overlaps"
TOO_MANY_OVERLAPS = "too_many_overlaps"
NOTHING_LEFT = "nothing_left"

_BATCH = 1 << 12  # items hashed together
_REACH = 100  # characters that a cut goes on to find white space
_SLOTS = 8  # of the prefilter, for each hash: one clean n-gram in eight or fewer is looked up
_LEAST_BITS, _MOST_BITS = 20, 27  # of a hash that choose its slot
_BIT = np.array([1 << place for place in range(8)], dtype=np.uint8)
_SPACE_BEHIND, _SPACE_BEFORE = re.compile(r"\s"), re.compile(r"\s\S*\Z")


@dataclass(frozen=True, slots=True)
class Treated:
    """What became of a document; when `failed` says why it is to be dropped, the text is as it was."""

    text: str
    values: dict[str, float | str] = field(default_factory=dict)  # overlaps: runs of colliding n-grams
    failed: str = ""
    changes: dict[str, int] = field(default_factory=dict)  # of a cut document: overlaps and characters cut


class Items:
    """The n-grams of evaluation items, to be looked up in documents.

    A text shorter than an n-gram but of at least `SHORTEST` words is looked up as one run of all its words; an item
    all of whose texts are shorter can't be found and counts as `too_short`. Runs of which more than half of the words
    are numbers don't count: with every digit a 0 all tables of figures would collide.
    """

    def __init__(self, settings: tuple[int, str, int], counts: tuple[int, int], arrays: dict[str, Hashes]) -> None:
        self.ngram, self.action, self.margin = settings
        self.count, self.too_short = counts
        self._arrays = arrays
        self._grams = _Members(arrays["grams"])
        self._heads, self._shorts = _Members(arrays["heads"]), _Members(arrays["shorts"])  # first words; all words
        self._least = min(self.ngram, SHORTEST)

    @classmethod
    def build(cls, items: Iterable[str | tuple[str, ...]], ngram: int, action: str, margin: int) -> Items:
        """The n-grams of items, each one text or several (the question, its choices, both together).

        ngram: words; action: "drop" or "cut"; margin: characters cut on both sides of an overlap.
        """
        least = min(ngram, SHORTEST)
        found: dict[str, list[Hashes]] = {"grams": [], "heads": [], "shorts": []}
        count = too_short = 0
        waiting = iter(items)
        while batch := list(islice(waiting, _BATCH)):
            texts = [(item,) if isinstance(item, str) else item for item in batch]
            owners = np.repeat(np.arange(len(texts)), [len(item) for item in texts])
            flat = [unicodedata.normalize("NFC", text) for item in texts for text in item]
            words, begins = words_of(flat)
            numbers = np.concatenate([[0], np.cumsum(np.isin(words, _numbers()))])
            matched = np.zeros(len(flat), dtype=bool)
            for size in range(least, ngram + 1):
                starts = _starts(begins, numbers, size, whole=size < ngram)
                matched[np.searchsorted(begins, starts, side="right") - 1] = True
                runs = combined(words, size)[starts]
                found["grams" if size == ngram else "shorts"].append(runs)
                if size < ngram:
                    found["heads"].append(combined(words, least)[starts])
            count += len(texts)
            too_short += len(texts) - len(np.unique(owners[matched]))
        arrays = {name: sorted_unique(runs) for name, runs in found.items()}
        return cls((ngram, action, margin), (count, too_short), arrays)

    def save(self, path: Path) -> None:
        """Write a safetensors file, whole or not at all. ResourceError when the disk is full."""
        from safetensors.numpy import save

        numbers = [self.ngram, self.action == "cut", self.margin, self.count, self.too_short]
        write_bytes(path, save({**self._arrays, "numbers": np.array(numbers, dtype=np.int64)}))

    @staticmethod
    def load(path: Path) -> Items:
        """Read what `save` wrote, once a process. ArtifactError when the file is missing or broken."""
        try:
            stat = path.stat()
        except OSError as error:
            raise ArtifactError(
                f"cannot read {path}: {error.strerror}", "run gptcli corpus again with --force"
            ) from error
        return _load(path, stat.st_mtime_ns, stat.st_size)

    def treat(self, text: str, words: Hashes | None = None) -> Treated:
        """Look the items up in a document, and drop it or cut it where one is found. Linear in the text.

        words: the text's `word_hashes`, where they are known.
        """
        runs = self._overlaps(word_hashes(text) if words is None else words)
        values: dict[str, float | str] = {OVERLAPS: float(len(runs))}
        if not len(runs):
            return Treated(text, values)
        if self.action == "drop":
            return Treated(text, values, OVERLAPS)
        spans = word_spans(text)
        pieces = _pieces(text, spans[runs[:, 0], 0] - self.margin, spans[runs[:, 1], 1] + self.margin)
        kept = [piece for piece in pieces if len(piece) >= MIN_PIECE]
        if len(pieces) > MAX_PIECES or not kept:
            return Treated(text, values, TOO_MANY_OVERLAPS if len(pieces) > MAX_PIECES else NOTHING_LEFT)
        left = "\n\n".join(kept)
        return Treated(left, values, "", {OVERLAPS: len(runs), "characters": len(text) - len(left)})

    def _overlaps(self, words: Hashes) -> Places:
        """Where a document of these words holds items: (runs, 2), first and last word, overlapping ones merged."""
        firsts = self._grams.places(combined(words, self.ngram))
        lasts = firsts + self.ngram - 1
        heads = self._heads.places(combined(words, self._least)) if len(self._heads) else firsts[:0]
        for size in range(self._least, self.ngram) if len(heads) else ():
            runs = combined(words, size)
            starts = heads[heads < len(runs)]
            starts = starts[self._shorts.places(runs[starts])]
            firsts, lasts = np.concatenate([firsts, starts]), np.concatenate([lasts, starts + size - 1])
        if not len(firsts):
            return np.empty((0, 2), dtype=np.int64)
        order = np.argsort(firsts, kind="stable")
        firsts, lasts = firsts[order], np.maximum.accumulate(lasts[order])
        begins = np.concatenate([[True], firsts[1:] > lasts[:-1]])
        return np.column_stack([firsts[begins], lasts[np.concatenate([begins[1:], [True]])]])


class _Members:
    """A sorted set of hashes; a table of their first bits keeps most other hashes from being looked up."""

    def __init__(self, hashes: Hashes) -> None:
        self._hashes = hashes
        bits = min(max(_LEAST_BITS, (_SLOTS * len(hashes)).bit_length()), _MOST_BITS)
        self._shift = np.uint64(64 - bits)
        flags = np.zeros(1 << bits if len(hashes) else 0, dtype=bool)
        flags[(hashes >> self._shift).view(np.int64)] = True
        self._table = np.packbits(flags, bitorder="little")  # bits: the table is to stay in the processor's cache

    def __len__(self) -> int:
        return len(self._hashes)

    def places(self, hashes: Hashes) -> Places:
        """The places of those of the hashes that are members, ascending."""
        if not len(self._hashes):
            return np.empty(0, dtype=np.int64)
        slots = (hashes >> self._shift).view(np.int64)
        likely = np.flatnonzero(self._table[slots >> 3] & _BIT[slots & 7])
        asked = hashes[likely]
        nearest = np.minimum(np.searchsorted(self._hashes, asked), len(self._hashes) - 1)
        found: Places = likely[self._hashes[nearest] == asked]
        return found


def _starts(begins: Places, numbers: Places, size: int, whole: bool) -> Places:
    """The words at which runs of `size` words begin that are looked up; whole: of texts of just so many words.

    begins: see `words_of`; numbers: how many of the words before each word, and before the end, are numbers.
    """
    starts = begins[:-1][np.diff(begins) == size] if whole else np.flatnonzero(starts_within(begins, size))
    telling: Places = starts[2 * (numbers[starts + size] - numbers[starts]) <= size]
    return telling


@functools.cache
def _numbers() -> Hashes:
    """The hashes of the words that are one to 32 digits."""
    return word_hashes(" ".join("0" * digits for digits in range(1, 33)))


@functools.lru_cache(4)
def _load(path: Path, mtime_ns: int, size: int) -> Items:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays: dict[str, npt.NDArray[Any]] = load(path.read_bytes())
        ngram, cuts, margin, count, too_short = arrays.pop("numbers").tolist()
        return Items((ngram, "cut" if cuts else "drop", margin), (count, too_short), arrays)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ArtifactError(f"cannot read {path}: {error}", "run gptcli corpus again with --force") from error


def _pieces(text: str, begins: Places, ends: Places) -> list[str]:
    """What is left of a text outside these cuts, each grown to white space if it is near; pieces of none are none."""
    pieces, done = [], 0
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        if begin > done:
            near = _SPACE_BEFORE.search(text, max(begin - _REACH, done), begin)
            pieces.append(text[done : near.start() if near else begin].strip())
        if end < len(text):
            behind = _SPACE_BEHIND.search(text, max(end, 0), end + _REACH)
            end = behind.start() if behind else end
        done = max(done, end)
    pieces.append(text[done:].strip())
    return [piece for piece in pieces if piece]
