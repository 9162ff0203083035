"""One peer encoding a corpus: reads the Arrow shards, writes every document's ids to one file of uint16.

usage: PEER_PYTHON tests/bench/tokenize_peer.py PEER CORPUS TOKENIZER OUT    (CORPUS: corpus/NAME, TOKENIZER: a folder)

Peers: sentencepiece (its batch encode, two threads), tokenizers (encode_batch_fast, two threads), tiktoken (two
processes; TOKENIZER holds GPT-2's encoder.json and vocab.bpe), gigatoken (from tokenizer.model, two threads).
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ["RAYON_NUM_THREADS"] = "2"

import numpy as np
import pyarrow as pa


def batches(shard: Path) -> Iterator[list[str]]:
    reader = pa.ipc.open_file(pa.memory_map(str(shard)))
    for number in range(reader.num_record_batches):
        yield reader.get_batch(number).column("text").to_pylist()


def flat(lists: Iterable[Any]) -> Any:
    return np.fromiter(itertools.chain.from_iterable(lists), np.uint16)


def by_sentencepiece(shards: list[Path], tokenizer: Path) -> Iterator[Any]:
    import sentencepiece

    engine = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer / "tokenizer.model"))
    for texts in itertools.chain.from_iterable(map(batches, shards)):
        yield flat(engine.encode(texts, num_threads=2))


def by_tokenizers(shards: list[Path], tokenizer: Path) -> Iterator[Any]:
    import tokenizers

    engine = tokenizers.Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    engine.encode_special_tokens = True
    for texts in itertools.chain.from_iterable(map(batches, shards)):
        yield np.concatenate([np.array(each.ids, np.uint16) for each in engine.encode_batch_fast(texts)])


def by_gigatoken(shards: list[Path], tokenizer: Path) -> Iterator[Any]:
    import awkward
    import gigatoken

    engine = gigatoken.Tokenizer.from_sentencepiece(tokenizer / "tokenizer.model")
    for texts in itertools.chain.from_iterable(map(batches, shards)):
        yield awkward.to_numpy(awkward.flatten(engine.encode_batch(texts))).astype(np.uint16)


_engine: Any = None


def begin(tokenizer: Path) -> None:
    global _engine
    import tiktoken
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    ranks = data_gym_to_mergeable_bpe_ranks(str(tokenizer / "vocab.bpe"), str(tokenizer / "encoder.json"))
    pattern = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
    _engine = tiktoken.Encoding("gpt2", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


def encode_shard(shard: Path) -> Any:
    return np.concatenate([flat(map(_engine.encode_ordinary, texts)) for texts in batches(shard)])


def by_tiktoken(shards: list[Path], tokenizer: Path) -> Iterator[Any]:
    with multiprocessing.get_context("spawn").Pool(2, begin, (tokenizer,)) as pool:
        yield from pool.imap(encode_shard, shards)


PEERS = {
    "sentencepiece": by_sentencepiece,
    "tokenizers": by_tokenizers,
    "tiktoken": by_tiktoken,
    "gigatoken": by_gigatoken,
}


def main(peer: str, corpus: Path, tokenizer: Path, out: Path) -> None:
    tokens = 0
    with out.open("wb") as file:
        for ids in PEERS[peer](sorted(corpus.glob("*-[0-9]*.arrow")), tokenizer):
            ids.tofile(file)
            tokens += len(ids)
    print(json.dumps({"tokens": tokens}))


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:5]))
