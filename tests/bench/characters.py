"""A text as a tokens artifact of its characters, split as nanoGPT splits it: the first nine tenths, and the rest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gptcli.artifacts.build import Build
from gptcli.artifacts.manifest import Input, Inputs
from gptcli.artifacts.schemas import TOKENS16_SCHEMA
from gptcli.artifacts.shards import ShardWriter, shard_name
from gptcli.tokenizer import Tokenizer

TRAIN_SHARE = 0.9
END = "<|endoftext|>"


def character_ids(text: str) -> tuple[NDArray[np.uint16], NDArray[np.uint16], list[str]]:
    """Ids of the two splits, and the alphabet: the characters present, in their order, numbered from 0."""
    alphabet = sorted(set(text))
    number = {character: place for place, character in enumerate(alphabet)}
    ids = np.array([number[character] for character in text], np.uint16)
    cut = int(len(text) * TRAIN_SHARE)
    return ids[:cut], ids[cut:], alphabet


def write_characters(project: Path, text: str, name: str = "main") -> None:
    """tokens/NAME of `project`, made anew: a document a split, nothing before or after its characters.

    The vocabulary has one id beyond the alphabet, an end of document that the project's tokenizers must have; no
    split holds it.
    """
    train, val, alphabet = character_ids(text)
    place = project / "tokens" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(place, ignore_errors=True)
    inputs = Inputs((Input("text", "characters", ""),))
    build = Build.open(place, kind="tokens", spec={"characters": len(alphabet)}, inputs=inputs, say=lambda _: None)
    _write_tokenizer(build.directory / "tokenizer", alphabet)
    rows, splits = {}, {}
    parts = {"train": (train, text[: len(train)]), "val": (val, text[len(train) :])}
    for split, (ids, stored) in parts.items():
        size = len(stored.encode())
        columns = {"document": [split], "bytes": [size], "tokens": pa.array([ids], pa.large_list(pa.uint16()))}
        writer = ShardWriter(build.directory / shard_name(split, 0), TOKENS16_SCHEMA)
        writer.write(pa.table(columns, schema=TOKENS16_SCHEMA))
        rows[shard_name(split, 0)] = writer.close()
        splits[split] = {"documents": 1, "bytes": size, "tokens": len(ids)}
    tokenizer = Tokenizer.load(build.directory / "tokenizer")
    assert tokenizer.encode(text[:2000]) == train[:2000].tolist()
    stats = {"vocab_size": tokenizer.vocab_size, "tokenizer_sha256": tokenizer.fingerprint, "splits": splits}
    build.commit({**stats, "trained": False, "packing": {}}, {}, rows)


def _write_tokenizer(directory: Path, alphabet: list[str]) -> None:
    """A BPE whose merges are none, so that every character is a token."""
    directory.mkdir(parents=True)
    end = {"id": len(alphabet), "content": END, "special": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    model = {"type": "BPE", "vocab": {character: place for place, character in enumerate(alphabet)}, "merges": []}
    content = {"version": "1.0", "added_tokens": [{**end, **flags}], "decoder": {"type": "Fuse"}, "model": model}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END}
    for name, value in (("tokenizer.json", content), ("tokenizer_config.json", config)):
        (directory / name).write_text(json.dumps(value), encoding="utf-8")
