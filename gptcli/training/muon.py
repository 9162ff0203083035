"""Muon: momentum, orthogonalised (Jordan et al. 2024, kellerjordan.github.io/posts/muon)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gptcli.training.adamw import Zeros

# A quintic polynomial whose iteration drives every singular value into about .7 … 1.2 in five rounds.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ROUNDS = 5
_TINY = 1e-7


@dataclass(frozen=True)
class Layout:
    """How a parameter holds its matrices: [in, out] instead of [out, in]; `blocks` side by side along the outputs."""

    inputs_first: bool = False
    blocks: int = 1

    def matrices(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """The tensor's matrices as [out, in] views."""
        return (tensor.t() if self.inputs_first else tensor).chunk(self.blocks)


class Muon:
    """For parameters of two dimensions. A step: B ← momentum·B + (1-momentum)·g; u = g + momentum·(B-g) (Nesterov);
    W ← (1 - lr·weight_decay)·W - lr·√max(1, out/in)·orthogonal(u), each matrix by itself.

    Equals torch.optim.Muon with adjust_lr_fn="original"; beyond it knows matrices kept as [in, out] and several in
    one parameter (`layouts`), and multiplies in `dtype`, which torch fixes at bfloat16.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.bfloat16,
        layouts: dict[Tensor, Layout] | None = None,
    ) -> None:
        self.param_groups: list[dict[str, Any]] = [
            {"params": list(parameters), "lr": lr, "weight_decay": weight_decay, "momentum": momentum}
        ]
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        self._dtype, self._layouts = dtype, layouts or {}

    def first_state(self, parameter: Tensor, zeros: Zeros) -> dict[str, Tensor]:
        """The state before the first step."""
        return {"momentum_buffer": zeros(parameter.shape)}

    def cost(self, parameter: Tensor) -> float:
        """Of an update, in products: each round has X·Xᵀ, its square, and its product with X."""
        small, large = sorted(parameter.shape)
        return float(ROUNDS * small * small * (2 * large + small))

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._learn(parameter, parameter.grad, group)

    def _learn(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        average = self.state[parameter]["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        update = gradient.lerp(average, group["momentum"])
        layout = self._layouts.get(parameter, Layout())
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        for weight, change in zip(layout.matrices(parameter), layout.matrices(update), strict=True):
            rows, columns = weight.shape
            rate = group["lr"] * max(1.0, rows / columns) ** 0.5
            weight.add_(orthogonalised(change, self._dtype), alpha=-rate)


def orthogonalised(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """About U·Vᵀ of a matrix U·S·Vᵀ [R,C], in `dtype`: its singular values are brought near one by Newton–Schulz."""
    a, b, c = COEFFICIENTS
    x = matrix.to(dtype)
    tall = x.shape[0] > x.shape[1]
    if tall:  # the products are between rows: let those be the fewer
        x = x.t()
    x = x / x.norm().clamp(min=_TINY)
    for _ in range(ROUNDS):
        gram = x @ x.t()
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.t() if tall else x
