"""Prompts that begin alike: who reads the shared part, and who takes it over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gptcli.inference.reader import Reader

SHARED_TOKENS = 16  # fewer are read again sooner than waited for

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Source:
    """The best place to begin a prompt from: a slot, and how many of its tokens are the prompt's."""

    slot: int
    length: int


class Prefixes:
    """The ids that each slot of a reader holds, so that a new prompt begins where the one most like it is."""

    def __init__(self, reader: Reader, slots: int) -> None:
        self._reader = reader
        self._held: list[Ids] = [np.empty(0, np.int64) for _ in range(slots)]

    def rounds(self, prompts: dict[int, Sequence[int]]) -> list[list[int]]:
        """The slots of `prompts` {slot: ids} in the order to be read: those of one round together, each sharing more
        with what was held before its round than with any neighbour in it."""
        arrays = {slot: np.asarray(ids, np.int64) for slot, ids in prompts.items()}
        settled: list[Ids] = [held for slot, held in enumerate(self._held) if slot not in prompts]
        waiting, out = list(prompts), []
        while waiting:
            now: list[int] = []
            for slot in waiting:
                known = max((_common(arrays[slot], held) for held in settled), default=0)
                if not any(_common(arrays[slot], arrays[one]) >= known + SHARED_TOKENS for one in now):
                    now.append(slot)
            settled += [arrays[slot] for slot in now]
            waiting = [slot for slot in waiting if slot not in now]
            out.append(now)
        return out

    def begin(self, slots: Sequence[int], prompts: dict[int, Sequence[int]]) -> list[list[int]]:
        """Let each slot hold what it can of its prompt; returns what remains to be read of each, at least one id."""
        # A slot that is begun anew itself is no source for the others: it may be overwritten by then.
        others = [slot for slot in range(len(self._held)) if slot not in slots]
        rest = []
        for slot in slots:
            ids = np.asarray(prompts[slot], np.int64)
            source = self._source(ids, [slot, *others])
            self._reader.copy(source.slot, slot, source.length)
            self._held[slot] = ids
            rest.append(list(prompts[slot][source.length :]))
        return rest

    def move(self, source: int, target: int) -> None:
        """Let `target` hold all that `source` does."""
        self._reader.copy(source, target, self._reader.lengths[source])
        self._held[target] = self._held[source]

    def _source(self, prompt: Ids, slots: Sequence[int]) -> _Source:
        """The first of `slots` that holds the most of the prompt, whose last id is always read, for its logits."""
        lengths = [min(_common(prompt, self._held[slot]), self._reader.lengths[slot]) for slot in slots]
        best = max(range(len(slots)), key=lengths.__getitem__)
        return _Source(slots[best], min(lengths[best], len(prompt) - 1))


def _common(left: Ids, right: Ids) -> int:
    """How many leading ids two sequences share."""
    size = min(len(left), len(right))
    differ = np.flatnonzero(left[:size] != right[:size])
    return int(differ[0]) if len(differ) else size
