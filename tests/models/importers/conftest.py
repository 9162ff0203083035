"""Small models of every family with random weights, and the ways they are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gptcli.artifacts.durable import write_json
from gptcli.models.family import build_model, config_from_hf

SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2, "tie_word_embeddings": False},
    "llama_tied_biased": {"num_key_value_heads": 4, "tie_word_embeddings": True, "attention_bias": True},
    "mistral": {"num_key_value_heads": 1, "tie_word_embeddings": False, "sliding_window": None},
    "qwen2": {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": False},
    "gpt2": {"tie_word_embeddings": True},
}
SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "rms_norm_eps": 1e-5,
}
GPT2_SIZES = {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "eos_token_id": 2}


def config_of(shape: str) -> Any:
    model_type = shape.partition("_")[0]
    sizes = GPT2_SIZES if model_type == "gpt2" else SIZES
    return config_from_hf({"model_type": model_type, **sizes, **SHAPES[shape]})


def random_state(config: Any) -> dict[str, Tensor]:
    """Every tensor of a model of that shape, none at its start."""
    generator = torch.Generator().manual_seed(3)
    with torch.device("meta"):
        wanted = build_model(config).state_dict()
    return {name: torch.randn(tensor.shape, generator=generator) * 0.3 for name, tensor in sorted(wanted.items())}


@pytest.fixture(params=list(SHAPES))
def shape(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def write_config(config: Any, directory: Path, **changes: Any) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "config.json", {**config.to_hf(), **changes})
    return directory


def write_sharded(state: dict[str, Tensor], directory: Path, suffix: str) -> None:
    """Three shards and their index, safetensors or pytorch_model.bin."""
    stem = {"safetensors": "model", "bin": "pytorch_model"}[suffix]
    places = {name: f"{stem}-0000{1 + at % 3}-of-00003.{suffix}" for at, name in enumerate(state)}
    for file in sorted(set(places.values())):
        part = {name: state[name] for name in state if places[name] == file}
        if suffix == "bin":
            torch.save(part, directory / file)
        else:
            save_file(part, directory / file, {"format": "pt"})
    write_json(directory / f"{stem}.{suffix}.index.json", {"metadata": {}, "weight_map": places})
