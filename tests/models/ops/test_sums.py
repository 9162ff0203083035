from __future__ import annotations

import torch

from gptcli.models.ops.sums import add_into


def test_small_parts_are_not_lost_beside_a_large_sum(form: str) -> None:
    generator = torch.Generator().manual_seed(0)
    total = torch.full((3, 50), 1000.0)
    exact = total.double()
    for _ in range(300):
        part = (torch.rand(3, 50, generator=generator) * 0.1).to(torch.bfloat16 if form == "native" else torch.float32)
        add_into(total, part)
        exact += part
    assert (total - exact).abs().max() < 0.02 < (exact - 1000).min()
    add_into(total.t(), torch.ones(50, 3).bfloat16())
    assert (total - exact - 1).abs().max() < 0.02
