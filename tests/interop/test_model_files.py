"""Our model directories opened by transformers."""

from __future__ import annotations

import json

import pytest
import torch

from gptcli.models.init import init_weights
from gptcli.models.llama import Llama, LlamaConfig
from gptcli.models.load import load_model, read_config, save_model

transformers = pytest.importorskip("transformers")

SHAPES = [
    ("llama", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    ("llama", {"num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True, "rope_theta": 500000.0}),
    ("mistral", {"num_key_value_heads": 1}),
    ("qwen2", {"num_key_value_heads": 2}),
    ("qwen2", {"num_key_value_heads": 4, "tie_word_embeddings": True}),
    ("qwen3", {"num_key_value_heads": 2, "head_dim": 12}),
    ("qwen3", {"num_key_value_heads": 2, "tie_word_embeddings": True, "attention_bias": True, "rms_norm_eps": 1e-5}),
]


def small_config(model_type: str, **changes: object) -> LlamaConfig:
    sizes: dict[str, object] = {
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 56,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 8,
        "max_position_embeddings": 64,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 3,
    }
    return LlamaConfig(model_type, **{**sizes, **changes})  # type: ignore[arg-type]


def random_model(config: LlamaConfig, seed: int = 0) -> Llama:
    """Every tensor away from its start, gains, biases and zeroed projections included."""
    generator = torch.Generator().manual_seed(seed)
    model = Llama(config).eval()
    init_weights(model, generator, embedding_std=0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.empty(parameter.shape).normal_(0.0, 0.2, generator=generator))
    return model


def token_ids(config: LlamaConfig) -> torch.Tensor:
    return torch.randint(0, config.vocab_size, (3, 48), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(("model_type", "changes"), SHAPES)
def test_transformers_gives_our_logits(model_type, changes, tmp_path):
    config = small_config(model_type, **changes)
    model = random_model(config)
    save_model(model.state_dict(), config, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    ids = token_ids(config)
    with torch.no_grad():
        want, got = theirs(ids).logits, model(ids)
    assert type(theirs).__name__ == config.to_hf()["architectures"][0]
    assert want.std() > 0.5
    assert (want - got).abs().max() < 1e-4
    again = load_model(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(ids), got)


@pytest.mark.parametrize(("model_type", "changes"), SHAPES)
def test_we_open_what_transformers_saves(model_type, changes, tmp_path):
    config = small_config(model_type, **changes)
    raw = config.to_hf()
    theirs = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**{k: v for k, v in raw.items() if k not in ("architectures", "dtype")})
    ).eval()
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    ids = token_ids(config)
    ours = load_model(tmp_path)
    with torch.no_grad():
        assert (theirs(ids).logits - ours(ids)).abs().max() < 1e-4
    assert read_config(tmp_path) == config


def test_generation_settings_reach_transformers(tmp_path):
    config = small_config("qwen3", eos_token_id=(2, 5))
    save_model(random_model(config).state_dict(), config, tmp_path, torch.bfloat16)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    assert theirs.dtype == torch.bfloat16
    assert theirs.generation_config.eos_token_id == [2, 5]
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == [2, 5]
