"""How likely continuations are after contexts, for many of both at once.

Requests stand in rows as prefix tries (prefix_trie.py), so that the question of its choices, few-shot examples and
equal beginnings are computed once, whatever requests come together. On a CPU the rows are shared among processes of
one thread each: threads lose most of their time where operations are as small as those of a few hundred tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gptcli.runtime.ranks import Ranks, can_fork, shared_tensor
from gptcli.scoring.language_modelling import autocast, token_scores
from gptcli.scoring.prefix_trie import Query, Row, plan_rows
from gptcli.scoring.requests import Likelihood, LikelihoodAnswer

# A CPU's attention works through every pair of a row, seen or not: short rows.
CPU_ROW, CPU_BATCH = 128, 1024  # nodes of a row, and of the rows of one forward pass
GPU_ROW, GPU_BATCH = 1024, 1 << 15
MOST_PROCESSES = 8
WORTH_A_PROCESS = 1e9  # nodes · parameters of less work than a fork costs


class TreeModel(Protocol):
    """What scoring tries asks of a model; every family of models/family.py has it."""

    training: bool
    config: Any

    def hidden(
        self,
        input_ids: Tensor,
        positions: Tensor | None = None,
        cache: Any = None,
        starts: Tensor | None = None,
        last: Tensor | None = None,
    ) -> Tensor:
        """Hidden states [B,T,H] of token ids [B,T] at `positions`, in rows that are trees by `last` [B,T]."""
        ...

    @property
    def head_weight(self) -> Tensor:
        """The output matrix [V,H]."""
        ...

    @property
    def softcap(self) -> float:
        """Logits are softcap·tanh(h·Wᵀ/softcap); 0: they are h·Wᵀ."""
        ...

    def parameters(self) -> Any: ...
    def train(self, mode: bool = True) -> Any: ...


def score_requests(
    model: TreeModel,
    requests: Sequence[Likelihood],
    *,
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int = 0,
    check: Callable[[], None] | None = None,
    advance: Callable[[int], None] | None = None,
) -> list[LikelihoodAnswer]:
    """Answers in the order of the requests; equal requests are computed once.

    The input is the context and the continuation without its last token. What is longer than the model's
    max_position_embeddings M is cut from the left to its last M + 1 tokens, the last of which is only predicted
    (EleutherAI's lm-evaluation-harness, whose models refuse a continuation of more than M tokens; here its last M are
    scored); `cut` counts what fell away, and `tokens` what was predicted.

    `batch_size`: rows of a forward pass; 0: as many as the device does best with. It moves log-likelihoods by no more
    than the noise of the matrix products. Weights stay in their own dtype, arithmetic is done in `dtype`,
    log-sum-exp in fp32, sums in fp64. `check` is called before each pass and may raise; `advance` is told how many
    requests were answered. The model is in eval mode meanwhile.
    """
    numbers: dict[Likelihood, int] = {}
    for request in requests:
        numbers.setdefault(request, len(numbers))
    if not numbers:
        return []
    limit = int(model.config.max_position_embeddings)
    queries = [_query(request, limit) for request in numbers]
    rows = list(plan_rows(queries, CPU_ROW if device.type == "cpu" else GPU_ROW))
    work = _Work(model, list(_batches(rows, device, batch_size)), device, dtype, check, _teller(advance))
    nats, greedy = work.scores(len(queries))
    answers = [
        LikelihoodAnswer(
            -float(nats[number]),
            bool(greedy[number]),
            len(query.ids) - query.first,
            len(request.context) + len(request.continuation) - len(query.ids),
        )
        for number, (request, query) in enumerate(zip(numbers, queries, strict=True))
    ]
    if advance is not None:
        advance(len(requests) - len(queries))
    return [answers[numbers[request]] for request in requests]


def _query(request: Likelihood, limit: int) -> Query:
    ids = (request.context + request.continuation)[-(limit + 1) :]
    return Query(ids, max(len(ids) - len(request.continuation), 1))


def _batches(rows: list[Row], device: torch.device, batch_size: int) -> Iterator[list[Row]]:
    """Rows of like length together, the longest first."""
    nodes = CPU_BATCH if device.type == "cpu" else GPU_BATCH
    rows = sorted(rows, key=lambda row: -len(row.ids))
    start = 0
    while start < len(rows):
        count = batch_size or max(nodes // len(rows[start].ids), 1)
        yield rows[start : start + count]
        start += count


def _teller(advance: Callable[[int], None] | None) -> Callable[[Sequence[list[Row]]], None]:
    def tell(batches: Sequence[list[Row]]) -> None:
        if advance is not None:
            advance(sum(len(np.unique(row.queries)) for batch in batches for row in batch))

    return tell


Scored = tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]  # by query: nats, and whether each token was likeliest


@dataclass
class _Work:
    """Batches of rows to be scored, by as many processes as pay."""

    model: TreeModel
    batches: list[list[Row]]
    device: torch.device
    dtype: torch.dtype
    check: Callable[[], None] | None
    tell: Callable[[Sequence[list[Row]]], None]

    def scores(self, queries: int) -> Scored:
        """Nats and greediness of each of so many queries."""
        nats, greedy = np.zeros(queries), np.ones(queries, np.bool_)
        was_training, threads = self.model.training, torch.get_num_threads()
        self.model.train(False)
        try:
            for part_nats, part_greedy in self._shares(queries, self._processes(threads)):
                nats += part_nats  # a query is in one share alone, and 0 in the others
                greedy &= part_greedy
        finally:
            self.model.train(was_training)
            torch.set_num_threads(threads)
        return nats, greedy

    def _processes(self, cores: int) -> int:
        if self.device.type != "cpu" or not can_fork():
            return 1
        nodes = sum(len(row.ids) for batch in self.batches for row in batch)
        work = nodes * sum(parameter.numel() for parameter in self.model.parameters())
        return max(min(cores, MOST_PROCESSES, len(self.batches), int(work / WORTH_A_PROCESS)), 1)

    def _shares(self, queries: int, processes: int) -> list[Scored]:
        if processes == 1:
            return [self._share(0, 1, queries, None)]
        torch.set_num_threads(1)  # a forked process can't use the threads that the one before it had
        stopped = shared_tensor(1, torch.int64)
        ranks = Ranks(processes, {"score": lambda rank: self._share(rank, processes, queries, stopped)})
        try:
            return ranks.all("score")
        finally:
            ranks.close()

    def _share(self, rank: int, ranks: int, queries: int, stopped: Tensor | None) -> Scored:
        """Score every `ranks`-th batch from the `rank`-th on; `stopped` is raised for the others by the first."""
        nats, greedy = np.zeros(queries), np.ones(queries, np.bool_)
        with torch.inference_mode(), autocast(self.device, self.dtype):
            head = self.model.head_weight
            head = head if self.dtype == torch.float32 else head.to(self.dtype)
            for first in range(0, len(self.batches), ranks):
                if rank == 0 and self.check is not None:
                    self._checked(stopped)
                if stopped is not None and stopped.item():
                    break
                if first + rank < len(self.batches):
                    self._score_batch(self.batches[first + rank], head, nats, greedy)
                if rank == 0:
                    self.tell(self.batches[first : first + ranks])
        return nats, greedy

    def _checked(self, stopped: Tensor | None) -> None:
        try:
            assert self.check is not None
            self.check()
        except BaseException:
            if stopped is not None:
                stopped.fill_(1)
            raise

    def _score_batch(
        self, batch: list[Row], head: Tensor, nats: npt.NDArray[np.float64], greedy: npt.NDArray[np.bool_]
    ) -> None:
        ids, positions, last = (torch.from_numpy(array).to(self.device) for array in _stack(batch))
        hidden = self.model.hidden(ids, positions, last=last)
        places = np.concatenate([row.nodes + number * ids.shape[1] for number, row in enumerate(batch)])
        targets = np.concatenate([row.targets for row in batch])
        queries = np.concatenate([row.queries for row in batch])
        predicting = hidden.flatten(0, 1)[torch.from_numpy(places).to(self.device)]
        own, ranks = token_scores(predicting, head, torch.from_numpy(targets).to(self.device), self.model.softcap)
        # All of a query's predictions stand in one row, in order: the same sum in any batch.
        lost = own.cpu().double().numpy()
        np.add.at(nats, queries, lost)
        greedy[queries[(ranks.cpu().numpy() > 0) | ~np.isfinite(lost)]] = False  # beside NaN nothing ranks higher


def _stack(batch: list[Row]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """ids, positions and last of rows side by side, [B,T]; the shorter ones end in tokens that nothing else sees."""
    length = max(len(row.ids) for row in batch)
    ids, positions = np.zeros((2, len(batch), length), np.int64)
    last = np.tile(np.arange(length), (len(batch), 1))
    for number, row in enumerate(batch):
        size = len(row.ids)
        ids[number, :size], positions[number, :size], last[number, :size] = row.ids, row.positions, row.last
    return ids, positions, last
