"""Products with matrices as oneDNN lays them out, once for all steps: of many rows they are faster than products
with plain matrices, which it would lay out anew at every call, and than the compiled loops.

It is what torch's own compiler makes of linear layers whose weights stay (`torch._inductor`, freezing). Rows are
rounded to bfloat16 before a product, and its sums, made in fp32, after it, as in the model's own modules; the residual
stream, norms, and attention with its cache stay fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptcli.inference.capacity import available_bytes
from gptcli.inference.native.weights import parts
from gptcli.models.family import CausalLM
from gptcli.models.gpt2 import Gpt2
from gptcli.models.lora import LoraConv1D, LoraLinear
from gptcli.models.quantized import Int8Embedding

FEWEST_ROWS = 8  # of a step: below, the compiled loops are as fast, and exact
_TYPICAL_ROWS = 16  # what a layout is chosen for
_SHARE = 0.5  # of the free memory, for the copy that a layout is


class Product:
    """x [M,in] → [M,out·n] in the matrices' type: n matrices [out, in] side by side, their biases added."""

    def __init__(self, layers: Sequence[Any]) -> None:
        found = [parts(layer) for layer in layers]
        matrix = torch.cat([weight.detach() for weight, _, _ in found]) if len(found) > 1 else found[0][0].detach()
        biases = [bias.detach() for _, _, bias in found if bias is not None]
        self._dtype = matrix.dtype
        self._bias = torch.cat(biases).to(self._dtype) if biases else None
        self._matrix = torch.ops.mkldnn._reorder_linear_weight(matrix.contiguous(), _TYPICAL_ROWS)

    def __call__(self, x: Tensor) -> Tensor:
        x = x.to(self._dtype)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._matrix, self._bias, "none", [], "")
        return out


class Norm:
    """RMSNorm, or LayerNorm where there is a bias, of fp32 rows."""

    def __init__(self, layer: Any) -> None:
        bias = getattr(layer, "bias", None)
        self._gain, self._bias = layer.weight.detach().float(), None if bias is None else bias.detach().float()
        self._eps = layer.eps

    def __call__(self, x: Tensor) -> Tensor:
        if self._bias is not None:
            return F.layer_norm(x, self._gain.shape, self._gain, self._bias, self._eps)
        return F.rms_norm(x, self._gain.shape, self._gain, self._eps)


@dataclass(frozen=True)
class Layer:
    """Norms and products: queries, keys and values; attention's output; what the activation takes (gates first); what
    follows it."""

    norms: tuple[Norm, Norm]
    joining: Product
    output: Product
    widening: Product
    narrowing: Product


@dataclass(frozen=True)
class Products:
    """A model's. Each is a copy of the weights beside the model's own."""

    layers: tuple[Layer, ...]
    norm: Norm
    head: Product
    activate: Callable[[Tensor], Tensor]

    def carry(self, x: Tensor, joined: Tensor, mixed: Tensor, attend: Callable[[int], None]) -> None:
        """x [M,H] fp32, in place, through all layers; `attend(i)` makes `mixed` [M,N·D] of `joined` [M,(N+2K)·D]."""
        for number, layer in enumerate(self.layers):
            joined.copy_(layer.joining(layer.norms[0](x)))
            attend(number)
            x += layer.output(mixed)
            x += layer.narrowing(self.activate(layer.widening(layer.norms[1](x))))

    def logits(self, x: Tensor) -> Tensor:
        """[W,V] fp32 of rows that all layers have seen."""
        return self.head(self.norm(x)).float()


_kept: WeakKeyDictionary[nn.Module, tuple[object, Products]] = WeakKeyDictionary()


def packs(model: CausalLM) -> bool:
    """Whether a model on the CPU has products here: its matrices are its own parameters (no adapter's) in bfloat16,
    which the processor computes with, and half of the free memory is enough for the copy. In fp32 the compiled loops
    are about as fast, and exact."""
    if any(parameter.dtype != torch.bfloat16 for parameter in model.parameters()) or not serves():
        return False
    if any(isinstance(module, Int8Embedding | LoraLinear | LoraConv1D) for module in model.modules()):
        return False
    free, size = available_bytes(), 2 * sum(parameter.numel() for parameter in model.parameters())
    return model in _kept or free is None or size <= free * _SHARE


def serves() -> bool:
    """Whether this processor, and this torch, have them."""
    operations = torch.ops.mkldnn
    if not torch.backends.mkldnn.is_available() or not hasattr(operations, "_reorder_linear_weight"):  # type: ignore[no-untyped-call]
        return False
    return bool(operations._is_mkldnn_bf16_supported())


@torch.no_grad()
def products(model: CausalLM) -> Products:
    """A model's products, made at the first call and when its weights have changed; kept as long as the model is."""
    state, kept = _state(model), _kept.get(model)
    activate: Callable[[Tensor], Tensor]
    if kept is not None and kept[0] == state:
        return kept[1]
    _kept.pop(model, None)  # or there would be three copies meanwhile
    if isinstance(model, Gpt2):
        inner: Any = model.transformer
        layers = [_gpt2_layer(block) for block in inner.h]
        embedding, norm, activate = inner.wte, inner.ln_f, _GELUS[model.config.gelu == "tanh"]
    else:
        inner = model.model
        layers = [_llama_layer(block) for block in inner.layers]
        embedding, norm, activate = inner.embed_tokens, inner.norm, _swiglu
    head = Product([embedding if model.config.tie_word_embeddings else model.lm_head])
    found = Products(tuple(layers), Norm(norm), head, activate)
    _kept[model] = state, found
    return found


def _gpt2_layer(block: Any) -> Layer:
    layers = (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj)
    return Layer((Norm(block.ln_1), Norm(block.ln_2)), *(Product([layer]) for layer in layers))


def _llama_layer(block: Any) -> Layer:
    attention, mlp = block.self_attn, block.mlp
    parts = (attention.q_proj, attention.k_proj, attention.v_proj), (attention.o_proj,)
    norms = Norm(block.input_layernorm), Norm(block.post_attention_layernorm)
    return Layer(norms, *(Product(each) for each in (*parts, (mlp.gate_proj, mlp.up_proj), (mlp.down_proj,))))


def _swiglu(both: Tensor) -> Tensor:
    gate, up = both.chunk(2, dim=-1)
    return F.silu(gate) * up


_GELUS = partial(F.gelu, approximate="none"), partial(F.gelu, approximate="tanh")


def _state(model: CausalLM) -> object:
    """What differs when weights have changed: their places, torch's counts of changes, and some of their numbers, for
    loops that write past torch."""
    found = []
    for parameter in model.parameters():
        flat = parameter.detach().view(-1) if parameter.is_contiguous() else parameter.detach().reshape(-1)
        version = 0 if parameter.is_inference() else parameter._version
        found.append((parameter.data_ptr(), version, float(flat[:: max(1, flat.numel() // 64)].double().sum())))
    return found
