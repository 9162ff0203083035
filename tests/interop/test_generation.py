"""Greedy tokens beside transformers' own `generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gptcli.inference.batch import generate_batch
from gptcli.inference.sampling import Sampling
from gptcli.models.load import load_model
from gptcli.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

STORY = (403, 407, 261, 378, 432, 383, 286, 261, 376, 298, 315, 421, 395, 317, 426, 338, 401, 396, 267)
SIZES = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
MORE = {"num_key_value_heads": 2, "max_position_embeddings": 64}
GREEDY = Sampling(temperature=0.0, max_tokens=20)


def config_of(model_type: str) -> Any:
    ids = {"bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0}
    if model_type == "gpt2":
        return transformers.GPT2Config(vocab_size=96, n_embd=32, n_layer=3, n_head=4, n_positions=64, **ids)
    if model_type == "qwen3":
        return transformers.Qwen3Config(**SIZES, **MORE, **ids, head_dim=16, tie_word_embeddings=True)
    return transformers.LlamaConfig(**SIZES, **MORE, **ids, attention_bias=True, mlp_bias=True)


def theirs(model: Any, prompt: list[int], count: int) -> list[int]:
    ids = torch.tensor([prompt])
    with torch.no_grad():
        found = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False)
    tokens: list[int] = found[0, len(prompt) :].tolist()
    return tokens


@pytest.mark.parametrize("model_type", ["llama", "qwen3", "gpt2"])
def test_greedy_tokens_are_those_of_transformers(model_type: str, tmp_path: Path, data_dir: Path) -> None:
    torch.manual_seed(7)
    peer = transformers.AutoModelForCausalLM.from_config(config_of(model_type)).eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    peer.save_pretrained(tmp_path)
    tokenizer, model = Tokenizer.load(data_dir / "stories260K-hf"), load_model(tmp_path)
    draw = torch.Generator().manual_seed(3)
    prompts = [torch.randint(2, 96, (length,), generator=draw).tolist() for length in (1, 9, 30, 44, 3)]
    got = generate_batch(model, tokenizer, prompts, GREEDY, stop_ids=(), batch_size=3)
    assert [list(found.ids) for found in got] == [theirs(peer, prompt, GREEDY.max_tokens) for prompt in prompts]
    assert len({found.ids for found in got}) == len(prompts)


def test_the_trained_llama_tells_the_same_story(data_dir: Path) -> None:
    home = data_dir / "stories260K-hf"
    peer = transformers.AutoModelForCausalLM.from_pretrained(home).eval()
    settings = Sampling(temperature=0.0, max_tokens=120)
    got = generate_batch(load_model(home), Tokenizer.load(home), [[1]], settings, stop_ids=())[0]
    assert got.ids[: len(STORY)] == STORY
    assert list(got.ids) == theirs(peer, [1], settings.max_tokens)
