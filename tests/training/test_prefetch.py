from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from gptcli.artifacts.tokens import TokenStream
from gptcli.errors import ArtifactError
from gptcli.training.batches import Batch, TokenBatches
from gptcli.training.prefetch import Prefetch, ahead
from gptcli.training.rows import StreamRows

CPU = torch.device("cpu")


def batches_of(count: int = 1000) -> TokenBatches:
    stream = TokenStream.of_documents([np.arange(count, dtype=np.uint32)], [count])
    return TokenBatches(StreamRows(stream, 10, None, np.arange(0, count + 1, 50)), sequences=6, seed=1)


class Recorded:
    """What was asked for, in order; raises at one sample."""

    def __init__(self, fails_at: int = -1) -> None:
        self.source, self.fails_at = batches_of(), fails_at
        self.asked: list[tuple[int, int]] = []
        self.threads: set[str] = set()

    def step(self, first_sample: int, micro_batch_size: int) -> list[Batch]:
        self.asked.append((first_sample, micro_batch_size))
        self.threads.add(threading.current_thread().name)
        if first_sample == self.fails_at:
            raise ArtifactError("a broken shard", "mend it")
        return self.source.step(first_sample, micro_batch_size)


def same(found: list[Batch], expected: list[Batch]) -> bool:
    pairs = [pair for a, b in zip(found, expected, strict=True) for pair in zip(a.tensors(), b.tensors(), strict=True)]
    return all(torch.equal(a.cpu(), b) for a, b in pairs)


def test_steps_come_in_the_order_asked_for_and_each_is_built_once() -> None:
    source = Recorded()
    prefetch = Prefetch(source, 6, CPU)
    try:
        for first in range(0, 60, 6):
            assert same(prefetch.step(first, 4), source.source.step(first, 4))
    finally:
        prefetch.close()
    asked = [first for first, _ in source.asked]
    assert asked in (list(range(0, 60, 6)), list(range(0, 66, 6)))  # the last was begun, or not
    assert threading.current_thread().name not in source.threads


def test_a_skipped_range_or_another_micro_batch_is_built_when_asked_for() -> None:
    source = Recorded()
    prefetch = Prefetch(source, 6, CPU)
    try:
        for first, size in ((0, 4), (6, 4), (600, 4), (606, 4), (6, 2), (12, 2), (12, 2)):
            assert same(prefetch.step(first, size), source.source.step(first, size))
    finally:
        prefetch.close()


def test_what_building_raises_surfaces_at_its_own_step_and_the_next_can_follow() -> None:
    prefetch = Prefetch(Recorded(fails_at=6), 6, CPU)
    try:
        prefetch.step(0, 4)
        with pytest.raises(ArtifactError, match="a broken shard"):
            prefetch.step(6, 4)
        assert same(prefetch.step(12, 4), batches_of().step(12, 4))
        prefetch.step(0, 4)  # 6 is prepared, and fails unasked
        assert same(prefetch.step(18, 4), batches_of().step(18, 4))
    finally:
        prefetch.close()


def test_a_cpu_builds_its_batches_itself() -> None:
    source = batches_of()
    assert ahead(source, 6, CPU) is source


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_the_same_batches_arrive() -> None:
    device = torch.device("cuda")
    prefetch = ahead(batches_of(), 6, device)
    assert isinstance(prefetch, Prefetch)
    try:
        for first in range(0, 120, 6):
            found = prefetch.step(first, 4)
            assert all(tensor.device.type == "cuda" for batch in found for tensor in batch.tensors())
            assert same(found, batches_of().step(first, 4))
    finally:
        prefetch.close()
