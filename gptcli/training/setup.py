"""How a run computes on this machine: device, precision, threads, sequences at once."""

from __future__ import annotations

import math
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from gptcli.errors import SpecError
from gptcli.runtime.device import default_dtype, resolve_device
from gptcli.runtime.memory import keep_freed_memory
from gptcli.runtime.ranks import can_fork, shared_tensor
from gptcli.training.spec import TrainingSpec

TOKENS_AT_ONCE = {"cpu": 4096, "mps": 8192, "cuda": 32768}
IN_CACHE = 2048  # tokens: more gain nothing in the products, and their activations leave a core's cache
MOST_RANKS = 32  # each holds the whole model's gradients


def _why_one_rank(device: torch.device, compiled: bool) -> str:
    """What keeps a step from being shared among processes; "" where nothing does."""
    if device.type != "cpu":
        return f"ranks share the cores of a CPU, and the device is {device.type}"
    if compiled:
        return "each rank would compile for itself"
    return "" if can_fork() else "this system does not fork processes safely"


def tokens_at_once(device: torch.device, threads: int) -> int:
    """Tokens that are in memory together where nothing else is asked for."""
    return IN_CACHE if device.type == "cpu" and threads == 1 else TOKENS_AT_ONCE[device.type]


def _even_share(sequences: int, ranks: int, at_most: int) -> int:
    """The largest micro-batch of up to `at_most` sequences that gives every rank about the same number of them."""
    share = math.ceil(sequences / ranks)
    return math.ceil(share / math.ceil(share / at_most))


@dataclass
class Setup:
    """What `auto` became; kept in every checkpoint's state.json, and taken up again on resume."""

    device: torch.device
    dtype: torch.dtype
    threads: int  # of each rank
    micro_batch_size: int
    ranks: int = 1  # processes that share a step's work
    compiled: bool = False
    deterministic: bool = False

    @staticmethod
    def of(spec: TrainingSpec, device_name: str, sequences: int, ranks: int = 1, compile: str = "off") -> Setup:
        """Settle everything `auto` for `sequences` a step.

        `ranks`: processes a step is shared among, 0: one a core of a CPU; `compile`: on, off or auto, which is on
        for CUDA. Raises ResourceError when there is no such device, SpecError for ranks where there can be but one.
        """
        device = resolve_device(device_name)
        dtype = default_dtype(device) if spec.dtype == "auto" else getattr(torch, spec.dtype)
        compiled = compile == "on" or (compile == "auto" and device.type == "cuda")
        cores = torch.get_num_threads()
        alone = _why_one_rank(device, compiled)
        if ranks > 1 and alone:
            raise SpecError(f"ranks={ranks}: {alone}, so one process computes", "leave ranks out")
        if not ranks:
            ranks = 1 if alone or spec.threads else min(cores, sequences, MOST_RANKS)
        if ranks > 1 and spec.threads > 1:
            raise SpecError(f"threads={spec.threads}: each of several ranks computes with one thread", "leave it out")
        # A forked process can't use the threads that the one before it had.
        threads = 1 if ranks > 1 else spec.threads or cores
        if spec.micro_batch_size == "auto":
            at_once = _even_share(sequences, ranks, max(1, tokens_at_once(device, threads) // spec.seq_len))
        else:
            at_once = int(spec.micro_batch_size)
        setup = Setup(device, dtype, threads, min(at_once, sequences), ranks, compiled, spec.deterministic)
        setup._apply()
        return setup

    def _apply(self) -> None:
        torch.set_num_threads(self.threads)
        if self.device.type == "cpu":
            keep_freed_memory()
        if self.deterministic and self.device.type == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA's library is first used
            torch.use_deterministic_algorithms(True)
        # TF32 rounds an fp32 product to 10 bits: right beside bf16, not where float32 was asked for.
        torch.backends.cuda.matmul.allow_tf32 = self.device.type == "cuda" and self.dtype != torch.float32

    def allocate(self, elements: int, dtype: torch.dtype) -> torch.Tensor:
        """Flat zeros on the device, shared with other ranks where there are any."""
        if self.ranks > 1:
            return shared_tensor(elements, dtype)
        return torch.zeros(elements, dtype=dtype, device=self.device)

    def autocast(self) -> AbstractContextManager[Any]:
        """Matrix products in `dtype` over fp32 weights."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def facts(self) -> dict[str, Any]:
        """JSON-able; what the bits of a run depend on besides its spec and inputs."""
        return {
            "device": self.device.type,
            "dtype": str(self.dtype).removeprefix("torch."),
            "threads": self.threads,
            "micro_batch_size": self.micro_batch_size,
            "ranks": self.ranks,
            "compiled": self.compiled,
            "deterministic": self.deterministic,
            "torch": torch.__version__,
            "instructions": torch.backends.cpu.get_cpu_capability() if self.device.type == "cpu" else "",
        }

    def take_up(self, saved: dict[str, Any]) -> list[str]:
        """Go on as the checkpoint's process did; what is not as it was asked for, or can't be the same, in words."""
        remarks = []
        asked = {"threads": self.threads, "ranks": self.ranks}
        self.threads, self.compiled = saved["threads"], saved["compiled"]
        self.micro_batch_size = saved["micro_batch_size"]
        if saved["ranks"] == 1 or not _why_one_rank(self.device, self.compiled):
            self.ranks = saved["ranks"]
        self.dtype = getattr(torch, saved["dtype"])
        self._apply()
        for key, value in asked.items():
            if value != saved[key] == getattr(self, key):
                remarks.append(f"goes on with {saved[key]} {key}, as it began, not with {value}")
        return remarks + [
            f"this run began with {key} {saved.get(key)} and goes on with {value}: its last bits may differ"
            for key, value in self.facts().items()
            if saved.get(key) != value
        ]
