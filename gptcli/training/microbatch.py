"""How many sequences fit into memory at once: measured ahead on a GPU, halved when it turns out to be too many."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gptcli.training.batches import Batch

SHARE = 0.85  # of a device's free memory that a step may take


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed, on a device or in the machine's memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    told = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in told or "out of memory" in told)


def largest_that_fits(one: int, two: int, free: int, sequences: int) -> int:
    """The largest power of two of sequences, up to `sequences`, whose memory fits into SHARE of `free` bytes.

    `one`, `two`: bytes that one and two sequences took; each further one is taken to need as much as the second did.
    At least 1.
    """
    each = max(two - one, 1)
    fixed = max(one - each, 0)
    fitting = int((SHARE * free - fixed) // each)
    count = 1
    while count * 2 <= min(fitting, sequences):
        count *= 2
    return count


def measured(
    device: torch.device,
    batches: Callable[[int, int], list[Batch]],
    backward: Callable[[Batch], Tensor],
    computes: nn.Module,
    sequences: int,
) -> int:
    """The micro-batch that a CUDA device has memory for, by a forward and backward pass over one and two sequences.

    `computes`: the module that gets gradients of it, which are dropped. Call it before anything is compiled: a
    compiled step takes less, never more. Where even the trial runs out of memory it is 1.
    """
    took = []
    try:
        for size in (1, 1, 2):  # the first pass also pays for what is made once
            batch = batches(0, min(size, sequences))[0].to(device)
            torch.cuda.synchronize(device)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            backward(batch)
            torch.cuda.synchronize(device)
            took.append(torch.cuda.max_memory_allocated(device) - before)
            computes.zero_grad(set_to_none=True)
    except torch.OutOfMemoryError:
        computes.zero_grad(set_to_none=True)
        return 1
    finally:
        torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info(device)[0]
    return largest_that_fits(took[1], took[2], free, sequences)
