"""Which parameter learns by which rule: Muon for the matrices inside the layers, AdamW for all others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gptcli.errors import ArtifactError
from gptcli.models.naming import blocks_of, inputs_first, kind_of
from gptcli.training.arena import Allocate
from gptcli.training.muon import Layout, Muon


@dataclass(frozen=True)
class Rates:
    """Peak learning rates by kind of parameter."""

    matrix: float
    embedding: float
    head: float
    gain: float


class Optimizers:
    """The optimizers of one model as one: rates follow a factor, state is keyed by parameter names."""

    def __init__(
        self, members: list[torch.optim.Optimizer], names: dict[Tensor, str], allocate: Allocate | None = None
    ) -> None:
        self.members = members
        self.named = {name: parameter for parameter, name in names.items()}
        self._names = names
        self._peaks = [[group["lr"] for group in member.param_groups] for member in members]
        for member in members:
            for group in member.param_groups:
                for parameter in group["params"]:
                    member.state[parameter] = _first_state(member, parameter, allocate)

    def shares(self, ranks: int) -> list[list[str]]:
        """The parameters each of `ranks` processes updates: about the same arithmetic for each, in a fixed order."""
        cost = {
            self._names[parameter]: _update_cost(member, parameter)
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
        for member in self.members:
            member.zero_grad(set_to_none=True)

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


def _first_state(member: torch.optim.Optimizer, parameter: Tensor, allocate: Allocate | None) -> dict[str, Tensor]:
    """What the optimizer would make of a parameter at its first step, made now: where `allocate` says."""

    def zeros() -> Tensor:
        if allocate is None:
            return torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return allocate(parameter.numel(), torch.float32).view(parameter.shape)

    if isinstance(member, Muon):
        return {"momentum_buffer": zeros()}
    # A fused optimizer counts its steps on the device; any other keeps that count on the CPU.
    device = parameter.device if member.defaults.get("fused") else torch.device("cpu")
    step = torch.zeros((), dtype=torch.float32, device=device)
    if allocate is not None:
        step = allocate(1, torch.float32)[0]
    return {"step": step, "exp_avg": zeros(), "exp_avg_sq": zeros()}


def _update_cost(member: torch.optim.Optimizer, parameter: Tensor) -> float:
    """About how many products the update of a parameter takes: for Muon five iterations of X·Xᵀ, its square and its
    product with X; AdamW's is counted by the memory it moves, worth some hundred products a number."""
    if isinstance(member, Muon):
        small, large = sorted(parameter.shape)
        return 5.0 * small * small * (2 * large + small)
    return 100.0 * parameter.numel()


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
    members: list[torch.optim.Optimizer] = []
    adamw = {"embedding": rates.embedding, "head": rates.head, "gain": rates.gain}
    if rule == "muon":
        layouts = {each: Layout(inputs_first(names[each]), blocks_of(names[each])) for each in groups["matrix"]}
        members.append(Muon(groups["matrix"], lr=rates.matrix, weight_decay=weight_decay, dtype=dtype, layouts=layouts))
    else:
        adamw["matrix"] = rates.matrix
    members.append(
        torch.optim.AdamW(
            [
                {"params": groups[kind], "lr": lr, "weight_decay": weight_decay if kind == "matrix" else 0.0}
                for kind, lr in adamw.items()
                if groups[kind]
            ],
            betas=betas,
            eps=1e-10,
            fused=_has_fused(model.parameters()),
        )
    )
    return Optimizers(members, names, allocate)


def adamw_optimizers(
    named: dict[str, nn.Parameter], lr: float, weight_decay: float, betas: tuple[float, float]
) -> Optimizers:
    """One AdamW over the given parameters (Loshchilov & Hutter 2019)."""
    member = torch.optim.AdamW(
        list(named.values()), lr=lr, weight_decay=weight_decay, betas=betas, fused=_has_fused(named.values())
    )
    return Optimizers([member], {parameter: name for name, parameter in named.items()})


def _has_fused(parameters: Iterable[Tensor]) -> bool:
    return all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
