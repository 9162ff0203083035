"""MinHash signatures, folded into one 64-bit hash a band: all that the search for near-duplicates needs on disk.

MinHash: Broder 1997; bands and rows: Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", chapter 3. Two
documents of Jaccard similarity s share a band with probability 1 - (1 - s^rows)^bands.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from gptcli.errors import SpecError
from gptcli.records.ngrams import Hashes, mixed

BANDS = 14
ROWS = 8
EMPTY = 0  # the band hash of a document without shingles: it is nobody's candidate
_ALGORITHM = 2  # of rensa's RMinHash: another one would give other signatures
_GAMMA = np.uint64(0x9E3779B97F4A7C15)  # the step of SplitMix64 (Steele et al. 2014)
_HINT = "pip install 'rensa>=0.5,<0.6'"


def band_hashes(sets: Sequence[Hashes], bands: int = BANDS, rows: int = ROWS, seed: int = 1) -> Hashes:
    """The band hashes of documents: (documents, bands) uint64; those of a document without shingles are EMPTY.

    sets: of each document the unique shingle hashes (`shingle_hashes`). The result depends on the sets, `bands`, `rows`
    and `seed` alone. Raises SpecError where rensa is missing or is of a version with other signatures.
    """
    signatures = np.zeros((len(sets), bands * rows), dtype=np.uint64)
    sketch = _sketch()
    for place, shingles in enumerate(sets):
        if len(shingles):
            # One document a call: rensa answers a larger batch with threads of its own, beside the workers'.
            ends = np.array([0, len(shingles)], dtype=np.uint64)
            signatures[place] = sketch(shingles, ends, bands * rows, seed).to_rows()[0]
    factors = _factors(rows, seed)
    folded = mixed((signatures.reshape(len(sets), bands, rows) * factors).sum(axis=2))
    folded[folded == EMPTY] = 1
    folded[[len(shingles) == 0 for shingles in sets]] = EMPTY
    return folded


def chance_of_sharing(similarity: float, bands: int = BANDS, rows: int = ROWS) -> float:
    """The probability that two documents of this Jaccard similarity share a band."""
    return float(1 - (1 - similarity**rows) ** bands)


@functools.cache
def _factors(count: int, seed: int) -> Hashes:
    """Odd 64-bit numbers of a SplitMix64 stream; streams of different seeds (32 bits) do not overlap."""
    places = np.arange(1, count + 1, dtype=np.uint64) + np.uint64((seed << 32) % 2**64)
    return mixed(places * _GAMMA) | np.uint64(1)


@functools.cache
def _sketch() -> Any:
    try:
        import rensa  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise SpecError("near-duplicates need the package rensa, which is missing", _HINT) from error
    if rensa.RMinHash.ALGORITHM_VERSION != _ALGORITHM:
        raise SpecError(f"rensa makes signatures of version {rensa.RMinHash.ALGORITHM_VERSION}, not 2", _HINT)
    return rensa.RMinHash.digest_matrix_from_flat_token_hashes
