"""GGUF files, versions 2 and 3, little-endian: metadata, and where tensors lie.

Layout (github.com/ggml-org/ggml, docs/gguf.md): "GGUF", uint32 version, uint64 tensors, uint64 metadata entries; each
entry a string, a uint32 type and a value; each tensor a string, uint32 dimensions, their uint64 sizes (innermost
first), a uint32 type, a uint64 offset; then, aligned, the tensors' bytes. Every length is held against the bytes that
are left before anything of that length is made.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gptcli.errors import ArtifactError
from gptcli.models.importers.foreign import values_at

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "?",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_STRING, _ARRAY = 8, 9
_DEEPEST = 3  # arrays within arrays
_MOST_DIMENSIONS = 4
_LARGEST_ALIGNMENT = 1 << 20
Q8_BLOCK = 32  # values of Q8_0 that share a scale
# What ggml's types are called; only those in READABLE are opened.
_TYPES = (
    *("F32", "F16", "Q4_0", "Q4_1", "Q4_2", "Q4_3", "Q5_0", "Q5_1", "Q8_0", "Q8_1"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S"),
    *("IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "I8", "I16", "I32", "I64", "F64", "IQ1_M", "BF16"),
)
TYPES = {**dict(enumerate(_TYPES)), 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4"}
READABLE = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "Q8_0": torch.float32}
_HINT = "fetch it again from its source"


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's shape (outermost first), ggml type and first byte in the file."""

    shape: tuple[int, ...]
    type: str
    begin: int

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes in the file, of a readable type."""
        return {"F32": 4 * self.count, "Q8_0": self.count // Q8_BLOCK * (Q8_BLOCK + 2)}.get(self.type, 2 * self.count)


@dataclass(frozen=True)
class GgufFile:
    """Metadata by key (strings, numbers, lists of strings, numpy arrays of numbers) and tensors by name."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]

    def text(self, key: str) -> str | None:
        """The string under a key, None where it is absent; ArtifactError for another type, as all of these raise."""
        value = self.metadata.get(key)
        return value if value is None or isinstance(value, str) else self._refuse(key, "no text")

    def flag(self, key: str, default: bool) -> bool:
        value = self.metadata.get(key, default)
        return value if isinstance(value, bool) else self._refuse(key, "no flag")

    def integer(self, key: str) -> int | None:
        """The whole number under a key, None where it is absent."""
        value = self.metadata.get(key)
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        return value if value is None or is_integer else self._refuse(key, "no whole number")

    def number(self, key: str) -> float | None:
        """The number under a key, whole or not, None where it is absent."""
        value = self.metadata.get(key)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return value if value is None or is_number else self._refuse(key, "no number")

    def numbers(self, key: str, *, whole: bool = False) -> NDArray[Any] | None:
        """The array of numbers under a key, None where it is absent; `whole`: of integers alone."""
        value = self.metadata.get(key)
        is_array = isinstance(value, np.ndarray) and value.dtype.kind in ("iu" if whole else "iuf")
        return value if value is None or is_array else self._refuse(key, f"no list of {'whole ' * whole}numbers")

    def texts(self, key: str) -> list[str] | None:
        """The list of strings under a key, None where it is absent."""
        value = self.metadata.get(key)
        is_list = isinstance(value, list) and all(isinstance(each, str) for each in value)
        return value if value is None or is_list else self._refuse(key, "no list of texts")

    def _refuse(self, key: str, what: str) -> NoReturn:
        value = self.metadata[key]
        shown = f"a list of {len(value):,}" if isinstance(value, list | np.ndarray) else repr(value)[:80]
        raise ArtifactError(f"{self.path}: {key} is {shown}, {what}", _HINT)

    def read(self, name: str) -> Tensor:
        """A tensor's values; Q8_0 as float32, value by scale, which is exact."""
        info = self.tensors[name]
        if info.type == "Q8_0":
            block = np.dtype([("scale", "<f2"), ("values", "i1", Q8_BLOCK)])
            rows = values_at(self.path, block, info.count // Q8_BLOCK, info.begin)
            values = rows["values"].astype(np.float32) * rows["scale"].astype(np.float32)[:, None]
            return torch.from_numpy(values).view(info.shape)
        word = {"F32": "<f4", "F16": "<f2", "BF16": "<i2"}[info.type]
        tensor = torch.from_numpy(values_at(self.path, word, info.count, info.begin))
        return (tensor.view(torch.bfloat16) if info.type == "BF16" else tensor).view(info.shape)


def read_gguf(path: Path) -> GgufFile:
    """Read the metadata and the places of all tensors; of their bytes, nothing.

    Raises ArtifactError, naming the place, for anything but a whole GGUF file of a known version.
    """
    try:
        with path.open("rb") as file:
            return _Reader(path, file, path.stat().st_size).whole()
    except OSError as error:
        raise ArtifactError(f"{path} can't be read: {error.strerror or error}", "check the path") from error


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """What only a value that nobody writes can cause becomes an ArtifactError: the file is at fault."""
    try:
        yield
    except (TypeError, ValueError, ArithmeticError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ArtifactError(f"{path}: a value in it can't be meant: {reason[:200]}", _HINT) from error


class _Reader:
    """Reads forward through a file and knows how much of it is left."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path, self.file, self.size, self.at = path, file, size, 0

    def whole(self) -> GgufFile:
        if self.take(4, "its magic") != MAGIC:
            raise ArtifactError(f"{self.path} is no GGUF file", _HINT)
        version = self.number("<I", "its version")
        if version not in _VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS
            raise ArtifactError(
                f"{self.path} is "
                + ("big-endian GGUF" if swapped else f"GGUF version {version}")
                + "; versions 2 and 3, little-endian, are read",
                "convert it with a current llama.cpp",
            )
        tensors, entries = self.number("<Q", "its header"), self.number("<Q", "its header")
        metadata = self.entries(entries)
        infos = self.infos(tensors)
        return GgufFile(self.path, metadata, self.placed(infos, metadata))

    def take(self, count: int, what: str) -> bytes:
        if count > self.size - self.at:
            raise ArtifactError(f"{self.path} ends inside {what}, at byte {self.size:,}", _HINT)
        data = self.file.read(count)
        if len(data) != count:
            raise ArtifactError(f"{self.path} ends inside {what}, at byte {self.at + len(data):,}", _HINT)
        self.at += count
        return data

    def number(self, form: str, what: str) -> int:
        value: int = struct.unpack(form, self.take(struct.calcsize(form), what))[0]
        return value

    def string(self, what: str) -> str:
        data = self.take(self.number("<Q", what), what)
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise ArtifactError(f"{self.path}: {what} is no UTF-8, at byte {self.at:,}", _HINT) from None

    def entries(self, count: int) -> dict[str, Any]:
        self.require_room(count, 13, "metadata entries")  # an empty key, a type and one byte
        found: dict[str, Any] = {}
        for number in range(count):
            key = self.string(f"the key of metadata entry {number}")
            if key in found:
                raise ArtifactError(f"{self.path}: metadata has {key[:80]!r} twice", _HINT)
            found[key] = self.value(self.number("<I", f"the type of {key[:80]!r}"), repr(key[:80]), _DEEPEST)
        return found

    def value(self, kind: int, what: str, depth: int) -> Any:
        if kind in _SCALARS:
            return np.frombuffer(self.take(np.dtype(_SCALARS[kind]).itemsize, what), _SCALARS[kind])[0].item()
        if kind == _STRING:
            return self.string(what)
        if kind != _ARRAY or not depth:
            raise ArtifactError(f"{self.path}: {what} has the type {kind}, which is not known", _HINT)
        inner, count = self.number("<I", what), self.number("<Q", what)
        if inner in _SCALARS:
            width = np.dtype(_SCALARS[inner]).itemsize
            self.require_room(count, width, f"values of {what}")
            return np.frombuffer(self.take(count * width, what), _SCALARS[inner])
        self.require_room(count, 8, f"items of {what}")
        return [self.value(inner, what, depth - 1) for _ in range(count)]

    def infos(self, count: int) -> dict[str, tuple[tuple[int, ...], str, int]]:
        self.require_room(count, 24, "tensors")
        found: dict[str, tuple[tuple[int, ...], str, int]] = {}
        for number in range(count):
            name = self.string(f"the name of tensor {number}")
            what = f"the place of tensor {name[:80]!r}"
            dimensions = self.number("<I", what)
            if dimensions > _MOST_DIMENSIONS or name in found:
                fault = "is there twice" if name in found else f"has {dimensions} dimensions"
                raise ArtifactError(f"{self.path}: the tensor {name[:80]!r} {fault}", _HINT)
            shape = tuple(self.number("<Q", what) for _ in range(dimensions))[::-1]
            kind = self.number("<I", what)
            found[name] = shape, TYPES.get(kind, f"number {kind}"), self.number("<Q", what)
        return found

    def placed(
        self, infos: dict[str, tuple[tuple[int, ...], str, int]], metadata: dict[str, Any]
    ) -> dict[str, TensorInfo]:
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= _LARGEST_ALIGNMENT or alignment & (alignment - 1):
            raise ArtifactError(f"{self.path}: general.alignment is {str(alignment)[:80]}, no power of two", _HINT)
        begin = -(-self.at // alignment) * alignment
        found = {}
        for name, (shape, kind, offset) in infos.items():
            if kind not in READABLE:
                raise ArtifactError(
                    f"{self.path}: the tensor {name[:80]} is stored as {kind}; F32, F16, BF16 and Q8_0 are read",
                    "convert it: llama-quantize --allow-requantize IN.gguf OUT.gguf Q8_0 (or F16)",
                )
            info = TensorInfo(shape, kind, begin + offset)
            if kind == "Q8_0" and (not shape or shape[-1] % Q8_BLOCK):
                raise ArtifactError(f"{self.path}: {name[:80]} has rows of no whole blocks of {Q8_BLOCK}", _HINT)
            if offset % alignment or 0 in shape or info.begin + info.bytes > self.size:
                raise ArtifactError(
                    f"{self.path}: the bytes of {name[:80]} ({list(shape)}, from byte {info.begin:,}) do not lie in "
                    f"the file of {self.size:,} bytes",
                    _HINT,
                )
            found[name] = info
        return found

    def require_room(self, count: int, width: int, what: str) -> None:
        if count * width > self.size - self.at:
            raise ArtifactError(
                f"{self.path} would have {count:,} {what} at byte {self.at:,}, more than its {self.size:,} bytes hold",
                _HINT,
            )
