"""Names and shapes held against a config: what a model's own `state_dict` has, and nothing else."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

import torch

from gptcli.errors import ArtifactError
from gptcli.models.config import LlamaConfig
from gptcli.models.family import ModelConfig, build_model
from gptcli.models.importers.foreign import FLOATS, StoredTensor

HEAD = "lm_head.weight"
EMBEDDINGS = ("model.embed_tokens.weight", "transformer.wte.weight")
# Tables that older files store though they follow from the config: rotary frequencies, GPT-2's causal masks.
_DERIVED = ("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h)\.(\d+)\.")
_MOST_POSITIONS = 1 << 22  # four times the longest context known; a table of phases has a row for each
_WIDEST_HEAD = 1 << 14  # sixty times the widest known; a column of the table of phases for every second
_SHOWN = 5


def fit(stored: Mapping[str, StoredTensor], config: ModelConfig, where: str) -> dict[str, StoredTensor]:
    """The tensors under the names that the config's model has, in order of name; nothing large is read.

    A model saved without its head has no prefix on its names, which is put on; tables that follow from the config are
    left out, and so is a tied head, once it was seen to be the embedding. Raises ArtifactError, beginning with
    `where`, for missing, unexpected and misshapen tensors, and for weights that are no floating-point numbers.
    """
    prefix = "transformer." if config.model_type == "gpt2" else "model."
    named = {name: tensor for name, tensor in stored.items() if not name.endswith(_DERIVED)}
    if not any(name.startswith(prefix) for name in named):
        named = {name if name == HEAD else prefix + name: tensor for name, tensor in named.items()}
    _require_layers(named, config, where)
    if config.tie_word_embeddings and HEAD in named:
        _require_tied(named.pop(HEAD), named.get(embedding_name(config)), where)
    _require_shapes(named, expected_shapes(config, where), where)
    for name, tensor in named.items():
        if tensor.dtype not in FLOATS:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ArtifactError(f"{where}: {name} holds {kind}, no plain weights", "use the unquantised model")
    return dict(sorted(named.items()))


def embedding_name(config: ModelConfig) -> str:
    """The name of the token embedding."""
    return EMBEDDINGS[config.model_type == "gpt2"]


def expected_shapes(config: ModelConfig, where: str) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that the config's model has. Raises ArtifactError for sizes that no machine
    holds."""
    if config.max_position_embeddings > _MOST_POSITIONS:
        raise ArtifactError(
            f"{where}: max_position_embeddings={config.max_position_embeddings} is more than any model has",
            "fetch its config again from its source",
        )
    if isinstance(config, LlamaConfig) and config.head_dim > _WIDEST_HEAD:
        raise ArtifactError(
            f"{where}: head_dim={config.head_dim} is more than any model has", "fetch its config again from its source"
        )
    if isinstance(config, LlamaConfig):  # whose tensors don't depend on it, while its table of phases costs memory
        config = dataclasses.replace(config, max_position_embeddings=1)
    try:
        with torch.device("meta"):
            model = build_model(config)
    except (RuntimeError, OverflowError, TypeError) as error:
        raise ArtifactError(f"{where}: no model has these sizes: {str(error).splitlines()[0]}") from error
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _require_layers(named: Mapping[str, StoredTensor], config: ModelConfig, where: str) -> None:
    """Before a model of the config's depth is built: a broken config may ask for a billion layers."""
    found = {int(match[1]) for match in map(_LAYER.search, named) if match and len(match[1]) < 9}
    if len(found) != config.num_hidden_layers:
        raise ArtifactError(
            f"{where}: the weights have {len(found)} layers, config.json says {config.num_hidden_layers}",
            "the weights do not fit the config: fetch both again from their source",
        )


def _require_tied(head: StoredTensor, embedding: StoredTensor | None, where: str) -> None:
    same_shape = embedding is not None and head.shape == embedding.shape
    if embedding is None or not same_shape or not torch.equal(head.read(), embedding.read()):
        raise ArtifactError(
            f"{where}: {HEAD} differs from the embedding, though the config ties them",
            'set "tie_word_embeddings": false in config.json if the head is its own',
        )


def _require_shapes(named: Mapping[str, StoredTensor], wanted: dict[str, tuple[int, ...]], where: str) -> None:
    problems = [f"{name} is missing" for name in wanted if name not in named]
    problems += [f"{name} is not expected" for name in named if name not in wanted]
    problems += [
        f"{name} has shape {list(named[name].shape)}, not {list(shape)}"
        for name, shape in wanted.items()
        if name in named and named[name].shape != shape
    ]
    if problems:
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ArtifactError(f"{where}: the weights do not fit config.json: {'; '.join(problems[:_SHOWN])}{more}")
