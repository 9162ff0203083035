"""Checkpoints are written behind the training's back: a copy of the state is taken, and a thread does the rest."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptcli.training.checkpoints import Checkpoints
from gptcli.training.metrics import Metrics
from gptcli.training.optimizer import Optimizers


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as they are now, on the CPU; those that share one memory share one copy.

    From CUDA through pinned memory, all copies under way at once.
    """
    made: dict[tuple[int, torch.Size, tuple[int, ...]], Tensor] = {}
    out = {}
    for name, tensor in tensors.items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if key not in made:
            pinned = tensor.device.type == "cuda"
            made[key] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned)
            made[key].copy_(tensor.detach(), non_blocking=pinned)
        out[name] = made[key]
    for device in {tensor.device for tensor in tensors.values() if tensor.is_cuda}:
        torch.cuda.synchronize(device)
    return out


class Saver:
    """Writes a run's checkpoints, one at a time, in a thread that starts with the first of them.

    A checkpoint counts once its manifest stands: a process that dies before goes on from the one before. What goes
    wrong in the thread is raised by the next call of `check`, `save` or `wait`.
    """

    def __init__(self, checkpoints: Checkpoints, metrics: Metrics, scheduled: Callable[[int], bool]) -> None:
        self._checkpoints, self._metrics, self._scheduled = checkpoints, metrics, scheduled
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._pending: list[Future[Any]] = []

    def save(
        self,
        step: int,
        stats: dict[str, Any],
        state: dict[str, Any],
        optimizers: Optimizers,
        snapshot: Callable[[], Callable[[Path], None]],
    ) -> None:
        """Begin a checkpoint of what is now; waits for the one before, so that one copy at most is in memory."""
        self.wait()
        write, learnt = snapshot(), copied(optimizers.state())

        def work() -> None:
            self._metrics.sync()  # a checkpoint is worth nothing without the rows before it
            self._checkpoints.save(step, stats, state, learnt, write)

        self._pending.append(self._thread.submit(work))

    def prune(self) -> None:
        """Let go of the checkpoints that need not be kept, once what is being written stands."""
        self._pending.append(self._thread.submit(self._checkpoints.prune, self._scheduled))

    def check(self) -> None:
        """Raise what went wrong in work that has ended."""
        while self._pending and self._pending[0].done():
            self._pending.pop(0).result()

    def wait(self) -> None:
        """Until all that was begun is on disk; raises what went wrong."""
        while self._pending:
            self._pending.pop(0).result()

    def close(self) -> None:
        """End the thread once it has nothing left to do; what goes wrong then is not told."""
        self._thread.shutdown(wait=True)
