"""What a pytorch_model.bin holds; the one look at weights for which torch is loaded."""

from __future__ import annotations

from pathlib import Path

import torch

from gptcli.models.importers.hugging_face import stored_tensors

_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def parameters_of(directory: Path) -> dict[str, int]:
    """Parameters by dtype ("F32", "BF16", …), a tensor that is there under two names counted twice."""
    found: dict[str, int] = {}
    for tensor in stored_tensors(directory)[1].values():
        name = _NAMES.get(tensor.dtype, str(tensor.dtype).removeprefix("torch."))
        found[name] = found.get(name, 0) + tensor.count
    return found


def not_finite_in(directory: Path) -> list[str]:
    """The names of the tensors that hold an infinity or a NaN. Raises ArtifactError where they can't be read."""
    tensors = stored_tensors(directory)[1]
    return [
        name
        for name, tensor in tensors.items()
        if tensor.dtype.is_floating_point and not bool(torch.isfinite(tensor.read()).all())
    ]
