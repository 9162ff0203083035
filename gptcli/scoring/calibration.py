"""How far a model's confidence can be believed: the expected calibration error of its next-token distribution.

ECE (Naeini et al. 2015, Guo et al. 2017): predictions are binned by confidence, the probability of the likeliest token;
the bins' gaps between mean confidence and the share that was right are averaged, weighted by their tokens. `ece` has 15
bins of equal width, (0, 1/15], … ; `ece_equal_mass` 15 bins of as nearly equal numbers of tokens (the adaptive variant,
Nixon et al. 2019), which does not hang on the few bins that most confidences fall into.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gptcli.scoring.language_modelling import TokenFigures

BINS = 15
_STEPS = 256  # fine bins for one unit of log-odds: within one, confidence differs by a thousandth at most
_RANGE = 18  # log-odds beyond ± this are one: 1 - p is then below an fp32 number's grain
_FINE = 2 * _RANGE * _STEPS + 1

Numbers = npt.NDArray[np.float64]


class Calibration:
    """A collector of confidences and whether they were right, in bins; memory does not grow with the tokens.

    `even` fp64 [3, 15] of equal width and `fine` fp64 [3, many] over the log-odds: tokens, summed confidence, right
    ones. Bins of two collectors may be added.
    """

    confident = True

    def __init__(self, bins: Numbers | None = None) -> None:
        self.bins = np.zeros((3, BINS + _FINE)) if bins is None else bins
        self.even, self.fine = self.bins[:, :BINS], self.bins[:, BINS:]

    @staticmethod
    def size() -> int:
        """How many numbers `bins` holds."""
        return 3 * (BINS + _FINE)

    def add(self, places: npt.NDArray[np.int64], figures: TokenFigures) -> None:
        assert figures.confidence is not None
        confidence = figures.confidence.double().numpy()
        known = np.isfinite(confidence)  # a broken model has none
        confidence, right = confidence[known], figures.ranks.numpy()[known] == 0
        even = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
        with np.errstate(divide="ignore"):
            odds = np.log(confidence) - np.log1p(-confidence)
        fine = np.rint((np.clip(odds, -_RANGE, _RANGE) + _RANGE) * _STEPS).astype(np.int64)
        for bins, numbers in ((self.even, even), (self.fine, fine)):
            for row, weights in enumerate((None, confidence, right)):
                bins[row] += np.bincount(numbers, weights, bins.shape[1])

    def figures(self) -> dict[str, float]:
        """ece, ece_equal_mass, and the mean `confidence` to hold against accuracy; NaN where there are no tokens."""
        tokens = self.even[0].sum()
        return {
            "ece": _error(self.even),
            "ece_equal_mass": _error(self.equal_mass()),
            "confidence": float(self.even[1].sum() / tokens) if tokens else math.nan,
        }

    def equal_mass(self) -> Numbers:
        """The 15 bins [3, 15] with as nearly equal numbers of tokens as the fine bins let them have."""
        counts = self.fine[0]
        middles = np.cumsum(counts) - counts / 2
        owners = np.minimum((middles * BINS / max(counts.sum(), 1)).astype(np.int64), BINS - 1)
        return np.stack([np.bincount(owners, row, BINS) for row in self.fine])

    def tables(self) -> dict[str, list[dict[str, float]]]:
        """The reliability diagram of both kinds of bins: of each bin that holds tokens their number, mean confidence
        and accuracy; of equal width its ends too."""
        rows: dict[str, list[dict[str, float]]] = {"equal_width": [], "equal_mass": []}
        for kind, bins in (("equal_width", self.even), ("equal_mass", self.equal_mass())):
            for number, (tokens, confidence, right) in enumerate(bins.T.tolist()):
                ends = {"low": number / BINS, "high": (number + 1) / BINS} if kind == "equal_width" else {}
                if tokens:
                    row = {"tokens": int(tokens), "confidence": confidence / tokens, "accuracy": right / tokens}
                    rows[kind].append({**ends, **row})
        return rows


def _error(bins: Numbers) -> float:
    tokens, confidence, right = bins
    return float(np.abs(confidence - right).sum() / tokens.sum()) if tokens.sum() else math.nan
