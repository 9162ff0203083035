from __future__ import annotations

import io
import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import sentencepiece
import torch

from gptcli.artifacts.build import Build
from gptcli.artifacts.manifest import Input, Inputs, read_manifest
from gptcli.artifacts.schemas import CORPUS_SCHEMA, TOKENS16_SCHEMA
from gptcli.artifacts.shards import ShardWriter, shard_name
from gptcli.models.config import LlamaConfig
from gptcli.models.init import init_weights
from gptcli.models.llama import Llama
from gptcli.models.load import save_model
from gptcli.tokenizer import Tokenizer

SEQ_LEN = 32


def sentences(seed: int, count: int) -> list[str]:
    draw = random.Random(seed)
    words = [
        "the",
        "a",
        "cat",
        "dog",
        "sat",
        "ran",
        "on",
        "under",
        "mat",
        "tree",
        "big",
        "small",
        "and",
        "then",
        "naïve",
        "猫",
    ]
    return [" ".join(draw.choices(words, k=draw.randint(3, 60))) + ".\n" for _ in range(count)]


def train_tokenizer(directory: Path, seed: int = 0) -> Tokenizer:
    stored = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences(seed, 300)),
        model_writer=stored,
        vocab_size=330,
        model_type="bpe",
        byte_fallback=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=3,
        control_symbols=["<|im_start|>", "<|im_end|>"],
        minloglevel=2,
    )
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.model").write_bytes(stored.getvalue())
    return Tokenizer.load(directory)


def make_corpus(root: Path, texts: list[str], name: str = "main") -> None:
    build = Build.open(root / "corpus" / name, kind="corpus", spec={}, inputs=Inputs(), say=print)
    columns = {
        "id": [f"{number:032x}" for number in range(len(texts))],
        "text": texts,
        "path": ["made.txt"] * len(texts),
        "member": [None] * len(texts),
        "source_offset": [0] * len(texts),
        "source_bytes": [len(text.encode()) for text in texts],
        "license": [None] * len(texts),
        "meta": [None] * len(texts),
    }
    writer = ShardWriter(build.directory / shard_name("val", 0), CORPUS_SCHEMA, "zstd", rows_per_batch=7)
    writer.write(pa.table(columns, schema=CORPUS_SCHEMA))
    build.commit({}, {}, {shard_name("val", 0): writer.close()})


def make_tokens(root: Path, tokenizer: Tokenizer, texts: list[str], name: str = "main") -> None:
    corpus = read_manifest(root / "corpus" / "main")
    inputs = Inputs((Input("corpus", "corpus/main", corpus.content_sha256),))
    build = Build.open(root / "tokens" / name, kind="tokens", spec={}, inputs=inputs, say=print)
    columns = {
        "document": [f"{number:032x}" for number in range(len(texts))],
        "bytes": [len(text.encode()) for text in texts],
        "tokens": [np.array(tokenizer.document(text), np.uint16) for text in texts],
    }
    writer = ShardWriter(build.directory / shard_name("val", 0), TOKENS16_SCHEMA, rows_per_batch=7)
    writer.write(pa.table(columns, schema=TOKENS16_SCHEMA))
    writer.close()
    tokenizer.copy_to(build.directory / "tokenizer")
    build.commit({}, {}, {shard_name("val", 0): len(texts)})


def make_model(directory: Path, tokenizer: Tokenizer, seed: int = 0) -> None:
    config = LlamaConfig(
        "qwen3", tokenizer.vocab_size, 16, 32, 2, 2, 1, 8, SEQ_LEN, tie_word_embeddings=True, bos_token_id=1
    )
    model = Llama(config)
    init_weights(model, torch.Generator().manual_seed(seed))
    directory.mkdir(parents=True, exist_ok=True)
    save_model(model.state_dict(), config, directory)
    tokenizer.copy_to(directory)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return train_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def made(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    """A project with a corpus, its tokens, one run with two checkpoints, and chats."""
    texts = sentences(1, 20)
    make_corpus(tmp_path, texts)
    make_tokens(tmp_path, tokenizer, texts)
    for step in (10, 20):
        place = tmp_path / "runs" / "base" / "checkpoints" / f"step-{step:08d}"
        build = Build.open(place, kind="checkpoint", spec={"seq_len": SEQ_LEN}, inputs=Inputs(), say=print)
        make_model(build.directory, tokenizer, seed=step)
        build.commit({"step": step}, {})
    rows = [
        {"messages": [{"role": "user", "content": f"what is {n}?"}, {"role": "assistant", "content": "a cat"}]}
        for n in range(40)
    ]
    rows.append({"prompt": "the longest?", "completion": "the cat sat on the mat " * 20})
    rows.append({"neither": 1})
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path
