"""Generation for many prompts at once.

Continuous batching (Yu et al. 2022, Orca): a finished row leaves its slot, and the next prompt takes it, so that no
step computes what nobody waits for. Prompts go by their ids in order, so that those that begin alike meet.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gptcli.errors import SpecError
from gptcli.inference.capacity import choose_batch_size
from gptcli.inference.engine import open_reader
from gptcli.inference.generate import check_prompt
from gptcli.inference.prefixes import Prefixes
from gptcli.inference.sampling import Sampling, sample
from gptcli.inference.stream import TextWatcher
from gptcli.models.family import CausalLM
from gptcli.tokenizer import Tokenizer

Ended = Literal["stop_id", "stop_text", "max_tokens", "positions"]


@dataclass(frozen=True)
class Generated:
    """What follows one prompt.

    `ids` are the tokens drawn, those of a stop string among them, a stop id not; `logprobs` are theirs, in nats, under
    the model's own distribution (before temperature, penalty and truncation). `text` ends before the stop string.
    """

    ids: tuple[int, ...]
    text: str
    ended: Ended
    logprobs: tuple[float, ...]


@dataclass
class _Row:
    """A prompt being continued; `ids` begin with the prompt."""

    number: int
    ids: list[int]
    begin: int
    settings: Sampling
    watcher: TextWatcher
    logprobs: list[float] = field(default_factory=list)
    ended: Ended | None = None

    def take(self, token: int, logprob: float, stop_ids: Collection[int], limit: int) -> None:
        """Append a drawn token, or end."""
        if token in stop_ids:
            self.ended = "stop_id"
        else:
            self.ids.append(token)
            self.logprobs.append(logprob)
            self.watcher.feed(token)
            if self.watcher.stopped:
                self.ended = "stop_text"
            elif len(self.ids) - self.begin >= self.settings.max_tokens:
                self.ended = "max_tokens"
            elif len(self.ids) >= limit:
                self.ended = "positions"
        if self.ended is not None:
            self.watcher.finish()
            if self.watcher.stopped:
                self.ended = "stop_text"

    def result(self) -> Generated:
        assert self.ended is not None
        return Generated(tuple(self.ids[self.begin :]), self.watcher.text, self.ended, tuple(self.logprobs))


def generate_batch(
    model: CausalLM,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    settings: Sampling | Sequence[Sampling],
    *,
    stop_ids: Collection[int],
    stop: Sequence[Sequence[str]] = (),
    batch_size: int = 0,
    check: Callable[[], None] | None = None,
    advance: Callable[[int], None] | None = None,
) -> list[Generated]:
    """What follows each prompt of token ids, in their order.

    `settings` and `stop` (strings that end a text, cut off with what follows) are by prompt, or one Sampling and no
    strings for all; `batch_size` rows are continued at once (0: as many as memory allows, at most 16 on a CPU and 64
    elsewhere). `check` is called before every step and may raise; `advance(1)` when a prompt is finished.
    A row's tokens do not depend on its neighbours, beyond the noise of the arithmetic where the model's modules compute
    it (inference/reader.py) and, in bf16 on a CPU, in steps of 8 rows and more (native/packed.py). The model's mode is
    kept. Raises SpecError for a prompt that is empty, leaves no room or
    holds ids that the model hasn't, and for an empty stop string; ArtifactError when the logits are no numbers.
    """
    own = [settings] * len(prompts) if isinstance(settings, Sampling) else list(settings)
    stops = [list(texts) for texts in stop] or [[] for _ in prompts]
    if len(own) != len(prompts) or len(stops) != len(prompts):
        raise SpecError(f"{len(prompts)} prompts have {len(own)} settings and {len(stops)} lists of stop strings")
    limit = model.config.max_position_embeddings
    for number, prompt in enumerate(prompts):
        check_prompt(prompt, model.config, f"prompt {number}")
    rows = [
        _Row(i, list(prompt), len(prompt), own[i], TextWatcher(tokenizer, stops[i], prompt))
        for i, prompt in enumerate(prompts)
    ]
    if not rows:
        return []
    lengths = [min(limit, row.begin + row.settings.max_tokens) for row in rows]
    slots = min(len(rows), batch_size or choose_batch_size(model, max(lengths)))
    was_training = model.training
    model.eval()
    try:
        _Batch(model, rows, slots, frozenset(stop_ids), check, advance).run()
    finally:
        model.train(was_training)
    return [row.result() for row in rows]


class _Batch:
    """Rows in the slots 0 … n-1 of a reader, and those that wait for one."""

    def __init__(
        self,
        model: CausalLM,
        rows: Sequence[_Row],
        slots: int,
        stop_ids: frozenset[int],
        check: Callable[[], None] | None,
        advance: Callable[[int], None] | None,
    ) -> None:
        self._limit, self._stop_ids, self._check, self._advance = (
            model.config.max_position_embeddings,
            stop_ids,
            check,
            advance,
        )
        self._reader = open_reader(model, slots)
        self._prefixes = Prefixes(self._reader, slots)
        self._waiting = sorted(rows, key=lambda row: row.ids, reverse=True)  # the next one last
        self._slots: list[_Row | None] = [None] * slots

    @torch.no_grad()
    def run(self) -> None:
        """Continue every row to its end."""
        while self._waiting or any(self._slots):
            if self._waiting and not all(self._slots):
                self._admit()
            else:
                self._close_up()
                active = [slot for slot, row in enumerate(self._slots) if row is not None]
                self._step(active, [self._row(slot).ids[-1:] for slot in active])

    def _admit(self) -> None:
        """Fill the empty slots, and draw each new row's first token."""
        prompts: dict[int, Sequence[int]] = {}
        for slot, row in enumerate(self._slots):
            if row is None and self._waiting:
                self._slots[slot] = self._waiting.pop()
                prompts[slot] = self._row(slot).ids[:]
        for slots in self._prefixes.rounds(prompts):
            self._step(slots, self._prefixes.begin(slots, prompts))

    def _close_up(self) -> None:
        """Move the last rows into slots that nobody waits for."""
        while None in self._slots:
            last = self._slots.pop()
            if last is not None:
                hole = self._slots.index(None)
                self._prefixes.move(len(self._slots), hole)
                self._slots[hole] = last

    def _step(self, slots: Sequence[int], ids: Sequence[Sequence[int]]) -> None:
        if self._check is not None:
            self._check()
        logits = self._reader.read(slots, ids)
        rows = [self._row(slot) for slot in slots]
        tokens = sample(logits, [row.ids for row in rows], [row.settings for row in rows])
        for slot, row, token, logprob in zip(slots, rows, tokens, _logprobs(logits, tokens), strict=True):
            row.take(token, logprob, self._stop_ids, self._limit)
            if row.ended is not None:
                self._slots[slot] = None
                if self._advance is not None:
                    self._advance(1)

    def _row(self, slot: int) -> _Row:
        row = self._slots[slot]
        assert row is not None
        return row


def _logprobs(logits: Tensor, tokens: Sequence[int]) -> list[float]:
    """Nats of each row's token, from logits [n,V].

    On a CPU by numpy, in this thread: threads of torch's that have just helped would keep the cores of a reader's.
    """
    if logits.device.type == "cpu" and logits.dtype == torch.float32:
        numbers = logits.detach().numpy()
        nats = []
        for row, token in zip(numbers, tokens, strict=True):  # one at a time stays in the core's cache
            highest = row.max()
            nats.append(float(row[token] - highest - np.log(np.exp(row - highest).sum())))
        return nats
    wide = logits.float()
    chosen = wide.gather(1, torch.tensor(tokens, device=logits.device)[:, None]).squeeze(1)
    return (chosen - wide.logsumexp(-1)).tolist()
