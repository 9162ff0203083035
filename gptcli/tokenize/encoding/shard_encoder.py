"""Whole corpus shards through an encoder, counted and spot-checked on the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gptcli.artifacts.schemas import TOKENS16_SCHEMA, TOKENS32_SCHEMA
from gptcli.artifacts.shards import ShardWriter, open_shard
from gptcli.console import human_bytes
from gptcli.errors import ArtifactError
from gptcli.runtime.compiled import compiled
from gptcli.tokenize.counts import ShardCounts
from gptcli.tokenize.encoding.encode import LONGEST_PART, Encoded, Encoder, Ids, PartTooLongError
from gptcli.tokenizer import Tokenizer

_BYTE, _UNKNOWN = 1, 2  # kinds of ids
CHECK_EVERY = 1000  # documents of a shard, its first among them, are decoded back
CHECKED_TOKENS = 1 << 18  # of a document, from its beginning; as Python's numbers they take 20 times the memory
_LONGEST_END = 8  # characters that the next token may yet change: bytes of one character, the halves of an escape


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
                    ids = part.tokens[part.offsets[row] : part.offsets[row + 1]]
                    counts += self._check(ids, texts[start + row], documents[start + row].as_py(), corpus_shard)
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
            whole_texts=len(part.bytes) if self._encoder.why_whole else 0,
        )

    def _check(self, ids: Ids, text: Any, document: str, shard: Path) -> ShardCounts:
        if self._comes_back(ids, memoryview(text.as_buffer()).cast("B")):
            return ShardCounts(checked_documents=1)
        if self.tokenizer.engine.is_lossless:
            raise ArtifactError(
                f"{shard}: document {document} does not decode to itself",
                "build both again: gptcli corpus --force, then gptcli tokenize --force",
            )
        return ShardCounts(checked_documents=1, changed_documents=1)

    def _comes_back(self, ids: Ids, text: memoryview) -> bool:
        """Whether a document's ids decode to its UTF-8 text, as far as CHECKED_TOKENS go."""
        decoded = self.tokenizer.decode(ids[:CHECKED_TOKENS].tolist())
        if len(ids) <= CHECKED_TOKENS:
            return decoded.encode() == text
        beginning = decoded[:-_LONGEST_END].encode()
        return beginning == text[: len(beginning)]


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
