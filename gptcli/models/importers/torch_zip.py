"""pytorch_model.bin: tensors as `torch.save` writes them, a zip archive with a pickle of their shapes in it.

Nothing in the pickle is run: torch's own restricted unpickler (`weights_only`) knows tensors and containers alone.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptcli.errors import ArtifactError
from gptcli.models.importers.foreign import StoredTensor

_HINT = "fetch it again, or convert it with transformers: model.save_pretrained(DIR, safe_serialization=True)"


def torch_tensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a pytorch_model.bin, memory-mapped. Raises ArtifactError for anything else."""
    _require_stored(path)
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever bytes make the unpickler do: KeyError, EOFError, RuntimeError, …
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ArtifactError(f"{path} can't be read: {reason[:200]}", _HINT) from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ArtifactError(f"{path} holds no tensors by name", _HINT)
    return {name: _stored(name, tensor, path) for name, tensor in found.items()}


def _require_stored(path: Path) -> None:
    """Refuse archives that unpack to more than they hold, and torch's format from before there was an archive."""
    try:
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing", "fetch it beside the others") from error
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{path} is no archive of torch.save: {error}", _HINT) from error
    packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    if packed or sum(entry.file_size for entry in entries) > size:
        raise ArtifactError(f"{path} is packed or claims more bytes than it has, which torch.save never does", _HINT)


def _stored(name: str, tensor: object, path: Path) -> StoredTensor:
    is_dense = isinstance(tensor, Tensor) and tensor.layout == torch.strided and not tensor.is_nested
    if not isinstance(tensor, Tensor) or not is_dense or tensor.is_quantized or tensor.is_meta:
        raise ArtifactError(f"{path}: {name[:80]!r} is no plain tensor", _HINT)
    # A tensor of stride 0 takes a few bytes in the file and any amount in memory.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ArtifactError(f"{path}: {name[:80]!r} has more elements than are stored", _HINT)
    kept: Tensor = tensor
    return StoredTensor(
        tuple(kept.shape), kept.dtype, lambda: kept.detach().clone(memory_format=torch.contiguous_format)
    )
