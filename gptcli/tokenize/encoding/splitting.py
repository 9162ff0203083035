"""How a tokenizer's texts are split into parts that may be encoded alone: chosen once, by what the tokenizer is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import sentencepiece
import tokenizers

from gptcli.engines.model_proto import Settings, without_prefix
from gptcli.engines.sentence_piece import SentencePiece
from gptcli.engines.tokenizers_json import TokenizersJson
from gptcli.tokenize.encoding.characters import maybe_not_composed
from gptcli.tokenize.encoding.chunks import Bytes, Offsets, flattened, text_bytes
from gptcli.tokenize.encoding.cuts import CutTable
from gptcli.tokenize.encoding.merging import Merger, spelled_pieces
from gptcli.tokenize.encoding.path_sums import PathSums
from gptcli.tokenize.encoding.words import WordRules, one_word_tokenizer, rules_of, word_bounds
from gptcli.tokenizer import Tokenizer

# A large_binary array of parts → some of their places in it, their ids end to end and the ids' bounds; until all were
# given, a later time counting.
EncodeParts = Callable[[Any], Iterator[tuple[Offsets, Offsets, Offsets]]]


class Splitter(Protocol):
    """Finds parts; `CutTable.bounds` tells what is asked of it."""

    def bounds(self, data: Bytes, offsets: Offsets, start: int, bounds: Offsets) -> tuple[int, int]: ...


@dataclass(frozen=True)
class Words:
    """The splitter of byte-level tokenizers."""

    rules: WordRules

    def bounds(self, data: Bytes, offsets: Offsets, start: int, bounds: Offsets) -> tuple[int, int]:
        """See `CutTable.bounds`."""
        return word_bounds(data, offsets, start, bounds, self.rules)

    def wholes(self, texts: Any) -> npt.NDArray[np.bool_]:
        """The documents whose words are not told by the rules alone."""
        found = np.zeros(len(texts), np.bool_)
        for literal in self.rules.literals:
            found |= pc.match_substring(texts, literal).to_numpy(zero_copy_only=False)
        if self.rules.needs_nfc:
            found |= maybe_not_composed(*text_bytes(texts))
        return found


@dataclass(frozen=True)
class Splitting:
    """`encode` gives the ids of parts from inside a text; `first_is_apart`: those that begin one are encoded as texts
    are (some models put a space before every text); `wholes` tells which documents of an array must be whole."""

    splitter: Splitter
    encode: EncodeParts
    first_is_apart: bool = False
    wholes: Callable[[Any], npt.NDArray[np.bool_]] | None = None


def splitting_of(tokenizer: Tokenizer) -> Splitting | str:
    """How to split texts for this tokenizer, or why each must be encoded whole."""
    engine = tokenizer.engine
    if isinstance(engine, SentencePiece):
        return _by_pieces(engine)
    assert isinstance(engine, TokenizersJson)
    return _by_words(engine)


def _by_words(engine: TokenizersJson) -> Splitting | str:
    rules = rules_of(engine.content)
    if not engine.is_byte_level or rules is None:
        return "it is no byte-level BPE whose words follow a known pattern"
    words = Words(rules)
    alone = tokenizers.Tokenizer.from_str(json.dumps(one_word_tokenizer(engine.content)))

    def encode(parts: Any) -> Iterator[tuple[Offsets, Offsets, Offsets]]:
        texts = parts.cast(pa.large_string()).to_pylist()
        found = alone.encode_batch_fast(texts, add_special_tokens=False)
        yield np.arange(len(parts)), *flattened(each.ids for each in found)

    return Splitting(words, encode, wholes=words.wholes if rules.literals or rules.needs_nfc else None)


def _by_pieces(engine: SentencePiece) -> Splitting | str:
    settings = engine.settings
    if reason := _why_whole(settings, engine):
        return reason
    pieces = spelled_pieces(engine)
    sums = None if settings.is_bpe else PathSums.of(engine, pieces)
    if not settings.is_bpe and sums is None:
        return "the scores of a unigram model add up differently in a part and in the whole"
    table = CutTable.of([piece for _, piece in pieces])
    if not table.cuts_often:
        return "its vocabulary joins every two characters"
    model = without_prefix(engine.model) if settings.add_dummy_prefix else engine.model
    is_plain = settings.is_bpe and not settings.has_user_defined and not settings.has_unused
    encode = _encoded_by(model, Merger.of(engine, pieces) if is_plain else None)
    return Splitting(table, encode, settings.add_dummy_prefix, None if sums is None else sums.wholes)


def _encoded_by(model: bytes, merger: Merger | None) -> EncodeParts:
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)

    def encode(parts: Any) -> Iterator[tuple[Offsets, Offsets, Offsets]]:
        left = np.arange(len(parts))
        if merger is not None:
            ids, ends, left = merger.encode(*text_bytes(parts))
            yield np.arange(len(parts)), ids, ends
            if not len(left):
                return
            parts = parts.take(left)
        yield left, *flattened(processor.encode(parts.to_pylist(), num_threads=1))

    return encode


def _why_whole(settings: Settings, engine: SentencePiece) -> str:
    """Why parts encoded alone would not give the whole's tokens, or ""."""
    if not settings.is_bpe and (settings.has_user_defined or settings.has_unused or settings.add_dummy_prefix):
        return "it is a unigram model not made by gptcli"
    if not settings.byte_fallback:  # unknown characters beside each other are one token
        return "it has no byte fallback"
    if settings.space_is_suffix or not settings.escape_whitespaces or settings.remove_extra_whitespaces:
        return "it rewrites spaces"
    if settings.charsmap and not engine.only_escapes:
        return "it normalises texts"
    return ""
