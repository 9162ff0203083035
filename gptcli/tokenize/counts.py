"""What is counted of a token shard."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class ShardCounts:
    """Counts of one shard: `bytes` of stored text, `tokens` with bos and eos, `byte_tokens` of them single bytes,
    `unknown_tokens` of them the unknown id, documents decoded back, and those that came back changed; `whole_texts`:
    documents that could not be split into parts."""

    documents: int = 0
    bytes: int = 0
    tokens: int = 0
    byte_tokens: int = 0
    unknown_tokens: int = 0
    checked_documents: int = 0
    changed_documents: int = 0
    whole_texts: int = 0

    def __add__(self, other: ShardCounts) -> ShardCounts:
        return ShardCounts(**{key: value + getattr(other, key) for key, value in asdict(self).items()})
