"""AdamW (Loshchilov & Hutter 2019) by PyTorch's fused kernel.

torch.optim.AdamW calls the same kernel, but making any torch.optim.Optimizer imports the whole of torch._dynamo, which
would be a tenth of the time that a run takes to its first step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Zeros = Callable[[torch.Size], Tensor]  # fp32 zeros of a shape, where the parameters are
FUSED = ("cpu", "cuda")  # kinds of device that have the kernel


class AdamW:
    """`groups` of {"params", "lr", "weight_decay"}. A step: W ← (1 - lr·weight_decay)·W - lr·m̂ / (√v̂ + eps), where m̂
    and v̂ are the gradient's and its square's exponential averages, each corrected for its start at zero."""

    def __init__(self, groups: list[dict[str, Any]], *, betas: tuple[float, float], eps: float = 1e-8) -> None:
        self.param_groups = groups
        self.betas, self.eps = betas, eps
        self.state: dict[Tensor, dict[str, Tensor]] = {}

    def first_state(self, parameter: Tensor, zeros: Zeros) -> dict[str, Tensor]:
        """The state before the first step."""
        return {"step": zeros(torch.Size()), "exp_avg": zeros(parameter.shape), "exp_avg_sq": zeros(parameter.shape)}

    def cost(self, parameter: Tensor) -> float:
        """Of an update, in products: what counts is the memory it moves, worth some hundred products a number."""
        return 100.0 * parameter.numel()

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            learning = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not learning:
                continue
            states = [self.state[parameter] for parameter in learning]
            gradients = [parameter.grad for parameter in learning]
            torch._foreach_add_([state["step"] for state in states], 1.0)
            if learning[0].device.type in FUSED:
                self._fused(group, learning, gradients, states)
            else:
                for parameter, gradient, state in zip(learning, gradients, states, strict=True):
                    self._plain(group, parameter, gradient, state)

    def _fused(
        self, group: dict[str, Any], learning: list[Tensor], gradients: list[Tensor], states: list[dict[str, Tensor]]
    ) -> None:
        torch._fused_adamw_(
            learning,
            gradients,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            lr=group["lr"],
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=group["weight_decay"],
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )

    def _plain(self, group: dict[str, Any], parameter: Tensor, gradient: Tensor, state: dict[str, Tensor]) -> None:
        beta1, beta2 = self.betas
        step = state["step"].item()
        state["exp_avg"].lerp_(gradient, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        scale = (state["exp_avg_sq"] / (1 - beta2**step)).sqrt_().add_(self.eps)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.addcdiv_(state["exp_avg"], scale, value=-group["lr"] / (1 - beta1**step))
