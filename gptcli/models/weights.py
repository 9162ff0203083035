"""Tensors in safetensors files: read whole, written durably with the same bytes every time."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gptcli.artifacts import durable
from gptcli.errors import ArtifactError

# One key only: safetensors writes several in random order, and then no two files are alike.
_METADATA = {"format": "pt"}
_OS_ERROR = re.compile(r"os error (\d+)")


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write named tensors atomically and durably; equal tensors give equal bytes.

    Raises ResourceError when the disk is full.
    """
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    pending = path.with_name(path.name + durable.PENDING)
    with durable.disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            save_file(ready, pending, metadata=_METADATA)
        except SafetensorError as error:
            number = _OS_ERROR.search(str(error))
            if number is None:
                raise
            raise OSError(int(number.group(1)), str(error)) from error
        durable.fsync_file(pending)
    durable.replace(pending, path)


def read_tensors(path: Path, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Read every tensor of a safetensors file. Raises ArtifactError when it is missing or broken."""
    try:
        return load_file(path, device=str(device))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing") from error
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path} can't be read: {error}", "the file is damaged or no safetensors file") from error
