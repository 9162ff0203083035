"""What a safetensors file holds, told by its header and bytes, without torch.

Format: 8 bytes little-endian header length, a JSON header {name: {dtype, shape, data_offsets}}, the tensors' bytes.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gptcli.errors import ArtifactError

TORCH_FILES = "pytorch_model*.bin"  # weights in torch's own format, which this file does not read
_LONGEST_HEADER = 100_000_000  # bytes, the format's own limit
_WORDS_AT_ONCE = 1 << 22
_ITEM_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
# Where a float's exponent bits are all ones it is an infinity or no number.
_EXPONENTS: dict[str, tuple[type[np.unsignedinteger], int]] = {
    "F64": (np.uint64, 0x7FF0_0000_0000_0000),
    "F32": (np.uint32, 0x7F80_0000),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
}


@dataclass(frozen=True)
class Tensor:
    """A tensor's place in its file: bytes `begin` … `end`-1."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def count(self) -> int:
        return math.prod(self.shape)


def read_header(path: Path) -> list[Tensor]:
    """The tensors of a safetensors file; ArtifactError when it is none or its header contradicts its size."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _LONGEST_HEADER):
                raise ValueError("it is cut short")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        tensors = [_tensor(name, entry, 8 + length) for name, entry in header.items()]
        for tensor in tensors:
            width = _ITEM_BYTES.get(tensor.dtype, 1)
            if tensor.end > size or tensor.end - tensor.begin != tensor.count * width:
                raise ValueError(f"the bytes of {tensor.name} do not match its shape")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} is no readable safetensors file: {error}", "restore it, or use another") from error
    return tensors


def _tensor(name: str, entry: dict[str, object], start: int) -> Tensor:
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2:
        raise ValueError(f"the entry of {name} is broken")
    begin, end = (start + int(offset) for offset in offsets)
    return Tensor(name, str(entry["dtype"]), tuple(int(size) for size in shape), begin, end)


def not_finite(path: Path) -> list[str]:
    """The names of the tensors that hold an infinity or a NaN; ArtifactError as read_header."""
    tensors = [tensor for tensor in read_header(path) if tensor.dtype in _EXPONENTS and tensor.count]
    if not tensors:
        return []
    data = np.memmap(path, np.uint8, "r")
    return [tensor.name for tensor in tensors if not _is_finite(data[tensor.begin : tensor.end], tensor.dtype)]


def _is_finite(data: NDArray[np.uint8], dtype: str) -> bool:
    word, exponent = _EXPONENTS[dtype]
    words = np.frombuffer(data, word)
    for start in range(0, len(words), _WORDS_AT_ONCE):
        piece = words[start : start + _WORDS_AT_ONCE] & word(exponent)
        if bool((piece == exponent).any()):
            return False
    return True


def parameters(directory: Path) -> dict[str, int]:
    """Parameters by dtype ("F32", "BF16", …) over the weight files of a model directory."""
    found: dict[str, int] = {}
    for path in sorted(directory.glob("*.safetensors")):
        for tensor in read_header(path):
            found[tensor.dtype] = found.get(tensor.dtype, 0) + tensor.count
    return found
