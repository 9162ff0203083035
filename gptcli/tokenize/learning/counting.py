"""How often each word stands in a corpus: native, in parallel over its shards, in memory that only distinct words fill.

A word begins at each run of spaces and after each run of newlines. So no piece goes on after a newline, and a chat
turn's header line has the same tokens whatever message follows. Tabs, NULs, U+001F and U+2585 part words and are left
out: they always are byte tokens (the trainer takes some for a boundary, and skips inputs that hold the last).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from gptcli.artifacts.durable import PENDING, canonical_json, disk_errors, fsync_file
from gptcli.artifacts.durable import replace as move
from gptcli.artifacts.shards import open_shard
from gptcli.runtime.compiled import compiled
from gptcli.tokenize.encoding.chunks import Bytes, Offsets, slices, stretches, text_bytes
from gptcli.tokenize.encoding.interning import Codes, Interner
from gptcli.tokenize.encoding.shard_encoder import read_texts

Counts = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
RunMap = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]  # results in the items' order

_SCHEMA = pa.schema(
    [pa.field("word", pa.large_binary(), nullable=False), pa.field("count", pa.int64(), nullable=False)]
)
SLICE_BYTES = 1 << 20  # of text worked on at once: its words' bounds stay in the caches
MAX_WORD_BYTES = 2048  # longer runs of a character are few distinct words so; the trainer has 16 bits for symbols

_IS_LETTER: Flags = np.isin(np.arange(256) | 0x20, np.arange(ord("a"), ord("z") + 1))
# Characters that surely are of one script, by Unicode's Scripts.txt; the second row is Common. Hiragana and Katakana
# count as Han for the trainer.
_SCRIPTS = (
    ((0x41, 0x5A), (0x61, 0x7A), (0xC0, 0xD6), (0xD8, 0xF6), (0xF8, 0x24F)),
    ((0x01, 0x1F), (0x21, 0x40), (0x5B, 0x60), (0x7B, 0x7F), (0x2010, 0x2027), (0x3001, 0x3002), (0xFF01, 0xFF0F)),
    ((0x3041, 0x3096), (0x30A1, 0x30FA), (0x4E00, 0x9FA5)),
    ((0x410, 0x44F),),
    ((0x391, 0x3A1), (0x3A3, 0x3A9), (0x3B1, 0x3C9)),
    ((0x621, 0x63A), (0x641, 0x64A)),
    ((0xAC00, 0xD7A3),),
)


@dataclass(frozen=True)
class CountingRules:
    """Where words are cut besides at spaces and newlines, all of it where the trainer lets no piece stand.

    split_by_script: between characters that surely are of two scripts (letters and ASCII signs, say); split_digits:
    on both sides of every ASCII digit; user_tokens: they part words and are left out. So the trainer learns what it
    would learn from the words uncut, but for the order of a few merges, and real text has a fifth as many distinct
    words, with a tenth of the bytes.
    """

    split_by_script: bool = False
    split_digits: bool = False
    user_tokens: tuple[str, ...] = ()

    def classes(self) -> Bytes:
        """The script of each code point up to U+FFFF, uint8; 0: unknown."""
        classes = np.zeros(1 << 16, np.uint8)
        for number, ranges in enumerate(_SCRIPTS if self.split_by_script else (), 1):
            for first, last in ranges:
                classes[first : last + 1] = number
        return classes

    def tokens(self) -> tuple[Bytes, Offsets, Offsets]:
        """The user tokens' bytes end to end, longer ones first among those with one first byte; their
        bounds [tokens + 1]; and where those of each first byte begin [257]."""
        tokens = sorted((token.encode() for token in self.user_tokens), key=lambda token: (token[0], -len(token)))
        ends = np.cumsum([0, *map(len, tokens)], dtype=np.int64)
        firsts = np.searchsorted([token[0] for token in tokens], np.arange(257)).astype(np.int64)
        return np.frombuffer(b"".join(tokens), np.uint8), ends, firsts


@dataclass(frozen=True)
class WordCounts:
    """Distinct words and how often each was seen.

    words: large_binary array, UTF-8, sorted by their bytes and none empty, or, from a single shard, in order of
    appearance; counts: int64 [len(words)]; documents,
    document_bytes: how many documents were read, and their UTF-8 length.
    """

    words: Any
    counts: Counts
    rules: CountingRules = CountingRules()
    documents: int = 0
    document_bytes: int = 0

    def __len__(self) -> int:
        return len(self.words)

    @property
    def total(self) -> int:
        """Words counted, each as often as it was seen."""
        return int(self.counts.sum())

    @property
    def distinct_bytes(self) -> int:
        """UTF-8 length of the distinct words together."""
        return len(text_bytes(self.words)[0])

    def lines(self) -> Iterator[bytes]:
        """`word TAB count` of each word, as the trainer reads them; no list of them is made."""
        step = 1 << 14
        for start in range(0, len(self.words), step):
            words = self.words.slice(start, step).to_pylist()
            for word, count in zip(words, self.counts[start : start + step].tolist(), strict=True):
                yield b"%b\t%d" % (word, count)

    def most_frequent(self, most: int) -> WordCounts:
        """The `most` words seen most often, in the same order; of equally frequent ones the first."""
        if len(self) <= most:
            return self
        chosen = np.sort(np.argsort(-self.counts, kind="stable")[:most])
        return replace(self, words=self.words.take(pa.array(chosen)), counts=self.counts[chosen])

    def save(self, path: Path) -> None:
        """Write an Arrow file that `load` reads."""
        told = {"documents": self.documents, "document_bytes": self.document_bytes, "rules": asdict(self.rules)}
        schema = _SCHEMA.with_metadata({"told": canonical_json(told)})
        pending = path.with_name(path.name + PENDING)
        path.parent.mkdir(parents=True, exist_ok=True)
        with disk_errors(path), pa.ipc.new_file(str(pending), schema) as writer:
            writer.write_batch(pa.record_batch([self.words, pa.array(self.counts, pa.int64())], schema=schema))
        fsync_file(pending)
        move(pending, path)

    @classmethod
    def load(cls, path: Path) -> WordCounts:
        """The words of a file, memory-mapped."""
        reader = open_shard(path)
        told = json.loads(reader.schema.metadata[b"told"])
        batch = reader.get_batch(0)
        rules = CountingRules(**{**told["rules"], "user_tokens": tuple(told["rules"]["user_tokens"])})
        return cls(batch.column(0), batch.column(1).to_numpy(), rules, told["documents"], told["document_bytes"])

    def as_dict(self) -> dict[str, int]:
        """word → count, for a few words."""
        return dict(zip((word.decode() for word in self.words.to_pylist()), self.counts.tolist(), strict=True))


class WordCounter:
    """Adds up words; holds one copy of each distinct one and a count."""

    def __init__(self, rules: CountingRules = CountingRules()) -> None:
        self.rules = rules
        self._finder = WordFinder(rules)
        self._interner = Interner()
        self._counts: Counts = np.zeros(1 << 14, np.int64)
        self.documents = 0
        self.document_bytes = 0

    def add_texts(self, texts: Any) -> None:
        """Count the words of a large_string array without nulls."""
        for part in slices(texts, SLICE_BYTES):
            data, offsets = text_bytes(part)
            for some, bounds in stretches(data, offsets):
                starts, stops = self._finder.find(some, bounds)
                self._add(self._interner.codes(some, starts, stops), np.ones(0, np.int64))
            self.documents += len(part)
            self.document_bytes += len(data)

    def add_words(self, words: WordCounts) -> None:
        """Add what another counter counted."""
        data, offsets = text_bytes(words.words)
        self._add(self._interner.codes(data, offsets[:-1], offsets[1:]), words.counts)
        self.documents += words.documents
        self.document_bytes += words.document_bytes

    def words(self, in_order: bool = True) -> WordCounts:
        """What was counted so far; `in_order`: sorted by the words' bytes, so whatever order they came in."""
        words, counts = self._interner.strings(), self._counts[: len(self._interner)].copy()
        if in_order:
            order = pc.array_sort_indices(words)
            words, counts = words.take(order), counts[order.to_numpy()]
        return WordCounts(words, counts, self.rules, self.documents, self.document_bytes)

    def _add(self, codes: Codes, counts: Counts) -> None:
        if len(self._interner) > len(self._counts):
            grown = np.zeros(max(2 * len(self._counts), len(self._interner)), np.int64)
            grown[: len(self._counts)] = self._counts
            self._counts = grown
        add_up(codes, counts, self._counts)


