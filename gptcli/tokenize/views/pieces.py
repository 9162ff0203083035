"""What the ids of a vocabulary stand for, as bytes: where a token begins and ends in the text it came from.

A model of ours writes U+2581 as U+E000 'B' and U+E000 as U+E000 'A' before it is cut into pieces, so its pieces' bytes
are those of the escaped text. Four escaped bytes stand for three stored ones; a place inside an escape is taken for the
beginning of the character that it stands for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gptcli.engines.engine import Engine
from gptcli.tokenize.encoding.chunks import Bytes, Offsets, text_bytes
from gptcli.tokenizer import Tokenizer

PLAIN, BYTE, CONTROL, UNKNOWN = range(4)  # kinds of ids

_ESCAPED = re.compile(rb"\xee\x80\x80[AB]")
_BEGUN = re.compile(rb"\xee(?:\x80\x80?)?\Z")
_MEANINGS = {b"\xee\x80\x80A": "\ue000".encode(), b"\xee\x80\x80B": "\u2581".encode()}
_ESCAPED_BYTES = 4
_AT_ONCE = 1 << 20  # tokens whose bytes are gathered at once


@dataclass(frozen=True)
class Pieces:
    """The vocabulary as arrays: `data` all pieces' bytes end to end, `offsets` int64 [vocab_size+1] into it, `kinds`
    uint8 [vocab_size]; `escapes`: whether the bytes are of escaped text."""

    data: Bytes
    offsets: Offsets
    kinds: npt.NDArray[np.uint8]
    escapes: bool

    @staticmethod
    def of(tokenizer: Tokenizer) -> Pieces:
        """Control ids have no bytes; the unknown id has those it decodes to."""
        written = [_written(tokenizer.engine, token_id) for token_id in range(tokenizer.vocab_size)]
        lengths = np.fromiter((len(piece) for _, piece in written), np.int64, len(written))
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        kinds = np.fromiter((kind for kind, _ in written), np.uint8, len(written))
        data = np.frombuffer(b"".join(piece for _, piece in written), np.uint8)
        pieces = Pieces(data, offsets, kinds, False)
        return replace(pieces, escapes=pieces.written(tokenizer.encode("\u2581")) in _MEANINGS)

    @property
    def lengths(self) -> Offsets:
        """Bytes of each id, int64 [vocab_size]."""
        return np.diff(self.offsets)

    def written(self, ids: Any) -> bytes:
        """The bytes of `ids` (an integer array, all in the vocabulary) end to end, escapes as they are."""
        array = pa.Array.from_buffers(
            pa.large_binary(), len(self.kinds), [None, pa.py_buffer(self.offsets), pa.py_buffer(self.data)]
        )
        return text_bytes(array.take(pa.array(np.asarray(ids, np.int64))))[0].tobytes()

    def stored(self, ids: Any) -> bytes:
        """The bytes of the text that `ids` stand for."""
        return b"".join(self.stored_parts(ids))

    def stored_parts(self, ids: Any) -> Iterator[bytes]:
        """`stored` in parts, for documents of any length."""
        held = b""  # what may begin an escape
        for start in range(0, len(ids), _AT_ONCE):
            written = held + self.written(ids[start : start + _AT_ONCE])
            begun = _BEGUN.search(written) if self.escapes and start + _AT_ONCE < len(ids) else None
            held = begun[0] if begun else b""
            written = written[: len(written) - len(held)]
            yield _ESCAPED.sub(lambda found: _MEANINGS[found[0]], written) if self.escapes else written

    def places(self, ids: Any) -> Offsets:
        """Where each of `ids` begins in `stored(ids)`, and the end: int64 [len(ids)+1]."""
        ends = np.cumsum(self.lengths[np.asarray(ids, np.int64)])
        places = np.concatenate([np.zeros(1, np.int64), ends])
        if not self.escapes:
            return places
        starts = np.array([found.start() for found in _ESCAPED.finditer(self.written(ids))], np.int64)
        if not len(starts):
            return places
        before = np.searchsorted(starts, places)  # escapes that begin before a place
        last = starts[np.maximum(before - 1, 0)]
        is_inside = (before > 0) & (places < last + _ESCAPED_BYTES)
        return np.where(is_inside, last - (before - 1), places - before)

    def place(self, ids: Any, number: int) -> int:
        """`places(ids)[number]`, for documents of any length: little is held at once."""
        whole = escapes = 0
        carried = b""
        for start in range(0, number, _AT_ONCE):
            part = np.asarray(ids[start : min(start + _AT_ONCE, number)], np.int64)
            whole += int(self.lengths[part].sum())
            if self.escapes:
                written = carried + self.written(part)
                escapes += len(_ESCAPED.findall(written))
                carried = written[1 - _ESCAPED_BYTES :]
        if not self.escapes:
            return whole
        begun = _ESCAPED.search(carried + self.written(ids[number : number + _ESCAPED_BYTES]))
        if begun and begun.start() < len(carried):
            return whole - escapes - (len(carried) - begun.start())
        return whole - escapes


def spans(tokenizer: Tokenizer, pieces: Pieces, ids: Sequence[int]) -> tuple[bytes, Offsets]:
    """The UTF-8 text that `ids` decode to, and where each id begins in it (and the end): int64 [len(ids)+1].

    Exact to the byte where pieces are written one after another; where a tokenizer does more (folds spaces, say) a
    character belongs to the id that completes it.
    """
    decoded = tokenizer.decode(list(ids)).encode()
    stored, places = pieces.stored(ids), pieces.places(ids)
    if stored == decoded:
        return decoded, places
    if stored == b" " + decoded:  # the space that was put before the first word
        return decoded, np.maximum(places - 1, 0)
    decoder = tokenizer.decoder()
    lengths = [len(decoder.feed(token_id).encode()) for token_id in ids]
    ends = np.minimum(np.cumsum(np.array(lengths, np.int64)), len(decoded))
    if len(ends):
        ends[-1] = len(decoded)
    return decoded, np.concatenate([np.zeros(1, np.int64), ends])


def _written(engine: Engine, token_id: int) -> tuple[int, bytes]:
    """The kind of an id and the bytes it is written as."""
    if engine.is_control(token_id):
        return CONTROL, b""
    data = engine.piece_bytes(token_id)
    if data is None:  # the unknown id, or one that no piece has
        return UNKNOWN, engine.decode([token_id]).encode()
    return (BYTE if engine.is_byte(token_id) else PLAIN), data
