"""The unit of work of a tokenize run: one corpus shard into one token shard, and what was counted on the way.

What encodes is loaded only where it is used: the process that shares out the work needs none of it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from gptcli.artifacts.durable import write_json
from gptcli.tokenize.counts import ShardCounts


def finished(units: Path, corpus_shard: Path) -> ShardCounts | None:
    """The counts of a shard that an earlier process encoded, or None."""
    path = _counts_path(units, corpus_shard)
    if not path.is_file() or not (units / corpus_shard.name).is_file():
        return None
    return ShardCounts(**json.loads(path.read_text(encoding="utf-8")))


def encode_shard(tokenizer_directory: Path, fingerprint: str, units: Path, corpus_shard: Path) -> ShardCounts:
    """Write the token shard of the same name into `units`, then its counts, by which it is `finished`.

    `fingerprint`: the tokenizer's, by which one that a worker holds already is told from another in the same place.
    """
    counts: ShardCounts = _encoder(tokenizer_directory, fingerprint).encode(corpus_shard, units / corpus_shard.name)
    write_json(_counts_path(units, corpus_shard), asdict(counts))
    return counts


@lru_cache(maxsize=1)
def _encoder(tokenizer_directory: Path, fingerprint: str) -> Any:
    """Loaded once in each worker."""
    from gptcli.tokenize.encoding.shard_encoder import ShardEncoder
    from gptcli.tokenizer import Tokenizer

    return ShardEncoder(Tokenizer.load(tokenizer_directory))


def _counts_path(units: Path, corpus_shard: Path) -> Path:
    return units / f"{corpus_shard.stem}.json"
