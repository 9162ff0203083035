"""BPE itself, for the short parts that most new parts are: a quarter of the time that a call of the engine takes.

The rule is sentencepiece's (Kudo & Richardson 2018): of all neighbours whose joined spelling is a piece, those with the
highest score are merged first, the leftmost of equals, until none is left; a character that ends outside the vocabulary
becomes its bytes. What is out of the ordinary is left to the engine: long parts, and characters that are rewritten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gptcli.engines.engine import SPACE
from gptcli.engines.sentence_piece import SentencePiece
from gptcli.runtime.compiled import compiled, inlined, readonly
from gptcli.tokenize.encoding.chunks import Bytes, Offsets
from gptcli.tokenize.encoding.interning import Codes, Interner

LONGEST = 48  # characters: the loop over neighbours is quadratic
_REWRITTEN = ("\u2581", "\ue000")
_U64 = np.uint64


@dataclass(frozen=True)
class Merger:
    """A vocabulary as symbols: numbers that `symbols` gives to spellings, pieces first.

    piece_ids: int64, the vocabulary's id of each symbol that is a piece; scores: float32 of them; byte_ids: int64
    [256]; pairs, merged: an open hash table from left << 32 | right to the symbol that both become, -1: empty.
    """

    symbols: Interner
    piece_ids: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    byte_ids: npt.NDArray[np.int64]
    pairs: npt.NDArray[np.uint64]
    merged: npt.NDArray[np.int64]
    rewritten: Codes

    @staticmethod
    def of(engine: SentencePiece, pieces: list[tuple[int, bytes]]) -> Merger | None:
        """The merger of a BPE model with byte fallback and ordinary pieces alone, those of `spelled_pieces`.

        None where two of them are spelled alike.
        """
        data = np.frombuffer(b"".join(piece for _, piece in pieces), np.uint8)
        ends = np.cumsum([0, *(len(piece) for _, piece in pieces)], dtype=np.int64)
        symbols = Interner()
        symbols.codes(data, ends[:-1], ends[1:])
        if len(symbols) != len(pieces):
            return None
        pairs, merged = _pairs(symbols, data, ends)
        ids = np.array([number for number, _ in pieces], np.int64)
        scores = np.array(engine.processor.get_score(ids.tolist()), np.float32)
        byte_ids = np.array([engine.processor.piece_to_id(f"<0x{byte:02X}>") for byte in range(256)], np.int64)
        escaped = np.frombuffer("".join(_REWRITTEN).encode(), np.uint8)
        rewritten = symbols.codes(escaped, np.array([0, 3]), np.array([3, 6]))
        return Merger(symbols, ids, scores, byte_ids, pairs, merged, rewritten)

    def encode(self, data: Bytes, ends: Offsets) -> tuple[npt.NDArray[np.int64], Offsets, npt.NDArray[np.int64]]:
        """Ids of the parts that lie end to end in `data` between the len+1 `ends`, and the ids' len+1 ends; also which
        parts were left out (no id) for the engine."""
        starts = np.flatnonzero((data & 0xC0) != 0x80)
        stops = np.append(starts[1:], len(data))
        codes = self.symbols.codes(data, starts, stops)
        ids, id_ends = np.empty(len(data), np.int64), np.zeros(len(ends), np.int64)
        left = np.zeros(len(ends) - 1, np.bool_)
        filled = _merge(
            readonly(data), readonly(np.searchsorted(starts, ends)), readonly(starts), codes, self.piece_ids,
            self.scores, self.byte_ids, self.pairs, self.merged, self.rewritten, ids, id_ends, left,
        )  # fmt: skip
        return ids[:filled], id_ends, np.flatnonzero(left)


def spelled_pieces(engine: SentencePiece) -> list[tuple[int, bytes]]:
    """(id, UTF-8 as it stands in running text) of the pieces that are no control, unknown or byte piece."""
    processor = engine.processor
    every = list(range(engine.vocab_size))
    apart = (processor.is_control, processor.is_unknown, processor.is_byte)
    left_out = {number for tells in apart for number, found in zip(every, tells(every), strict=True) if found}
    spelled = zip(every, processor.id_to_piece(every), strict=True)
    return [(number, piece.replace(SPACE, " ").encode()) for number, piece in spelled if number not in left_out]


def _pairs(symbols: Interner, data: Bytes, ends: Offsets) -> tuple[Any, Any]:
    """The hash table of every way to join two symbols to a piece; `data`, `ends`: the pieces, numbered from 0."""
    piece = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
    inside = np.flatnonzero((data & 0xC0) != 0x80)
    inside = inside[inside > ends[piece[inside]]]
    piece = piece[inside]
    lefts = symbols.codes(data, ends[piece], inside)
    rights = symbols.codes(data, inside, ends[piece + 1])
    size = 1 << max(4, int(2 * len(piece)).bit_length())
    pairs, merged = np.zeros(size, np.uint64), np.full(size, -1, np.int64)
    _enter(lefts, rights, piece, pairs, merged)
    return pairs, merged


@inlined
def _home(key: Any, mask: Any) -> Any:
    mixed = key * _U64(0x9E3779B97F4A7C15)
    return (mixed ^ (mixed >> _U64(32))) & mask


@compiled
def _enter(lefts: Codes, rights: Codes, piece: Any, pairs: Any, merged: Any) -> None:
    mask = _U64(len(pairs) - 1)
    for number in range(len(lefts)):
        key = (_U64(lefts[number]) << _U64(32)) | _U64(rights[number])
        slot = _home(key, mask)
        while merged[slot] >= 0 and pairs[slot] != key:
            slot = (slot + _U64(1)) & mask
        pairs[slot], merged[slot] = key, piece[number]


@inlined
def _joined(left: Any, right: Any, pairs: Any, merged: Any, mask: Any) -> Any:
    """The symbol that two neighbours become, or -1."""
    key = (_U64(left) << _U64(32)) | _U64(right)
    slot = _home(key, mask)
    while merged[slot] >= 0 and pairs[slot] != key:
        slot = (slot + _U64(1)) & mask
    return merged[slot]


@compiled
def _merge(
    data: Bytes, firsts: Offsets, starts: Offsets, codes: Codes, piece_ids: Any, scores: Any,
    byte_ids: Any, pairs: Any, merged: Any, rewritten: Codes, ids: Any, id_ends: Offsets, left: Any,
) -> int:  # fmt: skip
    """Part i has the characters firsts[i] to firsts[i+1]-1, which start at the bytes `starts` and have `codes`."""
    mask, pieces = _U64(len(pairs) - 1), len(piece_ids)
    symbol, place, after = np.empty(LONGEST, np.int64), np.empty(LONGEST, np.int64), np.empty(LONGEST, np.int64)
    filled = 0
    for part in range(len(firsts) - 1):
        first, count = firsts[part], firsts[part + 1] - firsts[part]
        if count > LONGEST:
            left[part] = True
        for number in range(min(count, LONGEST)):
            symbol[number], place[number] = codes[first + number], first + number
            left[part] |= symbol[number] == rewritten[0] or symbol[number] == rewritten[1]
        if left[part]:
            id_ends[part + 1] = filled
            continue
        for number in range(count - 1):
            after[number] = _joined(symbol[number], symbol[number + 1], pairs, merged, mask)
        while count > 1:
            best = -1
            for number in range(count - 1):
                if after[number] >= 0 and (best < 0 or scores[after[number]] > scores[after[best]]):
                    best = number
            if best < 0:
                break
            symbol[best] = after[best]
            count -= 1
            for number in range(best + 1, count):
                symbol[number], place[number] = symbol[number + 1], place[number + 1]
                after[number - 1] = after[number]
            if best > 0:
                after[best - 1] = _joined(symbol[best - 1], symbol[best], pairs, merged, mask)
            if best < count - 1:
                after[best] = _joined(symbol[best], symbol[best + 1], pairs, merged, mask)
        for number in range(count):
            if symbol[number] < pieces:
                ids[filled] = piece_ids[symbol[number]]
                filled += 1
                continue
            byte = starts[place[number]]
            while True:
                ids[filled] = byte_ids[data[byte]]
                filled += 1
                byte += 1
                if byte >= len(data) or data[byte] & 0xC0 != 0x80:
                    break
        id_ends[part + 1] = filled
    return filled
