"""Tensors in safetensors files: read whole, written durably with the same bytes every time."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gptcli.artifacts import durable
from gptcli.errors import ArtifactError

# One key only: safetensors writes several in random order, and then no two files are alike.
_METADATA = {"format": "pt"}
# The format's words for types, best aligned first: the order in which safetensors' own writer puts tensors.
_DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
_ALIGNMENT = 8  # of the first tensor, in bytes
_OS_ERROR = re.compile(r"os error (\d+)")


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that is not in memory yet; `read` gives it on the CPU, in `shape` and `dtype`."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.count * self.dtype.itemsize

    def cast(self, dtype: torch.dtype) -> StoredTensor:
        """The same tensor, read as another type."""
        return self if dtype == self.dtype else StoredTensor(self.shape, dtype, lambda: self.read().to(dtype))


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


def write_streamed(
    path: Path, tensors: Mapping[str, StoredTensor], advance: Callable[[int], None] = lambda _: None
) -> None:
    """`write_tensors` for tensors of any size together, one in memory at a time; the bytes are the same.

    `advance` is called with the bytes of each tensor written. Raises ResourceError when the disk is full; ValueError
    where a tensor isn't what was announced.
    """
    names = sorted(tensors, key=lambda name: (list(_DTYPES).index(tensors[name].dtype), name))
    pending = path.with_name(path.name + durable.PENDING)
    with durable.disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with pending.open("wb") as file:
            file.write(_header({name: tensors[name] for name in names}))
            for name in names:
                tensor = tensors[name].read().contiguous()
                if tuple(tensor.shape) != tensors[name].shape or tensor.dtype != tensors[name].dtype:
                    raise ValueError(f"{name} is {tensor.dtype} {list(tensor.shape)}, not as announced")
                file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
                advance(tensors[name].bytes)
            file.flush()
            os.fsync(file.fileno())
    durable.replace(pending, path)


def _header(tensors: Mapping[str, StoredTensor]) -> bytes:
    """Eight bytes of length and the JSON of names, types, shapes and places, filled up with spaces."""
    entries: dict[str, object] = {"__metadata__": _METADATA}
    begin = 0
    for name, tensor in tensors.items():
        offsets = [begin, begin + tensor.bytes]
        entries[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        begin = offsets[1]
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def read_tensors(path: Path, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Read every tensor of a safetensors file. Raises ArtifactError when it is missing or broken."""
    try:
        return load_file(path, device=str(device))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing") from error
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path} can't be read: {error}", "the file is damaged or no safetensors file") from error
