"""What a parameter is, told by its Hugging Face name, whatever the model's family."""

from __future__ import annotations

from typing import Literal

Kind = Literal["embedding", "head", "matrix", "gain"]

_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "wpe.weight")
_POSITIONS = "wpe.weight"
_HEAD = "lm_head.weight"
# The matrices whose output is added to the residual stream.
_OUTPUTS = ("o_proj.weight", "down_proj.weight", "c_proj.weight")
# Projections that GPT-2 keeps as [in, out], where every other matrix is [out, in].
_INPUTS_FIRST = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
_QKV = "c_attn.weight"


def kind_of(name: str, dimensions: int) -> Kind:
    """Which rule a parameter learns by. Learned positions count as embeddings, biases and norms' weights as gains."""
    if name.endswith(_EMBEDDINGS):
        return "embedding"
    if name.endswith(_HEAD):
        return "head"
    return "matrix" if dimensions == 2 else "gain"


def is_position_table(name: str) -> bool:
    return name.endswith(_POSITIONS)


def is_output_projection(name: str) -> bool:
    """It ends a layer's attention or MLP, writing into the residual stream."""
    return name.endswith(_OUTPUTS)


def inputs_first(name: str) -> bool:
    """The matrix is kept as [in, out]; otherwise [out, in]."""
    return name.endswith(_INPUTS_FIRST)


def blocks_of(name: str) -> int:
    """How many matrices of equal shape lie side by side along the outputs: three in GPT-2's c_attn (q, k, v)."""
    return 3 if name.endswith(_QKV) else 1
