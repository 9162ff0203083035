"""The next step's batches, prepared while this one computes.

Only for CUDA: there a step's batches are pinned and copied on a stream of their own, in a thread. On a CPU building
them takes a thousandth of a step, or three where documents are a few words long, and every core has a rank to feed.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch

from gptcli.training.batches import Batch, StepBatches


class Prepared(NamedTuple):
    """A step's batches on their device; `copied`: when the copies are done there, None where there is nothing to wait
    for."""

    batches: list[Batch]
    copied: torch.cuda.Event | None


class Prefetch:
    """Gives the batches that `source` gives, on `device`, and has the next step's built by the time they are asked for.

    `stride`: samples from one step to the next. A step out of this order (after a range was skipped, say) is built when
    it is asked for. What building raises comes out of `step`. The thread ends with the process, or with `close`.
    """

    def __init__(self, source: StepBatches, stride: int, device: torch.device) -> None:
        self._source, self._stride, self._device = source, stride, device
        self._stream = _side_stream(device)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._next: tuple[tuple[int, int], Future[Prepared]] | None = None  # what it is for, and its promise

    def step(self, first_sample: int, micro_batch_size: int) -> list[Batch]:
        """The micro-batches of the step that begins with a sample, to be used on the current CUDA stream."""
        waiting, self._next = self._next, None
        if waiting is None or waiting[0] != (first_sample, micro_batch_size):
            waiting = self._begin(first_sample, micro_batch_size)
        prepared = waiting[1].result()
        self._next = self._begin(first_sample + self._stride, micro_batch_size)
        if prepared.copied is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_event(prepared.copied)
            for batch in prepared.batches:
                for tensor in batch.tensors():
                    tensor.record_stream(current)  # its memory is not the side stream's until this one is done with it
        return prepared.batches

    def close(self) -> None:
        """End the thread; what it prepared is dropped."""
        self._next = None
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _begin(self, first_sample: int, micro_batch_size: int) -> tuple[tuple[int, int], Future[Prepared]]:
        asked = (first_sample, micro_batch_size)
        return asked, self._thread.submit(self._prepare, *asked)

    def _prepare(self, first_sample: int, micro_batch_size: int) -> Prepared:
        built = self._source.step(first_sample, micro_batch_size)
        if self._stream is None:
            return Prepared([batch.to(self._device) for batch in built], None)
        with torch.cuda.stream(self._stream):
            batches = [batch.to(self._device) for batch in built]
            copied = self._stream.record_event()
        return Prepared(batches, copied)


def _side_stream(device: torch.device) -> torch.cuda.Stream | None:
    if device.type != "cuda":
        return None
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def ahead(source: StepBatches, stride: int, device: torch.device) -> StepBatches:
    """`source`, prepared ahead where that pays."""
    return Prefetch(source, stride, device) if device.type == "cuda" else source
