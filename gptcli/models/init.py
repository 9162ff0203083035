"""Weights to start from when a model is trained from scratch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# These start at zero, so every layer begins as the identity and the first logits are uniform.
_ZERO = ("o_proj.weight", "down_proj.weight", "lm_head.weight")


@torch.no_grad()
def init_weights(model: nn.Module, generator: torch.Generator, embedding_std: float = 0.02) -> None:
    """Fill every parameter of `model`, in place, from one CPU generator.

    Embeddings: normal with `embedding_std`. Matrices: normal with standard deviation 1/sqrt(fan_in), cut at three
    deviations. Output projections and an untied head: zero. Gains one, biases zero. Values are drawn on the CPU in
    fp32 in the order of the parameters, so a seed gives the same model on every device. A model built on the meta
    device is moved with `to_empty(device=…)` first.
    """
    for name, parameter in model.named_parameters():
        parameter.copy_(_start(name, parameter.shape, generator, embedding_std))


def _start(name: str, shape: torch.Size, generator: torch.Generator, embedding_std: float) -> Tensor:
    if len(shape) == 1:
        return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
    if name.endswith(_ZERO):
        return torch.zeros(shape)
    if name.endswith("embed_tokens.weight"):
        return torch.empty(shape).normal_(0.0, embedding_std, generator=generator)
    std = shape[1] ** -0.5
    return nn.init.trunc_normal_(torch.empty(shape), std=std, a=-3 * std, b=3 * std, generator=generator)
