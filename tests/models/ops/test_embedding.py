from __future__ import annotations

import torch
import torch.nn.functional as F

from gptcli.models.ops.embedding import embedding


def test_a_token_met_often_gets_all_of_its_slope(form: str) -> None:
    dtype = torch.bfloat16 if form == "native" else torch.float32
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 3, (4, 700), generator=generator)
    ids[0, 0] = 6
    table = torch.randn(9, 5, generator=generator).to(dtype).requires_grad_()
    slope = torch.rand(4, 700, 5, generator=generator).to(dtype)
    out = embedding(ids, table)
    assert torch.equal(out, F.embedding(ids, table))
    out.backward(slope)
    exact = torch.zeros(9, 5, dtype=torch.float64).index_add_(0, ids.flatten(), slope.flatten(0, 1).double())
    assert table.grad is not None and table.grad.dtype == dtype
    assert (table.grad.double() - exact).norm() < (2**-8 if form == "native" else 1e-5) * exact.norm()
    assert not table.grad[[3, 4, 5, 7, 8]].any() and torch.equal(table.grad[6], slope[0, 0])
