"""Where tensors live and in which precision, asked of the hardware; torch is imported only inside."""

from __future__ import annotations

import re
import resource
import sys
from typing import TYPE_CHECKING

from gptcli.errors import ResourceError, SpecError

if TYPE_CHECKING:
    import torch


def require_device_name(name: str) -> None:
    """SpecError unless `name` is auto, cpu, cuda, cuda:N or mps, on whatever machine."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]+)?", name):
        raise SpecError(f"--device {name}: there is no such device", "choose auto, cpu, cuda, cuda:1 or mps")


def resolve_device(name: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda[:N]` or `mps` names here.

    Raises SpecError for another name, ResourceError when this machine has no such device.
    """
    require_device_name(name)
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ResourceError("--device cuda: this machine has no CUDA device that torch can use", "use --device cpu")
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise ResourceError(f"--device {name}: there are {torch.cuda.device_count()} CUDA devices", "use --device cuda")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ResourceError("--device mps: this machine has no Metal device that torch can use", "use --device cpu")
    return device


def default_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies in it (CUDA from sm80; x86 with AMX or AVX512-BF16), else float32."""
    import torch

    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float32
    if device.type == "cpu":
        has = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if has else torch.float32
    return torch.float32


def peak_memory_bytes() -> int:
    """The largest resident set that any one process, this one or a child of it that has ended, has had, in bytes.

    No sum: worker processes that ran beside one another together held more.
    """
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB elsewhere
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) * unit


def peak_device_bytes(device: torch.device) -> tuple[int, int] | None:
    """On a GPU the most memory held and its capacity, in bytes; None elsewhere."""
    import torch

    if device.type != "cuda":
        return None
    return torch.cuda.max_memory_allocated(device), torch.cuda.get_device_properties(device).total_memory
