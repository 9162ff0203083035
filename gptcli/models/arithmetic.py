"""Arithmetic over models, one tensor at a time: means of several, ways between two, and figures of what differs.

Sums are taken in float64 over pieces of a tensor, and rounded once to the type the tensor is stored in. Values that are
equal to the bit in all models pass unchanged, negative zeros and what is no number with them; so any mean of a model
with itself is that model, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PIECE = 1 << 20  # values at once: 8 MB in float64
PARALLEL = 0.9995  # |cosine| above which an arc is as good as straight, and its formula divides by almost nothing
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def mean_weights(weights: Sequence[float]) -> list[float]:
    """The weights divided by their sum. Raises ValueError unless they are finite, none negative, and one is above 0."""
    total = math.fsum(weights)
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not 0 < total < math.inf:
        raise ValueError("weights are finite and not negative, and one of them is above 0")
    return [weight / total for weight in weights]


def ema_weights(count: int, decay: float) -> list[float]:
    """What an exponential moving average over `count` models in their order gives each: it begins as the first, and
    each further one takes `decay` of what was and 1 - decay of itself."""
    return [decay ** (count - 1), *((1 - decay) * decay ** (count - 1 - number) for number in range(1, count))]


def weighted(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """x₀ + Σ wᵢ·(xᵢ - x₀) in float64, rounded once to the tensors' type; `weights` sum to one.

    Tensors of one shape and type on the CPU, in the order of the weights. Those with a weight of 0 are left out, so
    that a weight of 1 gives its tensor unchanged.
    """
    used = [(tensor, weight) for tensor, weight in zip(tensors, weights, strict=True) if weight]
    out = used[0][0].contiguous().clone()
    if len(used) == 1:
        return out
    flat = [tensor.reshape(-1) for tensor, _ in used]
    whole = out.view(-1)
    for piece in _pieces(whole.numel()):
        first = flat[0][piece].double()
        total = torch.zeros_like(first)
        for other, (_, weight) in zip(flat[1:], used[1:], strict=True):
            total += weight * (other[piece].double() - first)
        mean = (first + total).to(out.dtype)
        same = _all_same([each[piece] for each in flat])
        whole[piece] = torch.where(same, whole[piece], mean)
    return out


def linear(one: Tensor, other: Tensor, t: float) -> Tensor:
    """a + t·(b - a): `one` at 0, `other` at 1, beyond them outside; see `weighted`."""
    return weighted([one, other], [1 - t, t])


def spherical(one: Tensor, other: Tensor, t: float) -> Tensor:
    """The way from `one` (t = 0) to `other` (t = 1) along the arc between them (Shoemake 1985), each tensor one vector:
    (sin((1 - t)Ω)·a + sin(tΩ)·b) / sin Ω, Ω being the angle between them.

    Where |cos Ω| is above PARALLEL, or a tensor is zero or not finite, the straight way is taken instead.
    """
    figures = compare(one, other)
    cosine = figures.cosine
    if t in (0.0, 1.0) or cosine is None or not abs(cosine) <= PARALLEL:
        return linear(one, other, t)
    angle = math.acos(cosine)
    shares = math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)
    out = torch.empty_like(one, memory_format=torch.contiguous_format)
    whole, flat = out.view(-1), (one.reshape(-1), other.reshape(-1))
    for piece in _pieces(whole.numel()):
        whole[piece] = (shares[0] * flat[0][piece].double() + shares[1] * flat[1][piece].double()).to(out.dtype)
    return out


@dataclass(frozen=True)
class Difference:
    """Two tensors of one shape beside each other, in float64: sums of squares of each and of b - a, their dot product,
    the largest |b - a|, and how many of the `count` values differ (by value and, between equal types, by a bit)."""

    squares: float
    other_squares: float
    difference_squares: float
    dot: float
    largest: float
    changed: int
    count: int

    def __add__(self, more: Difference) -> Difference:
        """As if both pairs of tensors were one."""
        return Difference(
            self.squares + more.squares,
            self.other_squares + more.other_squares,
            self.difference_squares + more.difference_squares,
            self.dot + more.dot,
            math.nan if math.isnan(self.largest + more.largest) else max(self.largest, more.largest),
            self.changed + more.changed,
            self.count + more.count,
        )

    @property
    def norm(self) -> float:
        """L2 norm of the first."""
        return math.sqrt(self.squares)

    @property
    def other_norm(self) -> float:
        """L2 norm of the second."""
        return math.sqrt(self.other_squares)

    @property
    def distance(self) -> float:
        """L2 norm of b - a."""
        return math.sqrt(self.difference_squares)

    @property
    def relative(self) -> float | None:
        """The distance over the first's norm; None where that is zero or a value is not finite."""
        return _finite(self.distance / self.norm) if self.norm else None

    @property
    def cosine(self) -> float | None:
        """Of the angle between both as vectors; None where one is zero or a value is not finite."""
        length = self.norm * self.other_norm
        found = _finite(self.dot / length) if length else None
        return found if found is None else max(-1.0, min(1.0, found))


NOTHING = Difference(0.0, 0.0, 0.0, 0.0, 0.0, 0, 0)


def compare(one: Tensor, other: Tensor) -> Difference:
    """Figures of two tensors of one shape, on the CPU. Equal ones give a distance of exactly 0 and a cosine of 1."""
    flat = one.reshape(-1), other.reshape(-1)
    found = NOTHING
    for piece in _pieces(one.numel()):
        first, second = flat[0][piece].double(), flat[1][piece].double()
        same = _same(flat[0][piece], flat[1][piece])
        moved = torch.where(same, torch.zeros_like(first), second - first)
        found += Difference(
            float(first.square().sum()),
            float(second.square().sum()),
            float(moved.square().sum()),
            float(first @ second),
            float(moved.abs().max()),
            int((~same).sum()),
            first.numel(),
        )
    if not found.changed:
        return Difference(found.squares, found.squares, 0.0, found.squares, 0.0, 0, found.count)
    return found


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Equal in type, shape and every bit."""
    return one.dtype == other.dtype and one.shape == other.shape and bool(_same(one, other).all())


def _pieces(count: int) -> Iterator[slice]:
    return (slice(start, min(start + PIECE, count)) for start in range(0, count, PIECE))


def _all_same(pieces: Sequence[Tensor]) -> Tensor:
    same = _same(pieces[0], pieces[1])
    for other in pieces[2:]:
        same &= _same(pieces[0], other)
    return same


def _same(one: Tensor, other: Tensor) -> Tensor:
    """Where two tensors hold the same bits; the same values where their types differ."""
    if one.dtype != other.dtype:
        return one.double() == other.double()
    kind = _INTEGERS[one.dtype.itemsize]
    return one.contiguous().view(kind) == other.contiguous().view(kind)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
