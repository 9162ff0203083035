"""The model families as one: which config.json is whose, and which module it describes.

A model of any family has `config`, `hidden(input_ids, positions, cache, starts)`, `head(hidden)`, `head_weight` and
`forward`; a config of any family has the names that `models/config.py` lists as common.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeAlias

from gptcli.errors import ArtifactError
from gptcli.models.config import Gpt2Config, LlamaConfig, ModelConfig, architectures, config_from_hf
from gptcli.models.gpt2 import Gpt2
from gptcli.models.llama import Llama

__all__ = ["CausalLM", "ModelConfig", "architectures", "build_model", "config_from_hf", "read_config", "sized_config"]

CausalLM: TypeAlias = Llama | Gpt2


def read_config(directory: Path) -> ModelConfig:
    """The model's shape from config.json. Raises ArtifactError when missing, broken or unsupported."""
    path = directory / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing", "a model directory has config.json beside its weights") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} can't be read: {error}") from error
    if not isinstance(raw, dict):
        raise ArtifactError(f"{path} holds no JSON object")
    try:
        return config_from_hf(raw)
    except ArtifactError as error:
        raise ArtifactError(f"{directory}: {error.message}", error.hint) from error


def build_model(config: ModelConfig, dropout: float = 0.0) -> CausalLM:
    """A module of that shape, its parameters not yet initialised by rule (models/init.py), in training mode."""
    return Gpt2(config, dropout) if isinstance(config, Gpt2Config) else Llama(config, dropout)


def sized_config(
    architecture: str,
    *,
    vocab_size: int,
    hidden_size: int,
    intermediate_size: int,
    num_layers: int,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    max_positions: int,
    rope_theta: float,
    tie_embeddings: bool,
    bos_id: int | None,
    eos_id: int | None,
    pad_id: int | None,
    logit_softcap: float = 0.0,
) -> ModelConfig:
    """The config of a model of `architecture` (a model_type) to be trained from scratch.

    gpt2 has no rotary positions, shares no keys and divides its width evenly among its heads: rope_theta, num_kv_heads
    and head_dim say nothing there. Raises ArtifactError when the sizes contradict each other.
    """
    if architecture == "gpt2":
        return Gpt2Config(
            vocab_size=vocab_size,
            n_positions=max_positions,
            n_embd=hidden_size,
            n_layer=num_layers,
            n_head=num_heads,
            n_inner=None if intermediate_size == 4 * hidden_size else intermediate_size,
            tie_word_embeddings=tie_embeddings,
            bos_token_id=bos_id,
            eos_token_id=eos_id,
            pad_token_id=pad_id,
            final_logit_softcapping=logit_softcap,
        )
    return LlamaConfig(
        model_type=architecture,
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_kv_heads,
        head_dim=head_dim,
        max_position_embeddings=max_positions,
        rope_theta=rope_theta,
        tie_word_embeddings=tie_embeddings,
        bos_token_id=bos_id,
        eos_token_id=eos_id,
        pad_token_id=pad_id,
        final_logit_softcapping=logit_softcap,
    )
