"""`gptcli tokenize` beside the libraries people use: the same corpus shards, the same vocabulary, two cores.

usage: python tests/bench/tokenize_peers.py [DIR]    (default: .bench/tokenize; its corpus and tokenizer are kept)

The peers' environment: `python -m venv .bench/tokenizers && .bench/tokenizers/bin/pip install -c constraints.txt
sentencepiece tokenizers tiktoken gigatoken pyarrow`. Every run is a process of its own from corpus shards to ids on
disk, start-up included; ours also hashes, checks and flushes what it writes. tiktoken encodes with its own GPT-2
vocabulary (from the test data), the others with our 32k model.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from process_tree import Run, measure
from real_texts import unrepeated_texts

from gptcli.artifacts.shards import open_shard
from gptcli.tokenize.encoding.chunks import text_bytes
from gptcli.tokenize.encoding.interning import Interner
from gptcli.tokenize.encoding.splitting import splitting_of
from gptcli.tokenizer import Tokenizer

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("GPTCLI_TEST_DATA", HERE.parents[2] / "shared" / "data"))
PEER = Path(os.environ.get("GPTCLI_PEERS", ".bench")).resolve() / "tokenizers" / "bin" / "python"
STAGE = "tokenize beside its peers"
WANTED = {"sentencepiece": 10, "tokenizers": 12, "tiktoken": 4}  # times as fast
ORDER = ("gptcli", "gptcli", "gigatoken", "tiktoken", "gptcli", "sentencepiece", "gptcli", "tokenizers", "gptcli")


def tell(**figures: Any) -> None:
    print(json.dumps({"stage": STAGE, **figures}), flush=True)


def gptcli(directory: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "gptcli", *words, "-C", str(directory), "--json", "-q"]


def prepare(directory: Path) -> None:
    """A corpus of real text and a 32k tokenizer, made once."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "recipe.toml").touch()
    if not (directory / "corpus" / "main").exists():
        subprocess.run(gptcli(directory, "corpus", *unrepeated_texts(directory / "texts")), check=True)
    if not (directory / "tokens" / "trained").exists():
        command = gptcli(directory, "tokenize", "--name", "trained", "--vocab-size", "32768")
        run = measure([*command, "--set", "workers=2"])
        tell(trained_seconds=round(run.seconds, 1), peak_mb=round(run.peak_bytes / 1e6))


def ours(directory: Path) -> Run:
    shutil.rmtree(directory / "tokens" / "main", ignore_errors=True)
    tokenizer = directory / "tokens" / "trained" / "tokenizer"
    return measure([*gptcli(directory, "tokenize"), "--set", f"tokenizer={tokenizer}", "--set", "workers=2"])


def theirs(directory: Path, peer: str) -> Run:
    tokenizer = DATA / "gpt2-bpe-vocab" if peer == "tiktoken" else directory / "tokens" / "trained" / "tokenizer"
    script = str(HERE / "tokenize_peer.py")
    return measure(
        [str(PEER), script, peer, str(directory / "corpus" / "main"), str(tokenizer), str(directory / "ids")]
    )


def tell_text(directory: Path) -> int:
    """What is encoded, and how much of it repeats; the bytes."""
    splitting = splitting_of(Tokenizer.load(directory / "tokens" / "trained" / "tokenizer"))
    assert not isinstance(splitting, str), splitting
    interner, bounds = Interner(), np.empty(1 << 20, np.int64)
    size = documents = parts = 0
    for shard in sorted((directory / "corpus" / "main").glob("*-[0-9]*.arrow")):
        reader = open_shard(shard)
        for number in range(reader.num_record_batches):
            data, offsets = text_bytes(reader.get_batch(number).column("text"))
            place, documents, size = 0, documents + len(offsets) - 1, size + len(data)
            while place < len(data):
                count, place = splitting.splitter.bounds(data, offsets, place, bounds)
                interner.codes(data, bounds[:count], bounds[1 : count + 1])
                parts += count
    share = round(len(interner) / parts, 5)
    tell(documents=documents, bytes=size, parts=parts, distinct_parts=len(interner), distinct_share=share)
    return size


def main(directory: Path) -> None:
    prepare(directory)
    size = tell_text(directory)
    runs: dict[str, list[Run]] = {}
    for who in ORDER:
        if who != "gptcli" and not PEER.exists():
            tell(peer=f"{PEER} is not there")
            continue
        run = ours(directory) if who == "gptcli" else theirs(directory, who)
        answer = json.loads(run.stdout.splitlines()[-1])
        tokens = sum(split["tokens"] for split in answer["splits"].values()) if who == "gptcli" else answer["tokens"]
        rate = round(size / run.seconds / 1e6, 2)
        tell(
            who=who,
            seconds=round(run.seconds, 2),
            mb_per_second=rate,
            peak_mb=round(run.peak_bytes / 1e6),
            tokens=tokens,
        )
        runs.setdefault(who, []).append(run)
    for peer, wanted in {**WANTED, "gigatoken": None}.items():
        if peer in runs:
            ratios = [round(runs[peer][0].seconds / run.seconds, 2) for run in runs["gptcli"]]
            tell(peer=peer, times_as_fast=ratios, wanted=wanted)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ".bench/tokenize").resolve())
