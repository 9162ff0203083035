"""One corpus shard into one token shard, and what was counted on the way: the unit of work of a tokenize run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gptcli.artifacts.durable import write_json
from gptcli.artifacts.schemas import TOKENS16_SCHEMA, TOKENS32_SCHEMA
from gptcli.artifacts.shards import ShardWriter, open_shard
from gptcli.console import human_bytes
from gptcli.errors import ArtifactError
from gptcli.runtime.compiled import compiled
from gptcli.tokenize.encoding.encode import LONGEST_PART, Encoded, Encoder, PartTooLongError
from gptcli.tokenizer import Tokenizer

_BYTE, _UNKNOWN = 1, 2  # kinds of ids
CHECK_EVERY = 1000  # documents of a shard, its first among them, are decoded back


@dataclass(frozen=True)
class ShardCounts:
    """Counts of one shard: `bytes` of stored text, `tokens` with bos and eos, `byte_tokens` of them single bytes,
    `unknown_tokens` of them the unknown id, documents decoded back, and those that came back changed."""

    documents: int = 0
    bytes: int = 0
    tokens: int = 0
    byte_tokens: int = 0
    unknown_tokens: int = 0
    checked_documents: int = 0
    changed_documents: int = 0

    def __add__(self, other: ShardCounts) -> ShardCounts:
        return ShardCounts(**{key: value + getattr(other, key) for key, value in asdict(self).items()})


class ShardEncoder:
    """Encodes corpus shards with one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._encoder = Encoder(tokenizer)
        self._schema = TOKENS16_SCHEMA if self._encoder.dtype is np.uint16 else TOKENS32_SCHEMA
        self._kinds = np.zeros(tokenizer.vocab_size, np.uint8)
        for token_id in range(tokenizer.vocab_size):
            if tokenizer.engine.is_byte(token_id):
                self._kinds[token_id] = _BYTE
            elif tokenizer.engine.is_unknown(token_id):
                self._kinds[token_id] = _UNKNOWN

    def encode(self, corpus_shard: Path, place: Path) -> ShardCounts:
        """Write a shard's tokens to `place`; raises ArtifactError when a document that must come back unchanged does
        not."""
        writer = ShardWriter(place, self._schema)
        counts = ShardCounts()
        for documents, texts in read_texts(corpus_shard):
            start = 0
            for part in self._parts(corpus_shard, documents, texts):
                end = start + len(part.bytes)
                tokens = pa.LargeListArray.from_arrays(pa.array(part.offsets), pa.array(part.tokens))
                columns = [documents.slice(start, end - start), pa.array(part.bytes), tokens]
                writer.write(pa.RecordBatch.from_arrays(columns, schema=self._schema))
                first = -counts.documents % CHECK_EVERY
                counts += self._counted(part)
                for row in range(first, len(part.bytes), CHECK_EVERY):
                    ids = part.tokens[part.offsets[row] : part.offsets[row + 1]].tolist()
                    counts += self._check(ids, texts[start + row].as_py(), documents[start + row].as_py(), corpus_shard)
                start = end
        writer.close()
        return counts

    def _parts(self, corpus_shard: Path, documents: Any, texts: Any) -> Iterator[Encoded]:
        try:
            yield from self._encoder.documents(texts)
        except PartTooLongError as error:
            reason = self._encoder.why_whole or "no two characters of it may be parted"
            raise ArtifactError(
                f"{corpus_shard}: document {documents[error.document].as_py()} holds {human_bytes(error.size)} without "
                f"a place where this tokenizer's texts can be split ({reason})",
                f"leave such documents out: gptcli corpus --set max_chars={LONGEST_PART // 4} --update, or split them",
            ) from None

    def _counted(self, part: Encoded) -> ShardCounts:
        kinds = _kind_counts(part.tokens, self._kinds)
        return ShardCounts(
            documents=len(part.bytes),
            bytes=int(part.bytes.sum()),
            tokens=len(part.tokens),
            byte_tokens=int(kinds[_BYTE]),
            unknown_tokens=int(kinds[_UNKNOWN]),
        )

    def _check(self, ids: list[int], text: str, document: str, shard: Path) -> ShardCounts:
        if self.tokenizer.decode(ids) == text:
            return ShardCounts(checked_documents=1)
        if self.tokenizer.engine.is_lossless:
            raise ArtifactError(
                f"{shard}: document {document} does not decode to itself",
                "build both again: gptcli corpus --force, then gptcli tokenize --force",
            )
        return ShardCounts(checked_documents=1, changed_documents=1)


@compiled
def _kind_counts(tokens: Any, kinds: Any) -> Any:
    """How many tokens are of each kind."""
    found = np.zeros(3, np.int64)
    for token in tokens:
        found[kinds[token]] += 1
    return found


def read_texts(corpus_shard: Path) -> Iterator[tuple[Any, Any]]:
    """The columns `id` and `text` of each record batch of a corpus shard. Raises ArtifactError where it is broken."""
    reader = open_shard(corpus_shard)
    for number in range(reader.num_record_batches):
        try:
            batch = reader.get_batch(number)
            batch.validate(full=True)
            yield batch.column("id"), batch.column("text")
        except (OSError, KeyError, pa.ArrowException) as error:
            raise ArtifactError(
                f"{corpus_shard} cannot be read: {error}", "build the corpus again: gptcli corpus --force"
            ) from error


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
    counts = _encoder(tokenizer_directory, fingerprint).encode(corpus_shard, units / corpus_shard.name)
    write_json(_counts_path(units, corpus_shard), asdict(counts))
    return counts


@lru_cache(maxsize=1)
def _encoder(tokenizer_directory: Path, fingerprint: str) -> ShardEncoder:
    """Loaded once in each worker."""
    return ShardEncoder(Tokenizer.load(tokenizer_directory))


def _counts_path(units: Path, corpus_shard: Path) -> Path:
    return units / f"{corpus_shard.stem}.json"