def count_words(batches: Iterable[Any], rules: CountingRules = CountingRules()) -> WordCounts:
    """The words of all texts (large_string arrays without nulls), sorted by their bytes."""
    counter = WordCounter(rules)
    for texts in batches:
        counter.add_texts(texts)
    return counter.words()


def count_corpus(
    shards: Sequence[Path],
    rules: CountingRules = CountingRules(),
    *,
    run_map: RunMap = map,
    sample_bytes: int = 0,
    seed: int = 0,
    after_each: Callable[[], None] = lambda: None,
) -> WordCounts:
    """The words of corpus shards, sorted by their bytes: the same for any number of workers.

    run_map: how the shards are shared out (`runtime.executor.map_ordered`, say); sample_bytes: about how many bytes
    of documents to count, 0 for all; only `seed` and their content choose them. `after_each` is called after every
    shard. Raises ArtifactError for a broken shard.
    """
    share = 1.0
    if sample_bytes:
        share = min(1.0, sample_bytes / max(sum(run_map(text_size, shards)), 1))
    counter = WordCounter(rules)
    for words in run_map(partial(count_shard, rules=rules, share=share, seed=seed), shards):
        counter.add_words(words)
        after_each()
    return counter.words()


def count_shard(shard: Path, rules: CountingRules, share: float, seed: int) -> WordCounts:
    """The words of a shard's documents, or of a `share` of them; in order of appearance."""
    counter = WordCounter(rules)
    for documents, texts in read_texts(shard):
        counter.add_texts(_chosen(documents, texts, share, seed))
    return counter.words(in_order=False)


