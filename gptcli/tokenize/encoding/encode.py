"""Encoding columns of documents, exactly as whole texts are encoded, at the speed of a table look-up.

A text is split where its parts may be encoded alone (splitting.py). Most parts of real text repeat: each distinct one
is numbered (interning.py) and encoded once, and a column's tokens are copied together from the table of their ids.
Where a tokenizer allows no split, texts are encoded whole by its engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gptcli.runtime.compiled import compiled, readonly
from gptcli.tokenize.encoding.chunks import Bytes, Offsets, flattened, slices, starts_with, text_bytes
from gptcli.tokenize.encoding.interning import Codes, Interner
from gptcli.tokenize.encoding.splitting import Splitting, splitting_of
from gptcli.tokenizer import Tokenizer

Ids = npt.NDArray[np.unsignedinteger[Any]]
Placed = tuple[Offsets, Codes, Ids, Offsets]  # where parts start, their numbers, and ids with the span of each number

WIDE_FROM = 1 << 16  # vocabularies beyond this many ids take 32 bits a token
PARTS_AT_ONCE = 1 << 18
CACHE_BYTES = 32 << 20  # of distinct parts; the table starts anew when it holds more
LONGEST_PART = 32 << 20  # bytes: an engine takes some 40 bytes of memory, and a microsecond or two, for each of them
_SPAN_BITS = 26  # of a part's length in ids
_LENGTH = (1 << _SPAN_BITS) - 1
_AS_TEXT = b"\xff"  # in no UTF-8: marks a part that is not encoded as its like inside a text is


@dataclass(frozen=True)
class Encoded:
    """Documents as they stand in a token shard: `tokens` of all end to end, with bos and eos; `offsets` int64
    (len+1) of the documents in them; `bytes` int64, the UTF-8 length of each text."""

    tokens: Ids
    offsets: Offsets
    bytes: Offsets


class PartTooLongError(Exception):
    """A document holds `size` bytes that can't be split, more than LONGEST_PART; `document`: its place in the array."""

    def __init__(self, document: int, size: int) -> None:
        super().__init__(f"document {document} holds {size} bytes that can't be split")
        self.document, self.size = document, size


