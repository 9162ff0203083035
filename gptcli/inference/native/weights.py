"""A model's weights as compiled loops read them: addresses of its own tensors, copies only of what lies otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gptcli.inference.native.layout import GELU, GELU_TANH, PARTS, SWIGLU
from gptcli.inference.native.vectors import BFLOAT16, FLOAT32, INT8
from gptcli.models.family import CausalLM
from gptcli.models.gpt2 import Block as Gpt2Block
from gptcli.models.gpt2 import Conv1D, Gpt2
from gptcli.models.llama import Block as LlamaBlock
from gptcli.models.lora import LoraConv1D, LoraLinear
from gptcli.models.quantized import Int8Embedding, Int8Linear

_KINDS = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16, torch.int8: INT8}


@dataclass(frozen=True)
class Weights:
    """The arguments of `step` that are the model; `held` keeps the tensors behind its addresses.

    An adapter's low-rank updates are merged here, in fp32.
    """

    matrices: npt.NDArray[np.int64]
    gains: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]
    cos: npt.NDArray[np.float32]
    sin: npt.NDArray[np.float32]
    activation: int
    held: tuple[Tensor, ...]


class _Collector:
    def __init__(self, turning: bool) -> None:
        self._turning = turning
        self.held: list[Tensor] = []
        self.values: list[npt.NDArray[np.float32]] = []
        self.size = 0

    def vector(self, tensor: Tensor | None) -> int:
        """The offset of a vector among the values; -1: there is none."""
        if tensor is None:
            return -1
        offset = self.size
        self.values.append(tensor.detach().float().numpy().ravel())
        self.size += tensor.numel()
        return offset

    def matrix(self, layer: Any) -> list[int]:
        """The row of `matrices` for a linear layer, an embedding or a head."""
        weight, scale, bias = parts(layer)
        rows, columns = weight.shape
        if self._turning or weight.is_contiguous():
            weight = weight.detach().contiguous()
        self.held.append(weight)
        return [weight.data_ptr(), _KINDS[weight.dtype], self.vector(scale), self.vector(bias), rows, columns]

    def slices(self, layer: Any, count: int) -> list[list[int]]:
        """A layer's outputs in equal parts, each as a matrix."""
        address, kind, scale, bias, rows, columns = self.matrix(layer)
        part = rows // count
        width = part * columns * self.held[-1].element_size()
        return [
            [address + i * width, kind, *(-1 if at < 0 else at + i * part for at in (scale, bias)), part, columns]
            for i in range(count)
        ]


def parts(layer: Any) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """A layer's matrix [out, in], its scales and its bias."""
    if isinstance(layer, Int8Linear | Int8Embedding):
        return layer.numbers, layer.scale, getattr(layer, "bias", None)
    if isinstance(layer, LoraLinear):
        return layer.merged(), None, layer.bias
    if isinstance(layer, LoraConv1D):
        return layer.merged().t(), None, layer.bias
    if isinstance(layer, Conv1D):
        return layer.weight.t(), None, layer.bias
    if isinstance(layer, nn.Linear) and not hasattr(layer, "whole_weight"):
        return layer.weight, None, layer.bias
    return layer.whole_weight(), None, None


@torch.no_grad()
def collect(model: CausalLM, *, turning: bool = True) -> Weights:
    """The weights of a model on the CPU, in float32, bfloat16 or int8.

    Without `turning`, matrices kept as [in, out] are not copied, and no product with them may be asked for.
    """
    into = _Collector(turning)
    matrices: list[list[int]] = []
    gains: list[list[int]] = []
    last: tuple[Tensor, Tensor | None]
    embedding: nn.Module
    if isinstance(model, Gpt2):
        for block in model.transformer.h:
            assert isinstance(block, Gpt2Block)
            _gpt2_layer(into, block, matrices, gains)
        last = (model.transformer.ln_f.weight, model.transformer.ln_f.bias)
        embedding = model.transformer.wte
        cos = sin = torch.zeros(model.config.max_position_embeddings, 0)
        activation = GELU_TANH if model.config.gelu == "tanh" else GELU
    else:
        for layer in model.model.layers:
            assert isinstance(layer, LlamaBlock)
            _llama_layer(into, layer, matrices, gains)
        last, embedding = (model.model.norm.weight, None), model.model.embed_tokens
        cos, sin, activation = model.model.rotary.cos, model.model.rotary.sin, SWIGLU
    gains.append([*(into.vector(each) for each in last), -1, -1, -1, -1])
    matrices.append(into.matrix(embedding if model.config.tie_word_embeddings else model.lm_head))
    values, phases = np.concatenate(into.values), (cos.numpy(), sin.numpy())
    return Weights(np.asarray(matrices), np.asarray(gains), values, *phases, activation, tuple(into.held))


def _llama_layer(into: _Collector, block: LlamaBlock, matrices: list[list[int]], gains: list[list[int]]) -> None:
    attention, mlp = block.self_attn, block.mlp
    layers = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
    matrices += [into.matrix(layer) for layer in (*layers, mlp.gate_proj, mlp.up_proj, mlp.down_proj)]
    norms = [attention.q_norm.weight, attention.k_norm.weight] if attention.qk_norm else [None, None]
    first, second = block.input_layernorm.weight, block.post_attention_layernorm.weight
    gains.append([into.vector(each) for each in (first, None, second, None, *norms)])


def _gpt2_layer(into: _Collector, block: Gpt2Block, matrices: list[list[int]], gains: list[list[int]]) -> None:
    matrices += into.slices(block.attn.c_attn, 3)
    none = [0] * 6  # there is no gate
    matrices += [into.matrix(block.attn.c_proj), none, into.matrix(block.mlp.c_fc), into.matrix(block.mlp.c_proj)]
    norms = (block.ln_1.weight, block.ln_1.bias, block.ln_2.weight, block.ln_2.bias, None, None)
    gains.append([into.vector(each) for each in norms])
    assert len(matrices) % PARTS == 0
