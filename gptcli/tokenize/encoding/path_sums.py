"""When a unigram model's best path may be looked for part by part.

No piece crosses a cut (cuts.py), so every path passes it, and the best path of the whole is made of the best of its
parts (Viterbi). sentencepiece adds scores in 32-bit floats, though, where rounding depends on all that came before. The
scores of our own models are multiples of 1/64 (learning/train.py): sums of them are exact, whatever the order, as long
as they stay below 2**18, and then ties are broken alike in a part and in the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gptcli.engines.sentence_piece import SentencePiece
from gptcli.runtime.compiled import compiled, readonly
from gptcli.tokenize.encoding.chunks import Bytes, Offsets, text_bytes

STEPS = 64  # in a score of 1
MOST_STEPS = 1 << 24  # the whole numbers that a 32-bit float holds
_UNKNOWN_PENALTY = 10  # below the lowest score, for a character that is no piece


@dataclass(frozen=True)
class PathSums:
    """`costs`: int64 [256], the most that a character adds to the best path before it, in steps, by the first of its
    bytes; 0 for the bytes after it."""

    costs: Offsets

    @staticmethod
    def of(engine: SentencePiece, pieces: list[tuple[int, bytes]]) -> PathSums | None:
        """For a model whose pieces are `pieces` (`merging.spelled_pieces`); None where its scores are no such
        multiples."""
        scores = np.array(engine.processor.get_score([number for number, _ in pieces]), np.float64) * STEPS
        if not len(scores) or (scores != np.rint(scores)).any() or scores.max() > 0:
            return None
        steps = -scores.astype(np.int64)
        worst = int(steps.max()) + _UNKNOWN_PENALTY * STEPS
        costs = np.full(256, 2 * worst, np.int64)  # an escaped character is two
        costs[:0x80] = worst
        for (_, piece), cost in zip(pieces, steps.tolist(), strict=True):
            if len(piece) == 1:
                costs[piece[0]] = cost
        costs[0x80:0xC0] = 0
        return PathSums(costs)

    def wholes(self, texts: Any) -> npt.NDArray[np.bool_]:
        """Which documents of a large_string array may have inexact sums."""
        data, offsets = text_bytes(texts)
        found = np.zeros(len(texts), np.bool_)
        _mark(readonly(data), readonly(offsets), self.costs, found)
        return found


@compiled
def _mark(data: Bytes, offsets: Offsets, costs: Offsets, found: Any) -> None:
    for document in range(len(found)):
        steps = 0
        for place in range(offsets[document], offsets[document + 1]):
            steps += costs[data[place]]
        found[document] = steps >= MOST_STEPS
