"""How a run computes on this machine: device, precision, threads, sequences at once."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from gptcli.runtime.device import default_dtype, resolve_device
from gptcli.runtime.memory import keep_freed_memory
from gptcli.training.spec import TrainingSpec

TOKENS_AT_ONCE = {"cpu": 4096, "mps": 8192, "cuda": 32768}


@dataclass
class Setup:
    """What `auto` became; kept in every checkpoint's state.json, and taken up again on resume."""

    device: torch.device
    dtype: torch.dtype
    threads: int
    micro_batch_size: int

    @staticmethod
    def of(spec: TrainingSpec, device_name: str, sequences: int) -> Setup:
        """Settle everything `auto` for `sequences` a step. Raises ResourceError when there is no such device."""
        device = resolve_device(device_name)
        dtype = default_dtype(device) if spec.dtype == "auto" else getattr(torch, spec.dtype)
        if spec.micro_batch_size == "auto":
            at_once = max(1, TOKENS_AT_ONCE[device.type] // spec.seq_len)
        else:
            at_once = int(spec.micro_batch_size)
        setup = Setup(device, dtype, spec.threads or torch.get_num_threads(), min(at_once, sequences))
        setup._apply()
        return setup

    def _apply(self) -> None:
        torch.set_num_threads(self.threads)
        if self.device.type == "cpu":
            keep_freed_memory()
        # TF32 rounds an fp32 product to 10 bits: right beside bf16, not where float32 was asked for.
        torch.backends.cuda.matmul.allow_tf32 = self.device.type == "cuda" and self.dtype != torch.float32

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
            "torch": torch.__version__,
            "instructions": torch.backends.cpu.get_cpu_capability() if self.device.type == "cpu" else "",
        }

    def take_up(self, saved: dict[str, Any]) -> list[str]:
        """Go on as the checkpoint's process did; what is not as it was asked for, or can't be the same, in words."""
        remarks = []
        if self.threads != saved["threads"]:
            remarks.append(f"goes on with {saved['threads']} threads, as it began, not with {self.threads}")
        self.threads, self.micro_batch_size = saved["threads"], saved["micro_batch_size"]
        self.dtype = getattr(torch, saved["dtype"])
        self._apply()
        return remarks + [
            f"this run began with {key} {saved.get(key)} and goes on with {value}: its last bits may differ"
            for key, value in self.facts().items()
            if saved.get(key) != value
        ]
