"""The unit of work of a tokenize run: one corpus shard into one token shard, and what was counted on the way.

What encodes is loaded only where it is used: the process that shares out the work needs none of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from gptcli.artifacts.durable import sha256_file, write_json
from gptcli.artifacts.manifest import MANIFEST
from gptcli.artifacts.schemas import SPLITS
from gptcli.artifacts.shards import shard_paths
from gptcli.errors import ArtifactError
from gptcli.tokenize.counts import ShardCounts
from gptcli.tokenize.spec import corpus_manifest
from gptcli.tokenize.units import is_sealed, seal

Result = TypeVar("Result")

_SHARDS = tuple(f"{split}-" for split in SPLITS)
_REMEDY = "build the corpus again: gptcli corpus --force"


def corpus_shards(corpus: Path) -> dict[str, dict[Path, str]]:
    """The shards of each split of a finished corpus, in order, with their SHA-256 as its manifest has them.

    Raises ArtifactError where one is missing, or is none of the manifest's.
    """
    sums = {entry.path: entry.sha256 for entry in corpus_manifest(corpus).files}
    found = {split: shard_paths(corpus, split) for split in SPLITS}
    there = {path.name for paths in found.values() for path in paths}
    for name in sorted(there ^ {name for name in sums if name.startswith(_SHARDS) and name.endswith(".arrow")}):
        fault = "is none of the files of its manifest" if name in there else "is missing"
        raise ArtifactError(f"{corpus / name} {fault}", _REMEDY)
    return {split: {path: sums[path.name] for path in paths} for split, paths in found.items()}


def of_whole_shard(function: Callable[[Path], Result], shard_and_sum: tuple[Path, str]) -> Result:
    """`function` of a corpus shard. Raises ArtifactError where its bytes are no longer those of the manifest: not all
    that goes bad on a disk can be told by reading it."""
    shard, wanted = shard_and_sum
    if sha256_file(shard) != wanted:
        raise ArtifactError(f"{shard} cannot be read: its bytes do not match their SHA-256 in {MANIFEST}", _REMEDY)
    return function(shard)


def finished(units: Path, corpus_shard: Path, fingerprint: str) -> ShardCounts | None:
    """The counts of a shard that an earlier process encoded with this tokenizer, or None."""
    if not is_sealed(units, corpus_shard.stem, fingerprint):
        return None
    return ShardCounts(**json.loads(_counts_path(units, corpus_shard).read_text(encoding="utf-8")))


def encode_shard(tokenizer_directory: Path, fingerprint: str, units: Path, corpus_shard: Path) -> ShardCounts:
    """Write the token shard of the same name and its counts into `units`, then the seal by which it is `finished`.

    `fingerprint`: the tokenizer's, by which one that a worker holds already is told from another in the same place.
    """
    counts: ShardCounts = _encoder(tokenizer_directory, fingerprint).encode(corpus_shard, units / corpus_shard.name)
    path = _counts_path(units, corpus_shard)
    write_json(path, asdict(counts))
    seal(units, corpus_shard.stem, [corpus_shard.name, path.name], fingerprint)
    return counts


@lru_cache(maxsize=1)
def _encoder(tokenizer_directory: Path, fingerprint: str) -> Any:
    """Loaded once in each worker."""
    from gptcli.tokenize.encoding.shard_encoder import ShardEncoder
    from gptcli.tokenizer import Tokenizer

    return ShardEncoder(Tokenizer.load(tokenizer_directory))


def _counts_path(units: Path, corpus_shard: Path) -> Path:
    return units / f"{corpus_shard.stem}.json"
