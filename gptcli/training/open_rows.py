"""Which rows a training reads: the one place where `packing` and `document_mask` are turned into samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gptcli.artifacts.packing import PackingIndex, packing_path
from gptcli.artifacts.tokens import TokenStream, document_bounds
from gptcli.tokenizer import Tokenizer
from gptcli.training.rows import StreamRows, TrainingRows


def open_rows(
    tokens: Path,
    tokenizer: Tokenizer,
    *,
    packing: str,
    document_mask: bool,
    seq_len: int,
    seed: int,
    split: str = "train",
    check: Callable[[], None] = lambda: None,
) -> TrainingRows:
    """The rows of a split of the artifact at `tokens`.

    packing: `stream`, windows over the documents end to end; `concat` or `bestfit`, the rows of the packing index of
    (split, packing, seq_len, seed). Where the artifact has that index it is read through its memory map, else the same
    index is made in memory: two seconds and 200 MB for ten million documents, nothing on disk that could go stale, and
    the same samples either way. document_mask: fill starts and positions. `check` is called now and then and
    may raise StoppedError.

    Raises ArtifactError for a split that is missing, too small or broken, and for a broken index.
    """
    stream = TokenStream.open(tokens, split)
    if packing == "stream":
        bounds = document_bounds(tokens, split) if document_mask else None
        return StreamRows(stream, seq_len, tokenizer.bos_id, bounds)
    from gptcli.training.packed_rows import MadePacking, PackedRows  # loads compiled loops

    pad_id = tokenizer.pad_id if tokenizer.pad_id is not None else tokenizer.eos_id
    index: PackingIndex | MadePacking
    if packing_path(tokens, split, packing, seq_len, seed).is_file():
        index = PackingIndex.open(tokens, split, packing, seq_len, seed)
    else:
        index = MadePacking(tokens, document_bounds(tokens, split), packing, seq_len, seed, check)
    return PackedRows(stream, index, pad_id, tokenizer.bos_id, document_mask)
