"""Encoding columns of documents, exactly as whole texts are encoded, at the speed of a table look-up.

BPE merges two neighbours only into a piece of its vocabulary. So a text may be cut between two characters that stand
side by side in no piece, and the parts encoded alone, without changing a token. Most parts of real text repeat: each
distinct one is encoded once, and the tokens of a whole column are gathered through Arrow.

Cutting is done on bytes (last byte of one character, first of the next), which only ever cuts less often. It needs BPE
with byte fallback and a normalisation that looks at single characters; other models encode whole texts. A document that
holds a character our own escape rules rewrite (U+2581, U+E000) is encoded whole too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import sentencepiece

from gptcli.engines.model_proto import read_settings
from gptcli.tokenize.chunks import Bytes, Cuts, Offsets, chunk_codes, slices, text_bytes
from gptcli.tokenizer import Tokenizer

Ids = npt.NDArray[np.unsignedinteger[Any]]

CACHE_TOKENS = 1 << 23  # the cache of parts starts anew when it holds more
WIDE_FROM = 1 << 16  # vocabularies beyond this many ids take 32 bits a token
_ESCAPE_MAP = {("\u2581", "\ue000B"), ("\ue000", "\ue000A")}
_ESCAPED = ("\u2581", "\ue000")


@dataclass(frozen=True)
class Encoded:
    """Documents as they stand in a token shard: `tokens` of all end to end, with bos and eos; `offsets` int64
    (len+1) of the documents in them; `bytes` int64, the UTF-8 length of each text."""

    tokens: Ids
    offsets: Offsets
    bytes: Offsets


class Encoder:
    """Encodes large_string arrays with one tokenizer; keeps what it has seen from call to call."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.dtype: type[np.uint16] | type[np.uint32] = np.uint16 if tokenizer.vocab_size <= WIDE_FROM else np.uint32
        joined = joined_bytes(tokenizer)
        self._cuttable = joined is not None
        self._apart = np.zeros(0, np.bool_) if joined is None else ~joined.T.ravel()  # at b << 8 | a
        self._index: dict[str, int] = {}
        self._flat: Ids = np.empty(0, self.dtype)
        self._ends: Offsets = np.zeros(1, np.int64)

    def documents(self, texts: Any) -> Iterator[Encoded]:
        """The documents of a large_string array without nulls, in order, a bounded number of bytes at a time."""
        for part in slices(texts):
            ids, offsets = self.encode(part)
            _, text_offsets = text_bytes(part)
            yield self._framed(ids, offsets, np.diff(text_offsets))

    def encode(self, texts: Any) -> tuple[Ids, Offsets]:
        """Ids of all texts end to end without bos and eos, and the texts' len+1 offsets in them."""
        data, offsets = text_bytes(texts)
        if not len(data):
            return np.empty(0, self.dtype), np.zeros(len(texts) + 1, np.int64)
        cuts = np.zeros(len(data) + 1, np.bool_) if not self._cuttable else self._cuts(data, offsets)
        cuts[offsets] = True
        codes, bounds = chunk_codes(data, cuts)
        rows = self._rows(codes.dictionary.to_pylist())[codes.indices.to_numpy()]
        lists = pa.LargeListArray.from_arrays(pa.array(self._ends), pa.array(self._flat))
        taken = lists.take(pa.array(rows))
        # An empty text has no chunk of its own: its two offsets fall on the same bound.
        return taken.values.to_numpy(), taken.offsets.to_numpy()[np.searchsorted(bounds, offsets)]

    def _rows(self, parts: list[str]) -> npt.NDArray[np.int64]:
        """Where each part's ids stand in the cache, encoding those not seen before."""
        if len(self._flat) > CACHE_TOKENS or not self._cuttable:
            self._index.clear()
            self._flat, self._ends = self._flat[:0], self._ends[:1]
        index = self._index
        fresh = [part for part in parts if part not in index]
        if fresh:
            encoded = self.tokenizer.encode_batch(fresh, threads=1)
            index.update(zip(fresh, range(len(index), len(index) + len(fresh)), strict=True))
            lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
            flat = np.fromiter(chain.from_iterable(encoded), self.dtype, int(lengths.sum()))
            self._ends = np.concatenate([self._ends, self._ends[-1] + np.cumsum(lengths)])
            self._flat = np.concatenate([self._flat, flat])
        return np.fromiter(map(index.__getitem__, parts), np.int64, len(parts))

    def _cuts(self, data: Bytes, offsets: Offsets) -> Cuts:
        cuts = np.zeros(len(data) + 1, np.bool_)
        # Neighbours as one 16-bit number each: first those that begin at even places, then at odd ones.
        for start in (0, 1):
            pairs = data[start : start + (len(data) - start) // 2 * 2].view("<u2")
            cuts[start + 1 : -1 : 2] = self._apart[pairs]
        for document in np.unique(np.searchsorted(offsets, _escaped_places(data), side="right") - 1):
            cuts[offsets[document] : offsets[document + 1]] = False
        return cuts

    def _framed(self, ids: Ids, offsets: Offsets, sizes: Offsets) -> Encoded:
        """Put bos before and eos after every document."""
        tokenizer = self.tokenizer
        extra = 1 if tokenizer.bos_id is None else 2
        framed = offsets + extra * np.arange(len(offsets))
        tokens = np.empty(framed[-1], self.dtype)
        inside = np.ones(len(tokens), np.bool_)
        inside[framed[1:] - 1] = False
        tokens[framed[1:] - 1] = tokenizer.eos_id
        if tokenizer.bos_id is not None:
            inside[framed[:-1]] = False
            tokens[framed[:-1]] = tokenizer.bos_id
        tokens[inside] = ids
        return Encoded(tokens, framed, sizes)


def joined_bytes(tokenizer: Tokenizer) -> npt.NDArray[np.bool_] | None:
    """256 × 256 flags: at [a, b], whether a text must not be cut between byte a and byte b; None: never cut."""
    if not _can_cut(tokenizer):
        return None
    joined = np.zeros((256, 256), np.bool_)
    processor = tokenizer.processor
    for token_id in range(tokenizer.vocab_size):
        if processor.is_control(token_id) or processor.is_unknown(token_id) or processor.is_byte(token_id):
            continue
        piece = np.frombuffer(processor.id_to_piece(token_id).replace("\u2581", " ").encode(), np.uint8)
        begins = (piece[1:] & 0xC0) != 0x80
        joined[piece[:-1][begins], piece[1:][begins]] = True
    joined[:, 0x80:0xC0] = True  # never inside a character
    return joined


def keeps_text(tokenizer: Tokenizer) -> bool:
    """Whether the model's settings promise that every text decodes to itself: spaces are kept as they are, unknown
    characters fall back to bytes, and the only normalisation is our own escape, which decoding undoes."""
    settings = read_settings(tokenizer.processor.serialized_model_proto())
    return (
        settings.byte_fallback
        and settings.escape_whitespaces
        and not settings.space_is_suffix
        and not settings.add_dummy_prefix
        and not settings.remove_extra_whitespaces
        and bool(settings.charsmap)
        and _only_escapes(tokenizer)
        and tokenizer.escapes
    )


def _can_cut(tokenizer: Tokenizer) -> bool:
    settings = read_settings(tokenizer.processor.serialized_model_proto())
    return (
        settings.is_bpe
        and settings.byte_fallback
        and settings.escape_whitespaces
        and not settings.has_user_defined
        and not settings.space_is_suffix
        and not settings.add_dummy_prefix
        and not settings.remove_extra_whitespaces
        and (not settings.charsmap or _only_escapes(tokenizer))
    )


def _only_escapes(tokenizer: Tokenizer) -> bool:
    model = tokenizer.processor.serialized_model_proto()
    normalizer = sentencepiece.SentencePieceNormalizer(model_proto=model)
    # A release that can't list a model's rules encodes whole texts, with the same result.
    return hasattr(normalizer, "Decompile") and set(map(tuple, normalizer.Decompile())) == _ESCAPE_MAP


def _escaped_places(data: Bytes) -> npt.NDArray[np.int64]:
    """Where characters stand that the escape rules rewrite."""
    found = []
    for character in _ESCAPED:
        pattern = character.encode()
        starts = np.flatnonzero(data[:-2] == pattern[0])
        found.append(starts[(data[starts + 1] == pattern[1]) & (data[starts + 2] == pattern[2])])
    return np.concatenate(found)
