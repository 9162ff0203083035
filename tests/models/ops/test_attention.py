from __future__ import annotations

from typing import Any

import pytest
import torch

from gptcli.models.ops import attention
from gptcli.models.ops.attention import Starts, attend, causal_attention
from gptcli.models.ops.flex import attend_blocks

SHAPES = [(1, 1, 1, 1, 4), (2, 4, 2, 5, 8), (3, 3, 3, 33, 16), (2, 6, 1, 20, 10)]  # B, N, K, T, D


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def reference(starts: torch.Tensor) -> Any:
    """Attention written out: each position over those from its start up to itself."""

    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        groups, length = q.shape[1] // k.shape[1], q.shape[2]
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        places = torch.arange(length)
        seen = (places >= starts[:, :, None]) & (places <= places[:, None])
        mixed = scores.masked_fill(~seen[:, None], float("-inf")).softmax(-1) @ v
        return mixed.transpose(1, 2).flatten(2)

    return run


def document_starts(batch: int, length: int) -> torch.Tensor:
    """Rows cut into documents of other lengths; the first row is one document."""
    rows = [torch.arange(length) // (length if row == 0 else 2 * row + 1) for row in range(batch)]
    cut = torch.stack([row * (length if i == 0 else 2 * i + 1) for i, row in enumerate(rows)])
    return cut.int()


@pytest.mark.parametrize("block", [128, 8, 5])
@pytest.mark.parametrize("masked", [False, True], ids=["one-document", "documents"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_causal_attention(
    compare: Any, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], masked: bool, block: int
) -> None:
    monkeypatch.setattr(attention, "QUERIES_AT_ONCE", block)
    monkeypatch.setattr(attention, "HEADS_AT_ONCE", 6)
    batch, heads, kv_heads, length, size = shape
    starts = document_starts(batch, length) if masked else torch.zeros(batch, length, dtype=torch.int32)
    inputs = draw(batch, heads, length, size), draw(batch, kv_heads, length, size), draw(batch, kv_heads, size, length)
    inputs = (*inputs[:2], inputs[2].transpose(2, 3).contiguous())
    compare(
        lambda q, k, v: causal_attention(q, k, v, Starts(starts) if masked else None),
        reference(starts),
        *inputs,
        rounding=2**-6,  # scores, probabilities and their slopes are each rounded
    )


def test_what_is_hidden_has_no_say() -> None:
    q, k, v = (draw(1, 2, 40, 8).bfloat16() for _ in range(3))
    starts = Starts(torch.tensor([[0] * 17 + [17] * 23], dtype=torch.int32))
    whole = causal_attention(q, k, v, starts)
    k[:, :, :17], v[:, :, :17] = 7.0, -3.0
    assert torch.equal(causal_attention(q, k, v, starts)[:, 17:], whole[:, 17:])
    k[:, :, 30:] = 9.0
    assert torch.equal(causal_attention(q, k, v, starts)[:, 17:30], whole[:, 17:30])


def test_a_broken_key_shows_wherever_it_is_seen() -> None:
    q, k, v = (draw(1, 1, 6, 4).bfloat16() for _ in range(3))
    k[0, 0, 3, 1] = float("nan")
    out = causal_attention(q, k, v)[0]
    assert torch.isfinite(out[:3]).all() and out[3:].isnan().all()


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("length", [128, 200])
def test_blocks_for_a_gpu_are_the_same_mask(length: int) -> None:
    q, k, v = draw(2, 4, length, 16), draw(2, 2, length, 16), draw(2, 2, length, 16).flip(2)
    starts = Starts(document_starts(2, length))
    with torch.no_grad():  # on a CPU it knows no way back
        assert torch.allclose(attend_blocks(q, k, v, starts.blocks), attend(q, k, v, starts.mask), atol=1e-5)


def test_a_compiler_sees_one_graph() -> None:
    torch._dynamo.reset()
    q, k, v = (draw(2, 2, 12, 8) for _ in range(3))
    places = document_starts(2, 12)

    def run(places: torch.Tensor) -> torch.Tensor:
        starts = Starts(places)
        return causal_attention(q, k, v, starts) + causal_attention(k, q, v, starts)

    compiled: Any = torch.compile(run, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(places), run(places))
    torch._dynamo.reset()
