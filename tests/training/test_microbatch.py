from __future__ import annotations

import pytest
import torch

from gptcli.training.microbatch import is_out_of_memory, largest_that_fits

GB = 1 << 30


@pytest.mark.parametrize(
    ("one", "two", "free", "sequences", "expected"),
    [
        (3 * GB, 4 * GB, 80 * GB, 512, 64),  # 2 GB whatever the size, 66 sequences in 68 GB
        (3 * GB, 4 * GB, 80 * GB, 32, 32),
        (3 * GB, 4 * GB, 80 * GB, 48, 32),
        (1 * GB, 2 * GB, 10 * GB, 512, 8),
        (9 * GB, 18 * GB, 10 * GB, 512, 1),
        (20 * GB, 21 * GB, 10 * GB, 512, 1),
        (2 * GB, 2 * GB, 10 * GB, 64, 64),  # a second sequence that took nothing
    ],
)
def test_the_largest_power_of_two_that_fits(one: int, two: int, free: int, sequences: int, expected: int) -> None:
    assert largest_that_fits(one, two, free, sequences) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: 8 bytes"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
    ids=["MemoryError", "device", "CPU", "another", "no RuntimeError"],
)
def test_which_errors_are_memory_that_ran_out(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
