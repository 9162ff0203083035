from __future__ import annotations

import torch

from gptcli.models.importers.rotary_layout import to_halves, to_pairs


def test_pairs_become_halves_and_back():
    rows = torch.arange(12).view(12, 1)  # two heads of six values
    assert to_halves(rows, 2).flatten().tolist() == [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]
    assert torch.equal(to_pairs(to_halves(rows, 2), 2), rows)
    assert torch.equal(to_pairs(to_halves(rows.flatten(), 3), 3), rows.flatten())
