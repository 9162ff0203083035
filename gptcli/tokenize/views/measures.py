"""What a tokenizer makes of texts, in figures; and how a split's tokens use its vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gptcli.artifacts.shards import open_shard
from gptcli.errors import ArtifactError
from gptcli.tokenize.views.artifact import UNREADABLE
from gptcli.tokenize.views.pieces import BYTE, PLAIN, UNKNOWN, Pieces
from gptcli.tokenize.views.sample import Sample
from gptcli.tokenizer import Tokenizer

COLUMNS = ("bytes", "chars", "words", "tokens", "byte_tokens", "unknown_tokens", "kept")
PERCENTILES = (5, 50, 95)

_AT_ONCE = 1 << 20  # bytes of text encoded, and tokens counted, at once
_LONGEST = 1 << 20  # tokens of a document: longer ones count as this long in the percentiles
_EXAMPLES = 10

Counts = npt.NDArray[np.int64]


def measure(tokenizer: Tokenizer, texts: Sequence[str], advance: Callable[[int], None]) -> Counts:
    """A row a text, in COLUMNS: bytes of UTF-8, characters, words parted by white space, tokens (without bos and
    eos), those of them that are single bytes of a byte fallback, the unknown ids, and 1 where it decodes to itself.

    `advance` is called with the bytes done.
    """
    kinds = Pieces.of(tokenizer).kinds
    rows = np.zeros((len(texts), len(COLUMNS)), np.int64)
    start = 0
    while start < len(texts):
        end, size = start, 0
        while end < len(texts) and (end == start or size < _AT_ONCE):
            size += len(texts[end])
            end += 1
        part = texts[start:end]
        for row, text, ids in zip(rows[start:end], part, tokenizer.encode_batch(list(part)), strict=True):
            found = np.bincount(kinds[np.array(ids, np.int64)], minlength=UNKNOWN + 1)
            kept = tokenizer.decode(ids) == text
            row[:] = (
                len(text.encode()),
                len(text),
                len(text.split()),
                len(ids),
                found[BYTE],
                found[UNKNOWN],
                kept,
            )
        advance(int(rows[start:end, 0].sum()))
        start = end
    return rows


def figures(rows: Counts) -> dict[str, Any]:
    """The figures of some of `measure`'s rows; None where nothing can be divided by."""
    told = dict(zip(COLUMNS, rows.sum(axis=0).tolist(), strict=True))
    documents, tokens = len(rows), told["tokens"]
    return {
        "documents": documents,
        "bytes": told["bytes"],
        "tokens": tokens,
        "bytes_per_token": _ratio(told["bytes"], tokens),
        "chars_per_token": _ratio(told["chars"], tokens),
        "tokens_per_word": _ratio(tokens, told["words"]),
        "byte_share": _ratio(told["byte_tokens"], tokens, 6),
        "unknown_share": _ratio(told["unknown_tokens"], tokens, 6),
        "lossless_share": _ratio(told["kept"], documents, 6),
    }


def by_group(rows: Counts, sample: Sample) -> dict[str, list[dict[str, Any]]]:
    """The figures of each source, in the corpus's order, and of each language, the largest first."""
    numbers = np.array(sample.source_numbers, np.int64)
    languages = np.array(sample.languages, np.str_)
    sources = [
        {"source": name, **figures(rows[numbers == number])}
        for number, name in enumerate(sample.sources)
        if (numbers == number).any()
    ]
    told = [{"language": name, **figures(rows[languages == name])} for name in sorted(set(sample.languages) - {""})]
    return {"by_source": sources, "by_language": sorted(told, key=lambda one: -one["bytes"])}


@dataclass
class Usage:
    """How often each id stands in a split, int64 [vocab_size], and how many documents have how many tokens."""

    counts: Counts
    lengths: Counts
    foreign: int = 0  # ids that the vocabulary lacks

    @property
    def documents(self) -> int:
        return int(self.lengths.sum())

    def tokens_per_document(self) -> dict[str, int] | None:
        """Percentiles by the nearest rank; None of no documents."""
        if not self.documents:
            return None
        ends = np.cumsum(self.lengths)
        ranks = [max(1, -(-percent * self.documents // 100)) for percent in PERCENTILES]
        return {
            f"p{percent}": int(np.searchsorted(ends, rank)) for percent, rank in zip(PERCENTILES, ranks, strict=True)
        }


def count_usage(shards: Sequence[Path], vocab_size: int, advance: Callable[[int], None]) -> Usage:
    """Count every token of some shards, memory-mapped, a bounded number at a time.

    `advance` is called with the tokens counted. Raises ArtifactError for a shard that can't be read.
    """
    usage = Usage(np.zeros(vocab_size, np.int64), np.zeros(_LONGEST + 1, np.int64))
    for path in shards:
        for tokens in _token_lists(path):
            usage.lengths += np.bincount(
                np.minimum(np.diff(tokens.offsets.to_numpy()), _LONGEST), minlength=len(usage.lengths)
            )
            ids = tokens.flatten().to_numpy()
            for start in range(0, len(ids), _AT_ONCE):
                found = np.bincount(ids[start : start + _AT_ONCE], minlength=vocab_size)
                usage.counts += found[:vocab_size]
                usage.foreign += int(found[vocab_size:].sum())
            advance(len(ids))
    return usage


def _token_lists(path: Path) -> Iterator[Any]:
    """The column `tokens` of each batch of a token shard."""
    try:
        reader = open_shard(path)
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            batch.validate(full=True)
            tokens = batch.column("tokens")
            if tokens.null_count or tokens.values.null_count:
                raise pa.ArrowInvalid("it holds nulls")
            yield tokens
    except UNREADABLE as error:
        raise ArtifactError(f"{path} cannot be read: {error}", "gptcli tokenize --force builds it again") from error


def vocabulary(tokenizer: Tokenizer, usage: Usage) -> dict[str, Any]:
    """How the vocabulary is used: ids that never stand in the split, and the longest pieces. Bytes of a byte fallback
    and control ids are counted apart: they are there for what the text may bring, not for what it brought."""
    pieces = Pieces.of(tokenizer)
    plain = np.flatnonzero(pieces.kinds == PLAIN)
    single = np.flatnonzero(pieces.kinds == BYTE)
    unused = plain[usage.counts[plain] == 0]
    lengths = pieces.lengths
    longest = plain[np.lexsort((plain, -lengths[plain]))][:_EXAMPLES]
    return {
        "pieces": len(plain),
        "unused_pieces": len(unused),
        "unused_share": _ratio(len(unused), len(plain), 6),
        "unused_examples": [_piece(tokenizer, token_id) for token_id in unused[:_EXAMPLES].tolist()],
        "byte_ids": len(single),
        "unused_byte_ids": int((usage.counts[single] == 0).sum()),
        "longest": [
            {**_piece(tokenizer, token_id), "bytes": int(lengths[token_id]), "count": int(usage.counts[token_id])}
            for token_id in longest.tolist()
        ],
    }


def _piece(tokenizer: Tokenizer, token_id: int) -> dict[str, Any]:
    return {"id": token_id, "piece": tokenizer.piece(token_id)}


def _ratio(count: int, whole: int, digits: int = 4) -> float | None:
    return round(count / whole, digits) if whole else None
