"""What every form of foreign weights is opened as: a config, tensors that are read one by one, and a tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from gptcli.errors import ArtifactError
from gptcli.models.family import ModelConfig
from gptcli.models.weights import StoredTensor

__all__ = ["FLOATS", "ForeignModel", "ForeignTokenizer", "StoredTensor", "values_at"]

# The types weights are computed in; anything else is quantised, and means nothing without its scales.
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def values_at(path: Path, dtype: DTypeLike, count: int, begin: int) -> NDArray[Any]:
    """`count` values of a file from byte `begin` on, in memory of their own. Raises ArtifactError where they end
    early: the file was cut since its header was read."""
    values = np.fromfile(path, dtype, count, offset=begin)
    if len(values) != count:
        raise ArtifactError(f"{path} changed while it was read", "run the same command again")
    return values


@dataclass(frozen=True)
class ForeignTokenizer:
    """The tokenizer of a foreign model: the files it is read from, and `write`, which puts into a folder what
    gptcli.tokenizer opens."""

    files: tuple[Path, ...]
    write: Callable[[Path], None]


@dataclass(frozen=True)
class ForeignModel:
    """Somebody's model, opened but not read.

    form: what it is, in words; tensors: under Hugging Face's names, each of which the config's model has, and all of
    them; files: what config and tensors come from; tokenizer: None where the model has none; no_tokenizer: why;
    generation: what generation_config.json says beside the special ids.
    """

    form: str
    config: ModelConfig
    tensors: dict[str, StoredTensor]
    files: tuple[Path, ...]
    tokenizer: ForeignTokenizer | None = None
    no_tokenizer: str = ""
    generation: dict[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        return sum(tensor.count for tensor in self.tensors.values())
