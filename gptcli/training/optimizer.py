"""Which parameter learns by which rule: Muon for the matrices inside the layers, AdamW for all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gptcli.errors import ArtifactError
from gptcli.models.naming import blocks_of, inputs_first, kind_of
from gptcli.training.adamw import AdamW, Zeros
from gptcli.training.arena import Allocate
from gptcli.training.muon import Layout, Muon


@dataclass(frozen=True)
class Rates:
    """Peak learning rates by kind of parameter."""

    matrix: float
    embedding: float
    head: float
    gain: float


class Rule(Protocol):
    """How some parameters learn from their gradients: AdamW, Muon."""

    param_groups: list[dict[str, Any]]  # "params", "lr" and what else the rule takes
    state: dict[Tensor, dict[str, Tensor]]

    def first_state(self, parameter: Tensor, zeros: Zeros) -> dict[str, Tensor]: ...
    def cost(self, parameter: Tensor) -> float: ...
    def step(self) -> None: ...


def _zeros_beside(parameter: Tensor, allocate: Allocate | None) -> Zeros:
    """Memory for a parameter's state: where `allocate` says, else where the parameter is."""

    def zeros(shape: torch.Size) -> Tensor:
        if allocate is None:
            return torch.zeros(shape, dtype=torch.float32, device=parameter.device)
        return allocate(shape.numel(), torch.float32).view(shape)

    return zeros


class Optimizers:
    """The optimizers of one model as one: rates follow a factor, state is keyed by parameter names."""

    def __init__(self, members: list[Rule], names: dict[Tensor, str], allocate: Allocate | None = None) -> None:
        self.members = members
        self.named = {name: parameter for parameter, name in names.items()}
        self._names = names
        self._peaks = [[group["lr"] for group in member.param_groups] for member in members]
        for member in members:
            for group in member.param_groups:
                for parameter in group["params"]:
                    member.state[parameter] = member.first_state(parameter, _zeros_beside(parameter, allocate))

    def shares(self, ranks: int) -> list[list[str]]:
        """The parameters each of `ranks` processes updates: about the same arithmetic for each, in a fixed order."""
        cost = {
            self._names[parameter]: member.cost(parameter)
            for member in self.members
            for group in member.param_groups
            for parameter in group["params"]
        }
        loads, shares = [0.0] * ranks, [set[str]() for _ in range(ranks)]
        for name in sorted(cost, key=lambda name: (-cost[name], name)):
            least = loads.index(min(loads))
            loads[least] += cost[name]
            shares[least].add(name)
        return [[name for name in self.named if name in share] for share in shares]

    def keep(self, names: list[str]) -> None:
        """From now on update the named parameters alone; the state of all stays where it is."""
        kept = set(names)
        for member in self.members:
            for group in member.param_groups:
                group["params"] = [parameter for parameter in group["params"] if self._names[parameter] in kept]

    def set_factor(self, factor: float) -> None:
        """Set every learning rate to `factor` of its peak."""
        for member, peaks in zip(self.members, self._peaks, strict=True):
            for group, peak in zip(member.param_groups, peaks, strict=True):
                group["lr"] = peak * factor

    @property
    def lr(self) -> float:
        """The rate the first group learns at now."""
        return float(self.members[0].param_groups[0]["lr"])

    def step(self) -> None:
        for member in self.members:
            member.step()

    def zero_grad(self) -> None:
        for parameter in self._names:
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Every state tensor as `PARAMETER_NAME.STATE`."""
        return {
            f"{self._names[parameter]}.{key}": value
            for member in self.members
            for parameter, entries in member.state.items()
            for key, value in entries.items()
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take up what `state()` gave, into the tensors that are there: other processes may share them.

        `load_state_dict` would cast states to the parameter's dtype and restore the saved learning rates over the
        ones set now. Raises ArtifactError when the names are not this model's.
        """
        ours = self.state()
        if ours.keys() != state.keys():
            name = min(ours.keys() ^ state.keys())
            raise ArtifactError(
                f"the optimizer's saved state does not fit: {name} is {'missing' if name in ours else 'unknown'}",
                "was the run begun by another version? start it again with --force",
            )
        with torch.no_grad():
            for name, value in state.items():
                ours[name].copy_(value)


def pretraining_optimizers(
    model: nn.Module,
    rule: str,
    rates: Rates,
    weight_decay: float,
    betas: tuple[float, float],
    dtype: torch.dtype = torch.bfloat16,
    allocate: Allocate | None = None,
) -> Optimizers:
    """Muon for every matrix by itself, its products in `dtype`; AdamW with rates of their own for embeddings, head and
    gains, and with rule "adamw" for the matrices too. Weight decay falls on matrices only. `allocate`: memory for
    their states."""
    groups: dict[str, list[Tensor]] = {"matrix": [], "embedding": [], "head": [], "gain": []}
    names: dict[Tensor, str] = {}
    for name, parameter in model.named_parameters():
        groups[kind_of(name, parameter.ndim)].append(parameter)
        names[parameter] = name
    members: list[Rule] = []
    adamw = {"matrix": rates.matrix, "embedding": rates.embedding, "head": rates.head, "gain": rates.gain}
    if rule == "muon":
        del adamw["matrix"]
        layouts = {each: Layout(inputs_first(names[each]), blocks_of(names[each])) for each in groups["matrix"]}
        members.append(Muon(groups["matrix"], lr=rates.matrix, weight_decay=weight_decay, dtype=dtype, layouts=layouts))
    decays = {kind: weight_decay if kind == "matrix" else 0.0 for kind in adamw}
    learning = [
        {"params": groups[kind], "lr": lr, "weight_decay": decays[kind]} for kind, lr in adamw.items() if groups[kind]
    ]
    members.append(AdamW(learning, betas=betas, eps=1e-10))
    return Optimizers(members, names, allocate)


def adamw_optimizers(
    named: dict[str, nn.Parameter], lr: float, weight_decay: float, betas: tuple[float, float]
) -> Optimizers:
    """One AdamW over the given parameters (Loshchilov & Hutter 2019)."""
    member = AdamW([{"params": list(named.values()), "lr": lr, "weight_decay": weight_decay}], betas=betas)
    return Optimizers([member], {parameter: name for name, parameter in named.items()})
