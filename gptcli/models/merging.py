"""An adapter folded into its base, one tensor at a time: what `lora.merge` does to a whole model in memory."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from gptcli.errors import ArtifactError, SpecError
from gptcli.models.family import ModelConfig, build_model
from gptcli.models.gpt2 import Conv1D
from gptcli.models.load import ADAPTER_WEIGHTS, read_adapter_config
from gptcli.models.lora import (
    PREFIX,
    LoraConfig,
    LoraConv1D,
    LoraLinear,
    TokenRows,
    adapter_state_dict,
    apply_lora,
)
from gptcli.models.naming import inputs_first
from gptcli.models.weights import StoredTensor, read_tensors

_A, _B, _ROWS = "lora_A.weight", "lora_B.weight", "token_adapter.trainable_tokens_delta"


def merged_tensors(
    base: dict[str, StoredTensor], config: ModelConfig, adapter: Path
) -> tuple[dict[str, StoredTensor], int]:
    """The base's tensors with the adapter in the directory `adapter` folded in, and how many it changes.

    Each is W + scale · B·A in fp32, rounded once to the type the base stores it in; trained token rows take the place
    of the base's; every other tensor is the base's to the bit. `base` are the tensors of a model of `config`. Raises
    ArtifactError when the adapter is broken, not supported, or of another base.
    """
    lora, _ = read_adapter_config(adapter)
    tensors = read_tensors(adapter / ADAPTER_WEIGHTS)
    require_adapter_fits({name: tuple(tensor.shape) for name, tensor in tensors.items()}, lora, config, adapter)
    out, changed = dict(base), 0
    for name, stored in base.items():
        path = PREFIX + name.removesuffix("weight")
        if path + _A in tensors:
            read = partial(_low_rank, stored, tensors[path + _A], tensors[path + _B], lora, inputs_first(name))
        elif path + _ROWS in tensors:
            read = partial(_with_rows, stored, tensors[path + _ROWS], lora)
        else:
            continue
        changed += 1
        out[name] = StoredTensor(stored.shape, torch.float32, read).cast(stored.dtype)
    return out, changed


@torch.no_grad()
def _low_rank(stored: StoredTensor, down: Tensor, up: Tensor, lora: LoraConfig, turned: bool) -> Tensor:
    weight = nn.Parameter(stored.read(), requires_grad=False)
    with torch.device("meta"):
        layer: LoraLinear | LoraConv1D
        if turned:
            layer = LoraConv1D(Conv1D(*stored.shape), lora)
        else:
            layer = LoraLinear(nn.Linear(stored.shape[1], stored.shape[0], bias=False), lora)
    layer.weight = weight
    layer.lora_A.weight, layer.lora_B.weight = nn.Parameter(down), nn.Parameter(up)
    return layer.merged()


@torch.no_grad()
def _with_rows(stored: StoredTensor, trained: Tensor, lora: LoraConfig) -> Tensor:
    weight = stored.read().float()
    rows = TokenRows(weight, lora.token_ids)
    rows.trainable_tokens_delta.copy_(trained)
    return rows.whole(weight)


def require_adapter_fits(
    shapes: Mapping[str, tuple[int, ...]], lora: LoraConfig, config: ModelConfig, adapter: Path
) -> None:
    """Hold an adapter's names and shapes against what its settings make of a base of `config`; no weight is read.

    Raises ArtifactError naming what is missing, unexpected or misshapen.
    """
    with torch.device("meta"):
        model = build_model(config)
    try:
        apply_lora(model, lora, torch.Generator())
    except (ArtifactError, SpecError) as error:
        raise ArtifactError(f"{adapter}: {error.message}", error.hint) from error
    wanted = {name: tuple(tensor.shape) for name, tensor in adapter_state_dict(model).items()}
    problems = [f"{name} is missing" for name in wanted if name not in shapes]
    problems += [f"{name} is not expected" for name in shapes if name not in wanted]
    problems += [
        f"{name} has shape {list(shapes[name])}, not {list(shape)}"
        for name, shape in wanted.items()
        if name in shapes and shapes[name] != shape
    ]
    if problems:
        raise ArtifactError(
            f"{adapter}: the adapter does not fit its base model: {'; '.join(problems[:5])}",
            "was it trained on another base?",
        )