class Encoder:
    """Encodes large_string arrays with one tokenizer; keeps the parts it has seen from call to call.

    `why_whole`: why this tokenizer's texts are encoded whole, or "".
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.dtype: type[np.uint16] | type[np.uint32] = np.uint16 if tokenizer.vocab_size <= WIDE_FROM else np.uint32
        found = splitting_of(tokenizer)
        self.why_whole = found if isinstance(found, str) else ""
        self._parts = None if isinstance(found, str) else _Parts(tokenizer, found, self.dtype)

    def documents(self, texts: Any) -> Iterator[Encoded]:
        """The documents of a large_string array without nulls, in order, a bounded number of bytes at a time.

        Raises PartTooLongError.
        """
        bos_id = -1 if self.tokenizer.bos_id is None else self.tokenizer.bos_id
        done = 0
        for part in slices(texts):
            _, offsets = text_bytes(part)
            try:
                tokens, token_offsets = self._encode(part, bos_id, self.tokenizer.eos_id)
            except PartTooLongError as error:
                raise PartTooLongError(done + error.document, error.size) from None
            yield Encoded(tokens, token_offsets, np.diff(offsets))
            done += len(part)

    def encode(self, texts: Any) -> tuple[Ids, Offsets]:
        """Ids of all texts end to end without bos and eos, and the texts' len+1 offsets in them.

        Raises PartTooLongError.
        """
        return self._encode(texts, -1, -1)

    def _encode(self, texts: Any, bos_id: int, eos_id: int) -> tuple[Ids, Offsets]:
        _, offsets = text_bytes(texts)
        placing = _Placing(self.dtype, offsets, bos_id, eos_id)
        if self._parts is None:
            _require_short(offsets, offsets[:-1], offsets[1:])
            placing.add(*_whole_texts(self.tokenizer, texts, offsets, self.dtype))
        else:
            for found in self._parts.of(texts):
                placing.add(*found)
        return placing.finish()


class _Parts:
    """The distinct parts seen so far and their ids, those of part i being `spans[i]` (see `_spans`) of `flat`."""

    def __init__(self, tokenizer: Tokenizer, splitting: Splitting, dtype: Any) -> None:
        self._tokenizer, self._splitting = tokenizer, splitting
        self._interner = Interner()
        self._scratch = np.empty(PARTS_AT_ONCE + 1, np.int64)
        self._filled = 0
        self.flat: Ids = np.empty(1 << 16, dtype)
        self.spans: Offsets = np.zeros(1 << 14, np.int64)

    def of(self, texts: Any) -> Iterator[Placed]:
        """The parts of the texts (a large_string array), in order, some at a time."""
        data, offsets = text_bytes(texts)
        if self._interner.nbytes > CACHE_BYTES:
            self._interner.clear()
            self._filled = 0
        wholes = None if self._splitting.wholes is None else self._splitting.wholes(texts)
        for first, last, is_whole in _runs(wholes, len(texts)):
            if is_whole:
                _require_short(offsets, offsets[first:last], offsets[first + 1 : last + 1])
                run = texts.slice(first, last - first)
                yield _whole_texts(self._tokenizer, run, offsets[first : last + 1], self.flat.dtype)
                continue
            place = int(offsets[first])
            while place < offsets[last]:
                count, place = self._splitting.splitter.bounds(
                    data[: offsets[last]], offsets[: last + 1], place, self._scratch
                )
                starts, stops = self._scratch[:count], self._scratch[1 : count + 1]
                _require_short(offsets, starts, stops)
                yield starts, self._codes(data, offsets, starts, stops), self.flat, self.spans

    def _codes(self, data: Bytes, offsets: Offsets, starts: Offsets, stops: Offsets) -> Codes:
        """The numbers of parts; new ones are encoded."""
        first = len(self._interner)
        codes = self._interner.codes(data, starts, stops)
        if self._splitting.first_is_apart:
            begins = np.isin(starts, offsets[:-1])
            codes[begins] = self._marked(data, starts[begins], stops[begins])
        if len(self._interner) > first:
            self._encode_new(first)
        return codes

    def _marked(self, data: Bytes, starts: Offsets, stops: Offsets) -> Codes:
        """Numbers of parts that are encoded as texts are, apart from those of the same bytes elsewhere."""
        marked = [_AS_TEXT + data[start:stop].tobytes() for start, stop in zip(starts, stops, strict=True)]
        ends = np.cumsum([0, *map(len, marked)], dtype=np.int64)
        return self._interner.codes(np.frombuffer(b"".join(marked), np.uint8), ends[:-1], ends[1:])

    def _encode_new(self, first: int) -> None:
        parts = self._interner.strings(first)
        self.spans = _grown(self.spans, first + len(parts))
        is_text = starts_with(parts, _AS_TEXT)
        inside = np.flatnonzero(~is_text)
        for numbers, ids, ends in self._splitting.encode(parts if len(inside) == len(parts) else parts.take(inside)):
            self._keep(first + inside[numbers], ids, ends)
        if is_text.any():
            texts = [part[1:].decode() for part in parts.filter(pa.array(is_text)).to_pylist()]
            self._keep(first + np.flatnonzero(is_text), *flattened(map(self._tokenizer.encode, texts)))

    def _keep(self, numbers: Offsets, ids: npt.NDArray[np.integer[Any]], ends: Offsets) -> None:
        """The parts with these numbers have the ids between `ends`, in turn."""
        self.flat = _grown(self.flat, self._filled + len(ids))
        self.flat[self._filled : self._filled + len(ids)] = ids
        self.spans[numbers] = _spans(self._filled + ends)
        self._filled += len(ids)


class _Placing:
    """Puts the ids of parts, in order, where documents have them: after bos, before eos (-1: none)."""

    def __init__(self, dtype: Any, offsets: Offsets, bos_id: int, eos_id: int) -> None:
        self._dtype, self._offsets, self._bos_id, self._eos_id = dtype, offsets, bos_id, eos_id
        self._token_offsets = np.zeros(len(offsets), np.int64)
        self._document = 0  # the next to begin
        self._filled = 0
        self._out: list[Ids] = []

    def add(self, starts: Offsets, codes: Codes, flat: Ids, spans: Offsets) -> None:
        """The parts that start at the bytes `starts`; part i's ids are spans[codes[i]] of `flat`."""
        if not len(starts):
            return
        begun = int(np.searchsorted(self._offsets[:-1], starts[-1], side="right"))
        self._fill(begun, starts, codes, flat, spans)

    def finish(self) -> tuple[Ids, Offsets]:
        """All tokens, and the documents' len+1 offsets in them."""
        count = len(self._offsets) - 1
        nothing = np.empty(0, np.int64)
        self._fill(count, nothing, np.empty(0, np.int32), np.empty(0, self._dtype), nothing)
        if count and self._eos_id >= 0:
            self._out.append(np.array([self._eos_id], self._dtype))
            self._filled += 1
        self._token_offsets[count] = self._filled
        if len(self._out) == 1:
            return self._out[0], self._token_offsets
        return np.concatenate([np.empty(0, self._dtype), *self._out]), self._token_offsets

    def _fill(self, begun: int, starts: Offsets, codes: Codes, flat: Ids, spans: Offsets) -> None:
        ended = max(begun - 1, 0) - max(self._document - 1, 0)
        room = _count(codes, spans)
        room += (self._bos_id >= 0) * (begun - self._document) + (self._eos_id >= 0) * ended
        out = np.empty(room, self._dtype)
        _place(
            out, readonly(starts), codes, flat, spans, readonly(self._offsets), self._document, begun,
            self._token_offsets, self._filled, self._bos_id, self._eos_id,
        )  # fmt: skip
        self._document, self._filled = begun, self._filled + room
        self._out.append(out)


