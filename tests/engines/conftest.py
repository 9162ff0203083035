"""tokenizer.json files of the known families, made small from the same text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from gptcli.engines.roles import Roles
from gptcli.engines.tokenizers_json import TokenizersJson

AWKWARD: list[str] = json.loads((Path(__file__).parents[1] / "data" / "awkward.json").read_text(encoding="utf-8"))
_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
LLAMA3_WORDS = _LETTERS + r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2_WORDS = LLAMA3_WORDS.replace(r"\p{N}{1,3}", r"\p{N}")


def text() -> list[str]:
    return Path(json.__file__).read_text(encoding="utf-8").splitlines(keepends=True)


def byte_level(words: str, **settings: Any) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(**settings))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(words), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(text(), trainer)
    return tokenizer


def llama3() -> Tokenizer:
    tokenizer = byte_level(LLAMA3_WORDS, ignore_merges=True)
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    template = processors.TemplateProcessing("<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 500)])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


def qwen2() -> Tokenizer:
    tokenizer = byte_level(QWEN2_WORDS)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("</tool_call>", normalized=False)])
    return tokenizer


def llama2() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=first, show_progress=False, max_token_length=8)
    tokenizer.train_from_iterator(text(), trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = content["added_tokens"][:3]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<unk>", "<pad>", "</s>"]
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(text(), trainer)
    return tokenizer


FAMILIES = {"llama3": llama3, "qwen2": qwen2, "llama2": llama2, "unigram": unigram}


@pytest.fixture(scope="session")
def family_file() -> Callable[[str], str]:
    """The tokenizer.json of a family, as text."""
    made: dict[str, str] = {}

    def file(name: str) -> str:
        if name not in made:
            made[name] = FAMILIES[name]().to_str()
        return made[name]

    return file


@pytest.fixture(scope="session")
def family(family_file: Callable[[str], str]) -> Callable[[str], tuple[TokenizersJson, Tokenizer]]:
    """A family's engine of ours, and the package's own set to take special tokens for text."""
    made: dict[str, tuple[TokenizersJson, Tokenizer]] = {}

    def pair(name: str) -> tuple[TokenizersJson, Tokenizer]:
        if name not in made:
            other = Tokenizer.from_str(family_file(name))
            other.encode_special_tokens = True
            made[name] = TokenizersJson(family_file(name).encode(), f"{name}.json", Roles()), other
        return made[name]

    return pair


@pytest.fixture(scope="session")
def awkward() -> list[str]:
    return AWKWARD
