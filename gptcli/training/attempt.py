"""The first half of a step, cut short by a signal and tried again with less memory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import TypeVar

import torch

from gptcli.errors import ResourceError
from gptcli.runtime.interruption import cut_short_by
from gptcli.training.microbatch import is_out_of_memory
from gptcli.training.running import Run
from gptcli.training.setup import Setup
from gptcli.training.step import Gradients

Result = TypeVar("Result")


def gradients(run: Run) -> Gradients:
    """The step's first half; with half the micro-batch where memory does not suffice."""
    # One that computes alone may be cut short wherever it is, in a compilation say: nothing is learnt yet.
    with cut_short_by(run.job.stop) if run.setup.ranks == 1 else nullcontext():
        return with_less_memory(
            lambda: run.steps.gradients(run.step, run.ranges.first_sample(run.step)), run.setup, run.display.warn
        )


def with_less_memory(work: Callable[[], Result], setup: Setup, warn: Callable[[str], None]) -> Result:
    """What `work` returns; where memory does not suffice it is done again with half the micro-batch."""
    while True:
        too_large = ""
        try:
            return work()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            too_large = str(error).partition("\n")[0]
        _halve(setup, warn, too_large)  # outside of the handler, whose traceback keeps the step's tensors alive


def _halve(setup: Setup, warn: Callable[[str], None], why: str) -> None:
    size = setup.micro_batch_size
    if size == 1:
        raise ResourceError(
            f"out of memory with one sequence at a time: {why}",
            "a shorter seq_len, a smaller model or (on a CPU) --set ranks=1 needs less",
        )
    setup.micro_batch_size = size // 2
    if setup.device.type == "cuda":
        torch.cuda.empty_cache()
    warn(f"out of memory with micro_batch_size {size}: goes on with {size // 2}, the same tokens a step")
