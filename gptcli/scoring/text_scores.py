"""Everything that is measured on a text, by one process or, on a CPU, by several that share its batches.

Ranks compute as training does: with one thread each, so that operations take their native form, by matrices rounded to
the compute dtype once. So a text's figures are those of pretraining's validation on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gptcli.artifacts.tokens import TokenStream
from gptcli.errors import GptcliError, ResourceError, SpecError, StoppedError
from gptcli.runtime.ranks import Ranks, can_fork, shared_tensor
from gptcli.scoring.calibration import Calibration
from gptcli.scoring.documents import DocumentSums
from gptcli.scoring.language_modelling import Collector, TokenScore, score_stream
from gptcli.scoring.windows import document_windows, score_windows, sliding_windows

MOST_RANKS = 32


@dataclass(frozen=True)
class Wanted:
    """What to measure: windows of `seq_len` by the one rule; with `sliding` (a stride, 0: not) and `per_document` by
    those of windows.py too; `calibration` of the one rule's predictions."""

    seq_len: int
    sliding: int = 0
    per_document: bool = False
    calibration: bool = False


@dataclass(frozen=True)
class TextScores:
    """The one rule's score, its sums by document, and what else was wanted (None: not)."""

    score: TokenScore
    documents: DocumentSums
    calibration: Calibration | None
    sliding: DocumentSums | None
    per_document: DocumentSums | None


def usual_ranks(device: torch.device) -> int:
    """Processes that share a text: as many as torch would use threads on a CPU, elsewhere one."""
    return min(torch.get_num_threads(), MOST_RANKS) if device.type == "cpu" and can_fork() else 1


def targets(stream: TokenStream, wanted: Wanted) -> int:
    """Of how many predictions `score_text` tells `advance`, about: each rule predicts every token once."""
    return max(len(stream) - 1, 0) * (1 + bool(wanted.sliding) + wanted.per_document)


def score_text(
    model: Any,
    stream: TokenStream,
    wanted: Wanted,
    *,
    batch_size: int,
    bos_id: int | None,
    eos_id: int,
    device: torch.device,
    dtype: torch.dtype,
    ranks: int = 1,
    check: Callable[[], None] | None = None,
    advance: Callable[[int], None] | None = None,
) -> TextScores:
    """Measure `wanted` on a stream whose documents are known, `batch_size` windows at once in each rank.

    More than one rank is for a CPU whose system forks (`usual_ranks`); this process then computes with one thread
    while they work. `check` may raise, which ends them all; `advance` is told of the predictions all ranks made.
    While it runs, the model's matrices are rounded to `dtype`. Raises SpecError for a stride longer than a window,
    ResourceError when a rank dies.
    """
    if wanted.sliding > wanted.seq_len:
        raise SpecError(
            f"sliding = {wanted.sliding} leaves tokens out between windows of {wanted.seq_len}",
            f"use --set sliding={max(wanted.seq_len // 2, 1)}, or another number up to {wanted.seq_len}",
        )
    ranks = max(min(ranks, math.ceil((len(stream) - 1) / (wanted.seq_len * batch_size))), 1)
    threads = torch.get_num_threads()
    if ranks > 1:
        torch.set_num_threads(1)  # before the fork: no child can use the threads that its parent had
    try:
        with rounded(model, dtype):
            return _Team(model, stream, wanted, batch_size, (bos_id, eos_id), (device, dtype), ranks).work(
                check, advance
            )
    finally:
        if ranks > 1:
            torch.set_num_threads(threads)


