from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from gptcli.training.profile import BETWEEN, CATEGORIES, WARM_UP, profile_steps, share_out
from gptcli.training.throughput import measured_peak

CPU = torch.device("cpu")


class _RMSNorm(torch.autograd.Function):
    """A native operation, as the profiler sees one: nothing but its name."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * 2


def a_step() -> Callable[[int], None]:
    weight = torch.randn(64, 64, requires_grad=True)
    optimizer = torch.optim.AdamW([weight])

    def step(number: int) -> None:
        with record_function("data"):
            torch.manual_seed(number)
            x, targets = torch.randn(4, 16, 64), torch.randint(0, 64, (64,))
        hidden = _RMSNorm.apply(x @ weight)
        heads = F.scaled_dot_product_attention(hidden, hidden, hidden, is_causal=True)
        heads = F.silu(heads)
        with record_function("rotary"):
            heads = heads * 3
        F.cross_entropy((heads @ weight).flatten(0, 1), targets).backward()
        with record_function("gradient exchange"):
            weight.grad.mul_(0.5)
        optimizer.step()
        optimizer.zero_grad()

    return step


def test_profiles_a_trainer(tmp_path: Path) -> None:
    taken: list[int] = []
    step = a_step()

    def counted(number: int) -> None:
        taken.append(number)
        step(number)

    trace = tmp_path / "deep" / "trace.json.gz"
    found = profile_steps(counted, 2, CPU, trace)
    assert taken == list(range(WARM_UP + 4))
    assert (found.steps, found.trace) == (2, trace)
    assert found.seconds > 0 and found.profiled_seconds > 0
    assert tuple(found.shares) == CATEGORIES
    assert sum(found.shares.values()) == pytest.approx(1)
    assert all(share > 0 for share in found.shares.values()), found.shares
    assert 0 < len(found.others) <= 5
    with gzip.open(trace) as file:
        events = json.load(file)["traceEvents"]
    assert {"_RMSNorm", "data", "Optimizer.step#AdamW.step"} <= {event.get("name") for event in events}


def categories_of(work: Callable[[], None]) -> dict[str, set[str]]:
    """The names of the operations that count, by the category each goes to."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        work()
    found: dict[str, set[str]] = {}
    for event in profiler.events():
        shares, _ = share_out([*_chain(event, profiler.events())], 0.0)
        found.setdefault(event.name, set()).update(name for name, share in shares.items() if share > 0.999)
    return found


def _chain(event: Any, events: Any) -> list[Any]:
    """An event with its own time, and all others with none."""
    out = []
    for other in events:
        out.append(_Timed(other, 1.0 if other is event else 0.0, out))
    by_event = {id(each.event): each for each in out}
    for each in out:
        each.cpu_parent = by_event.get(id(each.event.cpu_parent))
    return out


class _Timed:
    def __init__(self, event: Any, seconds: float, _: Any) -> None:
        self.event, self.self_cpu_time_total = event, seconds * 1e6
        self.name, self.sequence_nr, self.device_type = event.name, event.sequence_nr, event.device_type
        self.kernels: list[Any] = []
        self.cpu_parent: Any = None


def test_every_operation_counts_where_it_belongs() -> None:
    weight = torch.randn(16, 16, requires_grad=True)
    x = torch.randn(8, 16)

    def work() -> None:
        hidden = _RMSNorm.apply(x @ weight)
        with record_function("rotary"):
            hidden = hidden.sin()
        F.silu(hidden).exp().sum().backward()
        with record_function("optimizer"):
            weight.detach() @ weight.detach().tanh()

    found = categories_of(work)
    assert found["_RMSNorm"] == {"normalisation"}
    assert found["_RMSNormBackward"] == {"normalisation"}
    assert found["aten::mm"] == {"matmuls", "optimizer"}  # a product within the optimizer is the optimizer's
    assert found["aten::sin"] == {"rotary"}
    assert found["aten::cos"] == {"rotary"}  # sin's backward, by the number of its forward operation
    assert found["aten::silu_backward"] == {"activation"}
    assert found["aten::exp"] == {"other"}
    assert found["aten::tanh"] == {"optimizer"}


def test_time_between_operations_is_other() -> None:
    shares, others = share_out([], 2.0)
    assert shares["other"] == 1.0
    assert others == [(BETWEEN, 1.0)]


@pytest.mark.gpu
def test_profiles_kernels(tmp_path: Path) -> None:
    device = torch.device("cuda")
    weight = torch.randn(1024, 1024, device=device, requires_grad=True)
    optimizer = torch.optim.AdamW([weight], fused=True)

    def step(number: int) -> None:
        hidden = F.silu(torch.randn(4096, 1024, device=device) @ weight)
        F.cross_entropy(hidden, torch.zeros(4096, dtype=torch.int64, device=device)).backward()
        optimizer.step()
        optimizer.zero_grad()

    found = profile_steps(step, 3, device, tmp_path / "trace.json")
    assert sum(found.shares.values()) == pytest.approx(1)
    assert all(found.shares[name] > 0 for name in ("matmuls", "activation", "loss", "optimizer")), found
    assert measured_peak(device, torch.bfloat16) > 1e12
