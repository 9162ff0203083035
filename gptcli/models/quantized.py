"""Weights as 8-bit integers, for inference.

Every matrix of the layers, the token embedding and the head are kept as W ≈ scale · Q: Q int8, symmetric in -127 … 127,
one fp32 scale an output channel (a row of [out, in]; for an embedding the row of a token), its largest absolute value
over 127 (Dettmers et al. 2022, vector-wise, weights alone). Norms, biases and GPT-2's learned positions stay as they
are. Rounding moves a weight by at most half a scale, so an output channel's product with x moves by at most
‖x‖₁ · max|w| / 254; what is computed with the weights is fp32 (or the activations' own type), sums included.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptcli.models.family import CausalLM, build_model, read_config
from gptcli.models.gpt2 import Conv1D
from gptcli.models.importers.fitting import fit
from gptcli.models.importers.hugging_face import stored_tensors
from gptcli.models.llama import OutputHead, TokenEmbedding
from gptcli.models.load import check_files

LARGEST = 127


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix [out, in] → int8 [out, in] and fp32 scales [out]; rows of zeros have scale 1."""
    wide = weight.detach().float()
    largest = wide.abs().amax(dim=1)
    scale = torch.where(largest > 0, largest / LARGEST, torch.ones_like(largest))
    return torch.round(wide / scale[:, None]).clamp_(-LARGEST, LARGEST).to(torch.int8), scale


class _Int8(nn.Module):
    """What stands for a matrix: `numbers` int8 and `scale` fp32, one a row of `numbers`."""

    def __init__(self, matrix: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.numbers: Tensor
        self.scale: Tensor
        numbers, scale = quantize(matrix)
        self.register_buffer("numbers", numbers)
        self.register_buffer("scale", scale)
        self.dtype = dtype  # of what is computed

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _Int8:
        scale = self.scale  # fp32 whatever the model is cast to
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.dtype, self.scale = self.scale.dtype, scale.to(self.numbers.device)
        return self

    def whole_weight(self) -> Tensor:
        """The matrix it stands for, rows as in `numbers`."""
        return (self.numbers.float() * self.scale[:, None]).to(self.dtype)


class Int8Linear(_Int8):
    """A linear layer, [out, in] and a bias or None; GPT-2's Conv1D too, turned round."""

    def __init__(self, matrix: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__(matrix, dtype)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.whole_weight().to(x.dtype)
        return F.linear(x, weight, None if self.bias is None else self.bias.to(x.dtype))


class Int8Embedding(_Int8):
    """The input embedding, and the head where weights are tied."""

    def forward(self, ids: Tensor) -> Tensor:
        return (self.numbers[ids].float() * self.scale[ids][..., None]).to(self.dtype)

    def logits(self, hidden: Tensor) -> Tensor:
        """[…,H] to […,V], for a tied head."""
        return F.linear(hidden, self.whole_weight().to(hidden.dtype))


@torch.no_grad()
def quantize_model(model: CausalLM) -> None:
    """Put int8 matrices in the place of a model's own, one at a time, in place; for inference alone.

    An adapter must have been merged before (models/lora.py).
    """
    dtype = next(model.parameters()).dtype
    for path, layer in list(model.named_modules()):
        _replace(model, path, layer, dtype)
    model.eval()


@torch.no_grad()
def load_quantized(directory: Path, device: torch.device | str = "cpu") -> CausalLM:
    """What quantize_model makes of load_model's in fp32, of which one layer is held at a time; raises as it does."""
    check_files(directory)
    config = read_config(directory)
    tensors = fit(stored_tensors(directory)[1], config, str(directory))
    with torch.device("meta"):
        model = build_model(config)
    for path, layer in list(model.named_modules()):
        own = [name for name, _ in layer.named_parameters(recurse=False)]
        read = {name: tensors[f"{path}.{name}"].read().to(device=device, dtype=torch.float32) for name in own}
        layer.load_state_dict(read, strict=False, assign=True)
        _replace(model, path, layer, torch.float32)
    return model.to(device).eval()


def _replace(model: CausalLM, path: str, layer: nn.Module, dtype: torch.dtype) -> None:
    """Put the int8 layer in the place of one that has a matrix."""
    new: nn.Module
    if isinstance(layer, TokenEmbedding):
        new = Int8Embedding(layer.whole_weight(), dtype)
    elif isinstance(layer, OutputHead):
        new = Int8Linear(layer.whole_weight(), None, dtype)
    elif isinstance(layer, Conv1D):
        new = Int8Linear(layer.weight.t(), layer.bias, dtype)
    elif isinstance(layer, nn.Linear):
        new = Int8Linear(layer.weight, layer.bias, dtype)
    else:
        return
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, new)
