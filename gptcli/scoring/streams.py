"""The part of a tokens artifact that is scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gptcli.artifacts.shards import open_shard, shard_paths
from gptcli.artifacts.tokens import TokenStream


def open_documents(directory: Path, split: str, limit: int = 0) -> TokenStream:
    """The first `limit` documents of a split of tokens/NAME (0: all), with the UTF-8 bytes of just their text.

    Raises ArtifactError when the split has no shard.
    """
    if not limit:
        return TokenStream.open(directory, split)
    pieces, text_bytes, documents = [], 0, 0
    for path in shard_paths(directory, split):
        reader = open_shard(path)
        for number in range(reader.num_record_batches):
            if documents == limit:
                break
            batch = reader.get_batch(number).slice(0, limit - documents)
            pieces.append(batch.column("tokens").flatten().to_numpy(zero_copy_only=True))
            text_bytes += int(batch.column("bytes").to_numpy(zero_copy_only=True).sum())
            documents += batch.num_rows
    if not pieces:
        return TokenStream.open(directory, split)  # says what is missing
    starts = np.zeros(len(pieces) + 1, np.int64)
    np.cumsum([len(piece) for piece in pieces], out=starts[1:])
    return TokenStream(tuple(pieces), starts, text_bytes, documents)
