"""The first half of a step, cut short by a signal and tried again with less memory."""

from __future__ import annotations

from contextlib import nullcontext

import torch

from gptcli.errors import ResourceError
from gptcli.runtime.interruption import cut_short_by
from gptcli.training.microbatch import is_out_of_memory
from gptcli.training.running import Run
from gptcli.training.step import Gradients


def gradients(run: Run) -> Gradients:
    """The step's first half; with half the micro-batch where memory does not suffice."""
    while True:
        too_large = ""
        try:
            # One that computes alone may be cut short wherever it is, in a compilation say: nothing is learnt yet.
            with cut_short_by(run.job.stop) if run.setup.ranks == 1 else nullcontext():
                return run.steps.gradients(run.step, run.ranges.first_sample(run.step))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            too_large = str(error).partition("\n")[0]
        _halve(run, too_large)  # outside of the handler, whose traceback keeps the step's tensors alive


def _halve(run: Run, why: str) -> None:
    size = run.setup.micro_batch_size
    if size == 1:
        raise ResourceError(
            f"out of memory with one sequence at a time, at step {run.step + 1}: {why}",
            "a shorter seq_len, a smaller model or (on a CPU) --set ranks=1 needs less",
        )
    run.setup.micro_batch_size = size // 2
    if run.setup.device.type == "cuda":
        torch.cuda.empty_cache()
    run.display.warn(f"out of memory with micro_batch_size {size}: goes on with {size // 2}, the same tokens a step")
