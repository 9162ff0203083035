"""Weights to start from when a model is trained from scratch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gptcli.models.naming import inputs_first, is_output_projection, is_position_table, kind_of


@torch.no_grad()
def init_weights(model: nn.Module, generator: torch.Generator, embedding_std: float = 0.02) -> None:
    """Fill every parameter of `model`, in place, from one CPU generator.

    Embeddings: normal with `embedding_std`, learned positions with half of it (Radford et al. 2019 have .02 and .01).
    Matrices: normal with standard deviation 1/sqrt(fan_in), cut at three deviations. Output projections and an untied
    head: zero, so every layer begins as the identity and the first logits are uniform. Gains one, biases zero. Values
    are drawn on the CPU in fp32 in the order of the parameters, so a seed gives the same model on every device. A
    model built on the meta device is moved with `to_empty(device=…)` first.
    """
    for name, parameter in model.named_parameters():
        parameter.copy_(_start(name, parameter.shape, generator, embedding_std))


def _start(name: str, shape: torch.Size, generator: torch.Generator, embedding_std: float) -> Tensor:
    if len(shape) == 1:
        return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
    kind = kind_of(name, len(shape))
    if kind == "head" or is_output_projection(name):
        return torch.zeros(shape)
    if kind == "embedding":
        std = embedding_std / 2 if is_position_table(name) else embedding_std
        return torch.empty(shape).normal_(0.0, std, generator=generator)
    std = (shape[0] if inputs_first(name) else shape[1]) ** -0.5
    return nn.init.trunc_normal_(torch.empty(shape), std=std, a=-3 * std, b=3 * std, generator=generator)
