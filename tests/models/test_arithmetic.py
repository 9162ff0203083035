from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptcli.models import arithmetic
from gptcli.models.arithmetic import compare, ema_weights, linear, mean_weights, same_bits, spherical, weighted

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def every_bit(dtype: torch.dtype, count: int, seed: int) -> torch.Tensor:
    """Values of any bits at all: infinities, NaNs of every payload, subnormals and negative zeros among them."""
    generator = torch.Generator().manual_seed(seed)
    data = torch.randint(0, 256, (count * dtype.itemsize,), generator=generator, dtype=torch.uint8)
    data[:8] = torch.tensor([0, 0, 0, 0x80, 0, 0x80, 0, 0])  # negative zeros in every width but the last
    return data.view(dtype)


@pytest.mark.parametrize("name", TYPES)
@settings(deadline=None, max_examples=25)
@given(
    weights=st.lists(st.floats(0, 1e3), min_size=2, max_size=5).filter(lambda weights: sum(weights) > 1e-3),
    seed=st.integers(0, 999),
)
def test_any_mean_of_one_tensor_is_that_tensor_to_the_bit(name: str, weights: list[float], seed: int) -> None:
    tensor = every_bit(TYPES[name], 4096, seed)
    copies = [tensor.clone() for _ in weights]
    assert same_bits(weighted(copies, mean_weights(weights)), tensor)
    assert same_bits(weighted(copies, ema_weights(len(weights), weights[0] / 1001)), tensor)
    for t in (0.0, 0.3, 1.0):
        assert same_bits(linear(copies[0], copies[1], t), tensor)
        assert same_bits(spherical(copies[0], copies[1], t), tensor)


@pytest.mark.parametrize("name", TYPES)
def test_a_mean_is_the_exact_one_rounded_once(name: str) -> None:
    generator = torch.Generator().manual_seed(3)
    tensors = [torch.randn(5, 77, generator=generator, dtype=torch.float64).to(TYPES[name]) for _ in range(4)]
    shares = mean_weights([1, 2, 3, 2])
    wanted = sum(share * tensor.double() for share, tensor in zip(shares, tensors, strict=True))
    found = weighted(tensors, shares)
    assert found.dtype == TYPES[name] and found.shape == (5, 77)
    # Float64 sums of other order may fall on the other side of a tie, a unit in the last place away.
    assert float((found.double() - wanted).abs().max()) <= float(torch.finfo(TYPES[name]).eps) * 4


def test_pieces_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = torch.randn(3, 50), torch.randn(3, 50)
    whole = [weighted([one, other], [0.25, 0.75]), spherical(one, other, 0.4)]
    figures = compare(one, other)
    monkeypatch.setattr(arithmetic, "PIECE", 7)
    assert torch.equal(weighted([one, other], [0.25, 0.75]), whole[0])
    assert torch.allclose(spherical(one, other, 0.4), whole[1])
    assert compare(one, other).cosine == pytest.approx(figures.cosine)
    assert compare(one, other).changed == figures.changed == 150


def test_a_weight_of_one_gives_its_tensor_and_a_way_ends_at_its_models() -> None:
    one, other = torch.tensor([1e30, -0.0, 3.0]), torch.tensor([1e-30, 0.0, math.nan])
    assert same_bits(weighted([one, other], [0.0, 1.0]), other)
    for way in (linear, spherical):
        assert same_bits(way(one, other, 0.0), one) and same_bits(way(one, other, 1.0), other)


def test_ema_is_the_recursion() -> None:
    tensors = [torch.randn(9, dtype=torch.float64) for _ in range(5)]
    average = tensors[0]
    for tensor in tensors[1:]:
        average = 0.8 * average + 0.2 * tensor
    shares = ema_weights(5, 0.8)
    assert math.fsum(shares) == pytest.approx(1, abs=1e-15)
    assert torch.allclose(weighted(tensors, shares), average, atol=1e-15)
    assert ema_weights(3, 0.0) == [0.0, 0.0, 1.0]


def test_linear_goes_beyond_its_ends() -> None:
    assert torch.equal(linear(torch.tensor([1.0]), torch.tensor([2.0]), 1.5), torch.tensor([2.5]))
    assert torch.equal(linear(torch.tensor([1.0]), torch.tensor([2.0]), -1.0), torch.tensor([0.0]))


def test_spherical_keeps_to_the_arc() -> None:
    one, other = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    middle = spherical(one, other, 0.5)
    assert torch.allclose(middle, torch.tensor([2**0.5, 2**0.5]))
    for t in (0.1, 0.25, 0.9):
        at = spherical(one, other, t)
        assert float(at.norm()) == pytest.approx(2)
        assert math.atan2(at[1], at[0]) == pytest.approx(t * math.pi / 2)


@pytest.mark.parametrize("other", [[3.0, 0.001], [-3.0, 0.0], [0.0, 0.0]], ids=["parallel", "opposite", "zero"])
def test_spherical_is_linear_where_there_is_no_arc(other: list[float]) -> None:
    one, two = torch.tensor([1.0, 0.0]), torch.tensor(other)
    assert torch.equal(spherical(one, two, 0.3), linear(one, two, 0.3))


@pytest.mark.parametrize("weights", [[0, 0], [1, -1, 3], [math.nan, 1], [math.inf, 1]], ids=str)
def test_weights_that_are_none(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights are finite"):
        mean_weights(weights)


def test_figures_of_a_difference() -> None:
    found = compare(torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 0.0]]))
    assert (found.norm, found.other_norm, found.distance, found.largest) == (5.0, 3.0, 4.0, 4.0)
    assert (found.relative, found.cosine, found.changed, found.count) == (0.8, 0.6, 1, 2)
    both = found + compare(torch.tensor([1.0]), torch.tensor([1.0]))
    assert (both.squares, both.changed, both.count) == (26.0, 1, 3)


def test_figures_of_no_difference_and_of_what_has_none() -> None:
    tensor = torch.randn(1000)
    same = compare(tensor, tensor.clone())
    assert (same.distance, same.cosine, same.changed, same.largest) == (0.0, 1.0, 0, 0.0)
    zero = compare(torch.zeros(3), torch.ones(3))
    assert zero.relative is None and zero.cosine is None and zero.changed == 3
    broken = compare(torch.tensor([math.nan, 1.0]), torch.tensor([1.0, 1.0]))
    assert broken.relative is None and broken.changed == 1 and math.isnan(broken.largest)
    assert compare(torch.tensor([-0.0]), torch.tensor([0.0])).changed == 1
    assert compare(torch.tensor([1.0]), torch.tensor([1.0]).bfloat16()).changed == 0
