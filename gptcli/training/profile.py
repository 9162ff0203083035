"""Where a step's time goes: torch.profiler's events, each under what it is for.

An event counts with the time that is its own, without what it called. It belongs to the phase it runs in (the
optimizer's, the data's, the exchange of gradients); else, as a matrix product, to the products, or to attention inside
attention; else to the nearest operation around it whose name says what it computes; else, in the backward pass, to
what its forward operation belonged to. What is left, and the time between operations, is `other`.
"""

from __future__ import annotations

import os
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

WARM_UP = 3  # steps before any is timed
BETWEEN = "(between operations)"
PHASES = ("optimizer", "data", "gradient exchange")  # as training/step.py names them
CATEGORIES = ("matmuls", "attention", "normalisation", "rotary", "activation", "loss", *PHASES, "other")

# The first that is found in an operation's name decides; autograd adds "Backward" to the names below.
_REGIONS = (
    ("loss", re.compile(r"cross_?entropy|log_softmax|nll_loss", re.IGNORECASE)),
    ("attention", re.compile(r"attention|sdpa|flash|flex", re.IGNORECASE)),
    ("rotary", re.compile(r"rotary|splitheads", re.IGNORECASE)),
    ("normalisation", re.compile(r"(layer|rms)_?norm|normalisation", re.IGNORECASE)),
    ("activation", re.compile(r"swiglu|silu|gelu", re.IGNORECASE)),
    ("matmuls", re.compile(r"linear(?!_?cross)", re.IGNORECASE)),
)
_PRODUCT = re.compile(
    r"^aten::(add|b|badd)?mm$|^aten::_addmm_activation$|mkldnn_linear|gemm|cutlass|nvjet", re.IGNORECASE
)
_BACKWARD = re.compile(r"evaluate_function|Backward\d*$")
_OPTIMIZER = re.compile(r"^Optimizer\.")  # torch.optim's own marks


@dataclass(frozen=True)
class Profile:
    """`seconds`: of a step, the median of as many without the profiler; `profiled_seconds`: the mean with it; `shares`:
    of the profiled time by CATEGORIES, 1 together; `others`: the largest parts of `other` by name; `trace`: the file.
    """

    steps: int
    seconds: float
    profiled_seconds: float
    shares: dict[str, float]
    others: list[tuple[str, float]]
    trace: Path


def profile_steps(step: Callable[[int], None], steps: int, device: torch.device, trace: Path) -> Profile:
    """Take WARM_UP steps, `steps` on the clock, and `steps` under the profiler, numbered from 0 without a gap.

    A Chrome trace of the last ones goes to `trace`, packed where its name ends in .gz.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or its library writes to stderr that it starts and stops
    for number in range(WARM_UP):
        step(number)
    timed = [_seconds(step, WARM_UP + number, device) for number in range(steps)]
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities, acc_events=True) as profiler:
        seconds = sum(_seconds(step, WARM_UP + steps + number, device) for number in range(steps))
    trace.parent.mkdir(parents=True, exist_ok=True)
    profiler.export_chrome_trace(str(trace))
    shares, others = share_out(profiler.events() or [], seconds)
    return Profile(steps, statistics.median(timed), seconds / steps, shares, others, trace)


def _seconds(step: Callable[[int], None], number: int, device: torch.device) -> float:
    started = time.perf_counter()
    step(number)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def share_out(
    events: Iterable[Any], seconds: float, shown: int = 5
) -> tuple[dict[str, float], list[tuple[str, float]]]:
    """Shares of `seconds` by CATEGORIES, and the `shown` largest parts of `other`, by torch.autograd's FunctionEvents.

    On a GPU the kernels' time counts, and the time in which none ran is between operations.
    """
    own = [event for event in events if event.device_type == DeviceType.CPU]
    on_device = any(event.kernels for event in own)
    sorter = _Sorter(own)
    totals: dict[str, float] = defaultdict(float)
    others: dict[str, float] = defaultdict(float)
    for event in own:
        parts = [(kernel.name, kernel.duration) for kernel in event.kernels] if on_device else []
        for name, microseconds in parts if on_device else [(event.name, event.self_cpu_time_total)]:
            category = sorter.category(event)
            if category == "other" and on_device:
                category = _own_category(name) or "other"
            totals[category] += microseconds / 1e6
            if category == "other":
                others[name] += microseconds / 1e6
    whole = max(seconds, sum(totals.values()), 1e-9)
    between = whole - sum(totals.values())
    totals["other"] += between
    others[BETWEEN] += between
    largest = sorted(others.items(), key=lambda part: -part[1])[:shown]
    return {name: totals[name] / whole for name in CATEGORIES}, [(name, part / whole) for name, part in largest]


def _own_category(name: str) -> str | None:
    """What an operation's own name says."""
    if name in PHASES:
        return name
    if _OPTIMIZER.match(name):
        return "optimizer"
    if _PRODUCT.search(name):
        return "matmuls"
    return next((category for category, pattern in _REGIONS if pattern.search(name)), None)


class _Sorter:
    """Finds each event's category, once."""

    def __init__(self, events: list[Any]) -> None:
        self._known: dict[int, str] = {}
        self._forward: dict[int, Any] = {}  # sequence number → the operation that the backward pass answers to
        for event in events:
            if event.sequence_nr >= 0 and not _is_backward(event):
                self._forward.setdefault(event.sequence_nr, event)  # an outer one stands before what it called

    def category(self, event: Any) -> str:
        found = self._known.get(id(event))
        if found is None:
            found = self._known[id(event)] = self._find(event)
        return found

    def _find(self, event: Any) -> str:
        own = _own_category(event.name)
        if own in PHASES:
            return str(own)
        around = self.category(event.cpu_parent) if event.cpu_parent is not None else "other"
        if around in PHASES or (own == "matmuls" and around == "attention"):
            return around
        if own is not None:
            return own
        if around == "other" and _is_backward(event):
            answered = self._forward.get(event.sequence_nr)
            return self.category(answered) if answered is not None else "other"
        return around


def _is_backward(event: Any) -> bool:
    return _BACKWARD.search(event.name) is not None