@compiled
def _count(codes: Codes, spans: Offsets) -> int:
    """How many ids the parts have."""
    found = 0
    for code in codes:
        found += spans[np.uint64(code)] & _LENGTH
    return found


@compiled
def _place(
    out: Any,
    starts: Offsets,
    codes: Codes,
    flat: Any,
    spans: Offsets,
    offsets: Offsets,
    document: int,
    begun: int,
    token_offsets: Offsets,
    before: int,
    bos_id: int,
    eos_id: int,
) -> None:
    """Fill `out`: before the first part at or after a document's start, end the document before and begin it.

    `document`: the next to begin; `begun`: where that stands at the end; `before`: tokens placed before `out`.
    """
    filled = 0
    for number in range(len(starts) + 1):
        while document < begun and (number == len(starts) or offsets[document] <= starts[number]):
            if document > 0 and eos_id >= 0:
                out[filled] = eos_id
                filled += 1
            token_offsets[document] = before + filled
            if bos_id >= 0:
                out[filled] = bos_id
                filled += 1
            document += 1
        if number < len(starts):
            span = spans[np.uint64(codes[number])]
            begin = np.uint64(span >> _SPAN_BITS)
            for place in range(begin, begin + np.uint64(span & _LENGTH)):
                out[np.uint64(filled)] = flat[place]
                filled += 1


def _whole_texts(tokenizer: Tokenizer, texts: Any, offsets: Offsets, dtype: Any) -> Placed:
    """Texts that lie between `offsets`, each as one part."""
    flat, ends = flattened(tokenizer.encode_batch(texts.to_pylist(), threads=1))
    for document in np.flatnonzero(np.diff(ends) > _LENGTH):  # a model that normalises may write one character as many
        raise PartTooLongError(int(document), int(offsets[document + 1] - offsets[document]))
    with_text = np.flatnonzero(np.diff(offsets)).astype(np.int32)
    return offsets[with_text], with_text, flat.astype(dtype), _spans(ends)


def _spans(ends: Offsets) -> Offsets:
    """Where the lists that end at `ends` (len+1) begin, and their lengths, in one number each: begin << 26 | length."""
    return ends[:-1] << _SPAN_BITS | np.diff(ends)


def _require_short(offsets: Offsets, starts: Offsets, stops: Offsets) -> None:
    """PartTooLongError for the first part that is, of the documents between `offsets`."""
    if not len(starts) or stops[-1] - starts[0] <= LONGEST_PART:
        return
    for number in np.flatnonzero(stops - starts > LONGEST_PART):
        document = int(np.searchsorted(offsets, starts[number], side="right")) - 1
        raise PartTooLongError(document, int(stops[number] - starts[number]))


def _runs(flags: Any, count: int) -> Iterator[tuple[int, int, bool]]:
    """(first, last + 1, flag) of runs of equal flags; None: none is set."""
    if flags is None or not flags.any():
        yield 0, count, False
        return
    edges = [0, *(np.flatnonzero(np.diff(flags)) + 1).tolist(), count]
    for first, last in pairwise(edges):
        yield first, last, bool(flags[first])


def _grown(array: Any, length: int) -> Any:
    """The array, or a copy of it with room for at least `length` entries."""
    if length <= len(array):
        return array
    larger = np.zeros(max(length, 2 * len(array)), array.dtype)
    larger[: len(array)] = array
    return larger