@contextmanager
def rounded(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Within it the model's fp32 matrices are copies in `dtype`, so that autocast need not round them in every batch;
    vectors stay as they are, as those of training's replicas do."""
    kept = [
        (parameter, parameter.data)
        for parameter in model.parameters()
        if dtype != torch.float32 and parameter.ndim >= 2 and parameter.dtype == torch.float32
    ]
    for parameter, values in kept:
        parameter.data = values.to(dtype)
    try:
        yield
    finally:
        for parameter, values in kept:
            parameter.data = values


class _Team:
    """The ranks, and what they share: sums, the predictions made so far, and that they shall stop."""

    def __init__(
        self,
        model: Any,
        stream: TokenStream,
        wanted: Wanted,
        batch_size: int,
        ids: tuple[int | None, int],
        arithmetic: tuple[torch.device, torch.dtype],
        ranks: int,
    ) -> None:
        self.model, self.stream, self.wanted, self.batch_size, self.ranks = model, stream, wanted, batch_size, ranks
        self.bos_id, self.eos_id = ids
        self.device, self.dtype = arithmetic
        self.bounds = stream.bounds
        kinds = 1 + bool(wanted.sliding) + wanted.per_document
        self.documents = self._shared(kinds * 4 * (len(self.bounds) - 1)).reshape(ranks, kinds, 4, -1)
        self.bins = self._shared(Calibration.size() * wanted.calibration).reshape(ranks, 3, -1)
        self.done = self._shared(1)[:, 0]
        self.stopping = shared_tensor(1, torch.int64)
        self.told = 0
        self.reason: GptcliError | None = None

    def _shared(self, elements: int) -> Any:
        """Zeros for each rank, [ranks, elements]."""
        return (
            shared_tensor(self.ranks * elements, torch.float64)
            .numpy()[: self.ranks * elements]
            .reshape(self.ranks, elements)
        )

    def work(self, check: Callable[[], None] | None, advance: Callable[[int], None] | None) -> TextScores:
        self.check, self.advance = check, advance
        team = Ranks(self.ranks, {"measure": self._measure}, self._meanwhile)
        try:
            scores = team.all("measure")
        except ResourceError as error:  # in the words of a training
            raise ResourceError(
                "a process that shared the scoring died, most likely for want of memory",
                "a smaller batch_size needs less memory: --set batch_size=1",
            ) from error
        except StoppedError:
            if self.reason is not None:
                raise self.reason from None
            raise
        finally:
            team.close()
        self._tell()
        kinds = [DocumentSums(self.bounds, sums) for sums in self.documents.sum(0)]
        rest = iter(kinds[1:])
        return TextScores(
            sum(scores, TokenScore()),
            kinds[0],
            Calibration(self.bins.sum(0)) if self.wanted.calibration else None,
            next(rest) if self.wanted.sliding else None,
            next(rest) if self.wanted.per_document else None,
        )

    def _measure(self, rank: int) -> TokenScore:
        """A rank's share of everything wanted: what it adds up lies in shared memory, its score is told."""
        share, wanted, stream = (rank, self.ranks), self.wanted, self.stream
        kinds = iter([DocumentSums(self.bounds, sums) for sums in self.documents[rank]])
        collectors: list[Collector] = [next(kinds)]
        if wanted.calibration:
            collectors.append(Calibration(self.bins[rank]))
        settings: dict[str, Any] = {
            "bos_id": self.bos_id,
            "device": self.device,
            "dtype": self.dtype,
            "check": lambda: self._check(rank),
            "advance": lambda count: self._advance(rank, count),
            "share": share,
        }
        score = score_stream(
            self.model,
            stream,
            seq_len=wanted.seq_len,
            batch_size=self.batch_size,
            collectors=collectors,
            **settings,
        )
        if wanted.sliding:
            batches = sliding_windows(stream, wanted.seq_len, wanted.sliding, self.batch_size)
            score_windows(self.model, batches, [next(kinds)], **settings)
        if wanted.per_document:
            at_once = self.batch_size * wanted.seq_len
            batches = document_windows(stream, wanted.seq_len, at_once, self.bos_id, self.eos_id)
            score_windows(self.model, batches, [next(kinds)], **settings)
        return score

    def _check(self, rank: int) -> None:
        if rank == 0 and self.check is not None:
            try:
                self.check()
            except BaseException:
                self.stopping.fill_(1)
                raise
        if rank and self.stopping.item():
            raise StoppedError("stopped", "run the same command again")

    def _advance(self, rank: int, count: int) -> None:
        self.done[rank] += count
        if rank == 0:
            self._tell()

    def _tell(self) -> None:
        done = int(self.done.sum())
        if self.advance is not None and done > self.told:
            self.advance(done - self.told)
        self.told = done

    def _meanwhile(self) -> None:
        """While the others' answers are waited for."""
        self._tell()
        try:
            self._check(0)
        except GptcliError as error:
            self.reason = error
