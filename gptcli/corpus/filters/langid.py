"""Which language a text is written in: py3langid's model, walked many bytes at a time.

py3langid (Lui & Baldwin 2012, "langid.py") finds byte n-grams with an automaton, a byte at a time, and scores them by
naive Bayes. An automaton of n-grams forgets all but the last few bytes, so a text may be cut into lanes that are walked
side by side, each begun a few bytes early: the same counts, several times as fast.
"""

from __future__ import annotations

import importlib
import math
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from gptcli.errors import SpecError

UNKNOWN = "und"  # ISO 639-2 for "undetermined"

_LANES = 384
_OUTSIDE = 0xFF  # a byte that UTF-8 never has: it leads back to the automaton's start


@dataclass(frozen=True)
class LanguageModel:
    """Naive Bayes over byte n-grams; `bayes` is (n-grams, classes), `moves` (rows, 256)."""

    bayes: np.ndarray
    prior: np.ndarray
    codes: tuple[str, ...]
    moves: np.ndarray  # flat: the state after a byte
    rows: np.ndarray  # by state: where its 256 moves begin
    found: np.ndarray  # by state: the n-gram that ends there, or -1
    memory: int  # bytes: what came before them cannot matter
    aliases: tuple[tuple[int, int], ...]  # classes of the same code

    def classify(self, text: str) -> tuple[str, float]:
        """The likeliest ISO 639-1 code and its probability among all the model's languages.

        (UNKNOWN, 0.0) where nothing in the text tells a language.
        """
        data = unicodedata.normalize("NFC", text.lower() if text.isupper() else text).encode("utf-8", "surrogatepass")
        grams, counts = self._count(data)
        if not len(grams):
            return UNKNOWN, 0.0
        # einsum, not a product by BLAS: the order of its sums does not hang on the number of threads
        scores = np.einsum("i,ij->j", np.log1p(counts, dtype=np.float32), self.bayes[grams]) + self.prior
        scores = scores.astype(np.float64) / math.sqrt(len(data))  # so a softmax means the same at every length
        likely = np.exp(scores - scores.max())
        likely /= likely.sum()
        for first, second in self.aliases:
            likely[first] += likely[second]
            likely[second] = 0.0
        best = int(likely.argmax())
        return self.codes[best], float(likely[best])

    def _count(self, data: bytes) -> tuple[np.ndarray, np.ndarray]:
        """The n-grams in UTF-8 `data` and how often each stands there."""
        found = self.found[self._states(data)]
        grams = np.sort(found[found >= 0])
        starts = np.flatnonzero(np.concatenate((np.ones(min(1, len(grams)), bool), grams[1:] != grams[:-1])))
        return grams[starts], np.diff(starts, append=len(grams))

    def _states(self, data: bytes) -> np.ndarray:
        """The automaton's states after each byte, in no particular order."""
        lanes = max(1, min(_LANES, len(data)))
        steps = -(-len(data) // lanes)
        padded = np.full(self.memory + lanes * steps, _OUTSIDE, dtype=np.uint8)
        padded[self.memory : self.memory + len(data)] = np.frombuffer(data, dtype=np.uint8)
        read = as_strided(padded, (self.memory + steps, lanes), (1, steps)).astype(np.int64)
        state = np.zeros(lanes, dtype=np.int64)
        states = np.empty((steps, lanes), dtype=np.int64)
        for step, values in enumerate(read):
            state = self.moves[self.rows[state] + values]
            if step >= self.memory:
                states[step - self.memory] = state
        return states.ravel()


@lru_cache(maxsize=1)
def language_model() -> LanguageModel:
    """py3langid's own model (in its wheel; about a second and 80 MB a process). SpecError where it is not installed."""
    try:
        modelio: Any = importlib.import_module("py3langid.modelio")
        folder = Path(str(modelio.__file__)).parent
        bayes, prior, codes, moves, rows, found = modelio.load_model(folder / "data" / "model.npz.xz")
    except (ImportError, AttributeError, OSError, ValueError) as error:
        raise SpecError(
            f"the language filter needs py3langid 0.4 or later ({error})", "pip install 'py3langid>=0.4'"
        ) from error
    first: dict[str, int] = {}
    for place, code in enumerate(codes):
        first.setdefault(code, place)
    flat = np.asarray(moves).astype(np.uint32)
    starts = np.asarray(rows).astype(np.int64) << 8
    return LanguageModel(
        bayes=np.asarray(bayes).astype(np.float32),
        prior=np.asarray(prior).astype(np.float32),
        codes=tuple(codes),
        moves=flat,
        rows=starts,
        found=np.asarray(found, dtype=np.int32),
        memory=_memory(flat, starts),
        aliases=tuple((first[code], place) for place, code in enumerate(codes) if first[code] != place),
    )


def _memory(moves: np.ndarray, rows: np.ndarray) -> int:
    """Bytes on the longest way from the start to a state that no shorter way reaches: the longest n-gram."""
    seen = np.zeros(len(rows), dtype=bool)
    seen[0] = True
    front, length = np.zeros(1, dtype=np.int64), 0
    while True:
        after = np.unique(moves[(rows[front][:, None] + np.arange(256)).ravel()])
        front = after[~seen[after]].astype(np.int64)
        if not len(front):
            return length
        seen[front] = True
        length += 1
