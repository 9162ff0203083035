"""One corpus shard into one token shard, and what was counted on the way: the unit of work of a tokenize run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gptcli.artifacts.durable import write_json
from gptcli.artifacts.schemas import TOKENS16_SCHEMA, TOKENS32_SCHEMA
from gptcli.artifacts.shards import ShardWriter, open_shard
from gptcli.errors import ArtifactError
from gptcli.tokenize.encode import Encoder, keeps_text
from gptcli.tokenizer import Tokenizer

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
    """Encodes shards into `units`; made once in each worker."""

    def __init__(self, tokenizer_directory: Path, units: Path) -> None:
        self.tokenizer = Tokenizer.load(tokenizer_directory)
        self.units = units
        self._encoder = Encoder(self.tokenizer)
        self._is_exact = keeps_text(self.tokenizer)
        processor = self.tokenizer.processor
        ids = range(self.tokenizer.vocab_size)
        self._is_byte = np.fromiter(map(processor.is_byte, ids), np.bool_, len(ids))
        self._is_unknown = np.fromiter(map(processor.is_unknown, ids), np.bool_, len(ids))

    def encode(self, corpus_shard: Path) -> ShardCounts:
        """Write the token shard of the same name, then its counts; raises ArtifactError when a document that must
        come back unchanged does not."""
        schema = TOKENS16_SCHEMA if self._encoder.dtype is np.uint16 else TOKENS32_SCHEMA
        writer = ShardWriter(self.units / corpus_shard.name, schema)
        counts = ShardCounts()
        for documents, texts in read_texts(corpus_shard):
            start = 0
            for part in self._encoder.documents(texts):
                end = start + len(part.bytes)
                tokens = pa.LargeListArray.from_arrays(pa.array(part.offsets), pa.array(part.tokens))
                columns = [documents.slice(start, end - start), pa.array(part.bytes), tokens]
                writer.write(pa.RecordBatch.from_arrays(columns, schema=schema))
                counts += ShardCounts(
                    documents=len(part.bytes),
                    bytes=int(part.bytes.sum()),
                    tokens=len(part.tokens),
                    byte_tokens=int(np.count_nonzero(self._is_byte[part.tokens])),
                    unknown_tokens=int(np.count_nonzero(self._is_unknown[part.tokens])),
                )
                first = -(counts.documents - len(part.bytes)) % CHECK_EVERY
                for row in range(first, len(part.bytes), CHECK_EVERY):
                    ids = part.tokens[part.offsets[row] : part.offsets[row + 1]].tolist()
                    counts += self._check(ids, texts[start + row].as_py(), documents[start + row].as_py(), corpus_shard)
                start = end
        writer.close()
        write_json(counts_path(self.units, corpus_shard), asdict(counts))
        return counts

    def _check(self, ids: list[int], text: str, document: str, shard: Path) -> ShardCounts:
        if self.tokenizer.decode(ids) == text:
            return ShardCounts(checked_documents=1)
        if self._is_exact:
            raise ArtifactError(
                f"{shard}: document {document} does not decode to itself",
                "build both again: gptcli corpus --force, then gptcli tokenize --force",
            )
        return ShardCounts(checked_documents=1, changed_documents=1)


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


def counts_path(units: Path, corpus_shard: Path) -> Path:
    return units / f"{corpus_shard.stem}.json"


def finished(units: Path, corpus_shard: Path) -> ShardCounts | None:
    """The counts of a shard that an earlier process encoded, or None."""
    path = counts_path(units, corpus_shard)
    if not path.is_file() or not (units / corpus_shard.name).is_file():
        return None
    return ShardCounts(**json.loads(path.read_text(encoding="utf-8")))


_encoder: ShardEncoder | None = None  # this worker's


def begin_worker(tokenizer_directory: Path, units: Path) -> None:
    """Load the tokenizer once a process."""
    global _encoder
    _encoder = ShardEncoder(tokenizer_directory, units)


def encode_shard(corpus_shard: Path) -> ShardCounts:
    """`ShardEncoder.encode` in a worker that `begin_worker` has prepared."""
    assert _encoder is not None
    return _encoder.encode(corpus_shard)