def text_size(shard: Path) -> int:
    """UTF-8 bytes of a shard's documents."""
    return sum(pc.sum(pc.binary_length(texts)).as_py() or 0 for _, texts in read_texts(shard))


def _chosen(documents: Any, texts: Any, share: float, seed: int) -> Any:
    """The texts whose document ids a hash keyed by `seed` puts below `share`."""
    if share >= 1:
        return texts
    limit, key = int(share * (1 << 64)), seed.to_bytes(8, "little")
    hashes = (hashlib.blake2b(document.encode(), digest_size=8, key=key) for document in documents.to_pylist())
    return texts.filter(pa.array([int.from_bytes(each.digest(), "little") < limit for each in hashes], pa.bool_()))


class WordFinder:
    """Finds words in one slice of texts after another; keeps the memory it takes."""

    def __init__(self, rules: CountingRules) -> None:
        tokens, token_ends, firsts = rules.tokens()
        letters = _IS_LETTER & (np.diff(firsts) == 0)  # those that begin no user token
        self._tables = (rules.split_digits, letters, rules.classes(), tokens, token_ends, firsts)
        self._bounds: Offsets = np.empty((2, 1 << 16), np.int64)

    def find(self, data: Bytes, offsets: Offsets) -> tuple[Offsets, Offsets]:
        """Where the words of documents begin and end in `data`, whose bounds are `offsets` [documents + 1]; none is
        empty. A word of more than MAX_WORD_BYTES is cut between characters. Good until the next call."""
        while True:
            starts, stops = self._bounds
            found = _find_words(data, offsets, starts, stops, MAX_WORD_BYTES, *self._tables)
            if found <= len(starts):
                return starts[:found], stops[:found]
            self._bounds = np.empty((2, found + found // 4), np.int64)


@compiled
def _find_words(
    data: Bytes,
    offsets: Offsets,
    starts: Offsets,
    stops: Offsets,
    longest: int,
    split_digits: bool,
    letters: Flags,
    classes: Bytes,
    tokens: Bytes,
    token_ends: Offsets,
    firsts: Offsets,
) -> int:
    """Fill starts and stops as far as they reach; returns how many words there are."""
    found = 0
    for document in range(len(offsets) - 1):
        start, end = offsets[document], offsets[document + 1]
        place = start
        before, before_script = np.uint8(0), np.uint8(0)
        while place <= end:
            ends, left_out, size = place == end, 0, 1
            if not ends:
                byte = data[place]
                script = classes[byte]
                if byte >= 0xC0:
                    point, size = _character(data, place)
                    script = classes[point]
                    left_out = 3 if point == 0x2585 else 0
                elif byte == 0x09 or byte == 0 or byte == 0x1F:
                    left_out = 1
                if firsts[byte] != firsts[byte + 1]:
                    left_out = max(left_out, _token_at(data, place, end, tokens, token_ends, firsts))
                if byte == 0x20:
                    ends = before != 0x20
                elif before == 0x0A:
                    ends = byte != 0x0A
                if script != before_script and script != 0 and before_script != 0:
                    ends = True
                if split_digits and (0x30 <= byte <= 0x39 or 0x30 <= before <= 0x39):
                    ends = True
                before, before_script = byte, script
                while letters[byte] and place + size < end and letters[data[place + size]]:
                    size += 1  # the rest of a run of letters is no cut
            if ends or left_out > 0:
                found = _put(data, start, place, longest, starts, stops, found)
                start = place + left_out
            if left_out > 0:
                before, before_script = np.uint8(0), np.uint8(0)
                size = left_out
            place += size
    return found


@compiled
def _put(data: Bytes, start: int, end: int, longest: int, starts: Offsets, stops: Offsets, found: int) -> int:
    """Put down the word data[start:end], in parts where it is too long; how many words there are then."""
    next_cut = start + longest
    while start < end:
        stop = end
        if next_cut < end:
            stop = next_cut
            while data[stop] & 0xC0 == 0x80:  # not inside a character
                stop -= 1
            next_cut += longest
        if found < len(starts):
            starts[found] = start
            stops[found] = stop
        found += 1
        start = stop
    return found


@compiled
def _character(data: Bytes, place: int) -> tuple[int, int]:
    """The code point that begins at `place`, U+FFFF for those beyond, and how many bytes it has."""
    byte = np.int64(data[place])
    if byte < 0xE0:
        return int((byte & 0x1F) << 6 | np.int64(data[place + 1] & 0x3F)), 2
    if byte < 0xF0:
        second, third = np.int64(data[place + 1] & 0x3F), np.int64(data[place + 2] & 0x3F)
        return int((byte & 0xF) << 12 | second << 6 | third), 3
    return 0xFFFF, 4


@compiled
def _token_at(data: Bytes, place: int, end: int, tokens: Bytes, ends: Offsets, firsts: Offsets) -> int:
    """Bytes of the longest user token that stands at `place`, or 0."""
    for token in range(firsts[data[place]], firsts[data[place] + 1]):
        begin, length = ends[token], ends[token + 1] - ends[token]
        same = 0
        if place + length <= end:
            while same < length and data[place + same] == tokens[begin + same]:
                same += 1
        if same == length:
            return int(length)
    return 0


@compiled
def add_up(codes: Codes, weights: Counts, counts: Counts) -> None:
    """Add each code's weight to its count; without weights, 1 each."""
    if len(weights) == 0:
        for place in range(len(codes)):
            counts[codes[place]] += 1
    else:
        for place in range(len(codes)):
            counts[codes[place]] += weights[place]
