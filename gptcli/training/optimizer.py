"""Which parameter learns by which rule: Muon for the matrices inside the layers, AdamW for all others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Rates:
    """Peak learning rates by kind of parameter."""

    matrix: float
    embedding: float
    head: float
    gain: float


class Optimizers:
    """The optimizers of one model as one: rates follow a factor, state is keyed by parameter names."""

    def __init__(self, members: list[torch.optim.Optimizer], names: dict[Tensor, str]) -> None:
        self.members = members
        self._names = names
        self._peaks = [[group["lr"] for group in member.param_groups] for member in members]

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
        """Every state tensor as `PARAMETER_NAME.STATE`; numbers become fp64 scalars."""
        return {
            f"{self._names[parameter]}.{key}": value
            if isinstance(value, Tensor)
            else torch.tensor(value, dtype=torch.float64)
            for member in self.members
            for parameter, entries in member.state.items()
            for key, value in entries.items()
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take up what `state()` gave.

        Written straight into the optimizers: `load_state_dict` would cast states to the parameter's dtype and
        restore the saved learning rates over the ones set now.
        """
        by_name = {name: parameter for parameter, name in self._names.items()}
        owner = {
            parameter: member
            for member in self.members
            for group in member.param_groups
            for parameter in group["params"]
        }
        for key, value in state.items():
            name, _, entry = key.rpartition(".")
            parameter = by_name[name]
            # A fused optimizer counts its steps on the device; any other keeps that count on the CPU.
            stays = entry == "step" and not owner[parameter].defaults.get("fused")
            owner[parameter].state[parameter][entry] = value if stays else value.to(parameter.device)


def kind_of(name: str, parameter: Tensor) -> str:
    """matrix, embedding, head or gain, by a parameter's Hugging Face name."""
    if "embed_tokens" in name:
        return "embedding"
    if "lm_head" in name:
        return "head"
    return "matrix" if parameter.ndim == 2 else "gain"


def pretraining_optimizers(
    model: nn.Module, rule: str, rates: Rates, weight_decay: float, betas: tuple[float, float]
) -> Optimizers:
    """Muon (Jordan et al. 2024: Nesterov momentum .95, orthogonalised by Newton–Schulz, scaled by √max(1, rows/cols))
    for every Hugging-Face-named matrix by itself, AdamW with its own rates for embeddings, head and gains; with
    rule "adamw" AdamW for the matrices too. Weight decay falls on matrices only."""
    groups: dict[str, list[Tensor]] = {"matrix": [], "embedding": [], "head": [], "gain": []}
    names: dict[Tensor, str] = {}
    for name, parameter in model.named_parameters():
        groups[kind_of(name, parameter)].append(parameter)
        names[parameter] = name
    members: list[torch.optim.Optimizer] = []
    adamw = {"embedding": rates.embedding, "head": rates.head, "gain": rates.gain}
    if rule == "muon":
        members.append(
            torch.optim.Muon(
                groups["matrix"],
                lr=rates.matrix,
                weight_decay=weight_decay,
                momentum=0.95,
                nesterov=True,
                adjust_lr_fn="original",
            )
        )
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
    return Optimizers(members, names)


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
