from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
import torch

from gptcli.scoring.calibration import BINS, Calibration
from gptcli.scoring.language_modelling import TokenFigures, token_figures

Numbers = npt.NDArray[np.float64]


def told(confidence: Numbers, right: npt.NDArray[np.bool_], parts: int = 1) -> Calibration:
    found = Calibration()
    for chosen in np.array_split(np.arange(len(confidence)), parts):
        ranks = torch.from_numpy(np.where(right[chosen], 0, 3))
        figures = TokenFigures(torch.zeros(len(chosen)), ranks, torch.from_numpy(confidence[chosen]).float())
        found.add(chosen, figures)
    return found


def by_hand(confidence: Numbers, right: npt.NDArray[np.bool_], groups: list[npt.NDArray[np.bool_]]) -> float:
    gaps = [abs(confidence[mine].mean() - right[mine].mean()) * mine.sum() for mine in groups if mine.any()]
    return float(sum(gaps) / len(confidence))


@pytest.mark.parametrize("shape", [(1, 1), (0.3, 4), (8, 0.2)], ids=["even", "low", "high"])
def test_ece_is_the_definition(shape: tuple[float, float]) -> None:
    draw = np.random.default_rng(1)
    confidence = draw.beta(*shape, 20_000).astype(np.float32).astype(np.float64)
    right = draw.random(20_000) < confidence**1.5  # too sure of itself
    ends = np.linspace(0, 1, BINS + 1)
    even = [(confidence > low) & (confidence <= high) for low, high in pairwise(ends)]
    mass = []
    for part in np.array_split(np.argsort(confidence), BINS):
        mine = np.zeros(len(confidence), np.bool_)
        mine[part] = True
        mass.append(mine)
    found = told(confidence, right, 7)
    figures = found.figures()
    assert figures["ece"] == pytest.approx(by_hand(confidence, right, even), abs=1e-6)
    assert figures["ece_equal_mass"] == pytest.approx(by_hand(confidence, right, mass), abs=2e-3)
    assert figures["confidence"] == pytest.approx(confidence.mean(), abs=1e-6)
    assert sum(row["tokens"] for row in found.tables()["equal_width"]) == 20_000
    masses = [row["tokens"] for row in found.tables()["equal_mass"]]
    assert sum(masses) == 20_000 and (shape[0] == 8 or max(masses) < 1.1 * 20_000 / BINS)


def test_one_that_knows_is_calibrated_and_one_that_boasts_is_not() -> None:
    sure = np.ones(30)
    assert told(sure, np.ones(30, np.bool_)).figures() == {"ece": 0, "ece_equal_mass": 0, "confidence": 1}
    assert told(sure, np.zeros(30, np.bool_)).figures()["ece"] == 1
    assert all(math.isnan(value) for value in Calibration().figures().values())


def test_parts_add_up() -> None:
    draw = np.random.default_rng(2)
    confidence, right = draw.random(1000), draw.random(1000) < 0.5
    whole, first, second = (told(confidence[part], right[part]) for part in (slice(None), slice(300), slice(300, None)))
    assert np.allclose(first.bins + second.bins, whole.bins)


def test_confidence_is_the_likeliest_tokens_probability() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, head = torch.randn(40, 8, generator=generator) * 3, torch.randn(50, 8, generator=generator)
    targets = torch.arange(40)
    found = token_figures(hidden, head, targets, softcap=9.0, confident=True)
    wanted = (9 * torch.tanh(hidden @ head.t() / 9)).softmax(1)
    assert found.confidence is not None
    assert torch.allclose(found.confidence, wanted.amax(1), rtol=1e-5)
    assert torch.equal(found.ranks == 0, wanted.argmax(1) == targets)
    assert token_figures(hidden, head, targets).confidence is None
