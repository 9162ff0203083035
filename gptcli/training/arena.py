"""A model's parameters, their gradients and their compute copies, each kind in one flat buffer.

Matrices come first, in the model's order and without gaps, so that those that multiply the same input (q, k and v;
gate and up) lie side by side and one product does for all. Vectors (gains, biases) follow; they have no copies.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from math import prod
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from gptcli.models.ops.sums import add_into

Allocate = Callable[[int, torch.dtype], Tensor]
Model = TypeVar("Model", bound=nn.Module)


class Arena(Generic[Model]):
    """The flat buffers of one model.

    `masters` fp32 [N]: the parameters of `module`, whose tensors become views of it; `sums` fp32 [N]: their
    gradients, one buffer for each rank; the parameters' `.grad` are views of rank 0's. `allocate(elements, dtype)`
    gives the memory, shared between ranks or not.
    """

    def __init__(self, module: Model, ranks: int, allocate: Allocate) -> None:
        self.module = module
        named = dict(module.named_parameters())
        self.matrices = [name for name, parameter in named.items() if parameter.ndim >= 2]
        vectors = [name for name, parameter in named.items() if parameter.ndim < 2]
        self._places: dict[str, tuple[int, torch.Size]] = {}
        at = 0
        for name in [*self.matrices, *vectors]:
            self._places[name] = (at, named[name].shape)
            at += named[name].numel()
        self.copied = sum(named[name].numel() for name in self.matrices)  # elements of the matrices
        self.masters = allocate(at, torch.float32)
        self.sums = [allocate(at, torch.float32) for _ in range(ranks)]
        with torch.no_grad():
            for name, parameter in named.items():
                view = self.view(self.masters, name)
                view.copy_(parameter)
                parameter.data = view
                parameter.grad = self.view(self.sums[0], name)

    def view(self, buffer: Tensor, name: str) -> Tensor:
        """A parameter's part of a flat buffer, in its shape."""
        at, shape = self._places[name]
        return buffer[at : at + prod(shape)].view(shape)

    def zero(self, rank: int) -> None:
        """Forget a rank's sums."""
        self.sums[rank].zero_()


class Average(Generic[Model]):
    """An exponential moving average of the masters, which lags behind them by about 1/(1-decay) steps."""

    def __init__(self, arena: Arena[Model], decay: float, allocate: Allocate) -> None:
        self.arena, self.decay = arena, decay
        self.values = allocate(arena.masters.numel(), torch.float32)
        self.values.copy_(arena.masters)

    @torch.no_grad()
    def follow(self, names: list[str]) -> None:
        """Move the named parameters' average towards their masters by 1-decay."""
        for name in names:
            self.arena.view(self.values, name).lerp_(self.arena.view(self.arena.masters, name), 1 - self.decay)

    def swap(self) -> None:
        """Exchange the average and the masters."""
        masters = self.arena.masters.clone()
        self.arena.masters.copy_(self.values)
        self.values.copy_(masters)

    def state(self) -> dict[str, Tensor]:
        """What it holds, by parameter."""
        return {name: self.arena.view(self.values, name) for name, _ in self.arena.module.named_parameters()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take up what `state()` gave."""
        for name, value in self.state().items():
            value.copy_(state[name])


class Replica(Generic[Model]):
    """The model that computes: its matrices are copies in the compute dtype, its vectors the masters themselves.

    Gradients of its parameters are added to the rank's sums the moment they are complete, in fp32: a product's
    gradient is rounded once, as under autocast, but no weight is cast in a step, and no gradient is kept twice.
    """

    def __init__(self, arena: Arena[Model], dtype: torch.dtype, allocate: Allocate) -> None:
        self.arena = arena
        masters = arena.masters[: arena.copied]
        self.copies = masters if dtype == torch.float32 else allocate(arena.copied, dtype)
        self.module = _without_gradients(arena.module)
        matrices = set(arena.matrices)
        for name, parameter in self.module.named_parameters():
            parameter.data = arena.view(self.copies if name in matrices else arena.masters, name)
        self.refresh()

    def collect(self, rank: int) -> None:
        """From now on add this process's gradients to the sums of `rank`."""
        for name, parameter in self.module.named_parameters():
            total = self.arena.view(self.arena.sums[rank], name)
            parameter.register_post_accumulate_grad_hook(_adder(total))  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def refresh(self, names: list[str] | None = None) -> None:
        """Round the masters of the named matrices (default: all) into the copies."""
        if self.copies.dtype == torch.float32:  # they are the masters
            return
        if names is None:
            self.copies.copy_(self.arena.masters[: self.arena.copied])
            return
        for name in set(names).intersection(self.arena.matrices):
            self.arena.view(self.copies, name).copy_(self.arena.view(self.arena.masters, name))


def _adder(total: Tensor) -> Callable[[Tensor], None]:
    def add(parameter: Tensor) -> None:
        assert parameter.grad is not None
        add_into(total, parameter.grad)
        parameter.grad = None

    return add


def _without_gradients(module: Model) -> Model:
    """A second module like this one, that shares no parameter object with it."""
    gradients = {parameter: parameter.grad for parameter in module.parameters()}
    for parameter in gradients:
        parameter.grad = None
    # A deep copy of the parameters themselves would hold a second model in memory for a moment.
    memo = {id(parameter): nn.Parameter(parameter.data) for parameter in gradients}
    twin = copy.deepcopy(module, memo)
    for parameter, gradient in gradients.items():
        parameter.grad = gradient
    return twin
