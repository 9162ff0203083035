"""The n-gram index of a corpus: for every shard the sorted, unique hashes of its 13-grams, searched on the disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gptcli.artifacts.shards import open_shard, shard_paths
from gptcli.errors import ArtifactError
from gptcli.records.ngrams import Hashes

NGRAMS = "ngrams"  # the folder inside corpus/NAME; a file has the name of the shard it is of
NGRAM_SCHEMA = pa.schema([pa.field("hash", pa.uint64(), nullable=False)])  # of records.ngrams, ascending
ROWS_PER_BATCH = 1 << 20  # 8 MiB: what a file is written and searched by


class NgramIndex:
    """The n-grams of a corpus, or of one split; memory-mapped, so that a look-up reads only the pages it touches."""

    def __init__(self, runs: list[Hashes]) -> None:
        self._runs = [run for run in runs if len(run)]

    @classmethod
    def open(cls, directory: Path, split: str | None = None) -> NgramIndex:
        """The index in `directory` (corpus/NAME/ngrams). ArtifactError when there is none, or a file is no index."""
        paths = shard_paths(directory, split) if split else sorted(directory.glob("*.arrow"))
        if not paths:
            raise ArtifactError(
                f"there are no n-grams{f' of the split {split}' if split else ''} in {directory}",
                "build the corpus with ngrams = true: gptcli corpus --update",
            )
        return cls([run for path in paths for run in _runs(path)])

    def __len__(self) -> int:
        """Hashes; one that stands in two shards counts twice."""
        return sum(map(len, self._runs))

    def contains(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """Which of these n-gram hashes the corpus holds: (n,) uint64, in any order, to (n,) bool."""
        order = np.argsort(hashes, kind="stable")
        wanted, found = hashes[order], np.zeros(len(hashes), dtype=bool)
        for run in self._runs:
            begin, end = np.searchsorted(wanted, run[0]), np.searchsorted(wanted, run[-1], side="right")
            asked = wanted[begin:end]
            found[begin:end] |= run[np.searchsorted(run, asked)] == asked
        result = np.empty(len(hashes), dtype=bool)
        result[order] = found
        return result


def _runs(path: Path) -> list[Hashes]:
    """The record batches of one file as arrays over its memory map."""
    reader = open_shard(path)
    if not reader.schema.equals(NGRAM_SCHEMA):
        raise ArtifactError(f"{path} is no n-gram index", "build the corpus again: gptcli corpus --force")
    batches = map(reader.get_batch, range(reader.num_record_batches))
    return [batch.column(0).to_numpy(zero_copy_only=True) for batch in batches]
