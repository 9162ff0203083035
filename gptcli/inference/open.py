"""A model by name, ready to compute: full weights, or an adapter on its base."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from gptcli.artifacts.locations import ModelRef, resolve_model
from gptcli.artifacts.project import Project
from gptcli.errors import ArtifactError
from gptcli.inference.adapter_base import adapter_base
from gptcli.models.family import CausalLM
from gptcli.models.load import load_adapter, load_model
from gptcli.runtime.device import default_dtype
from gptcli.templates import TEMPLATE_FILE, chat_template
from gptcli.tokenizer import Tokenizer, engine_file


def open_model(
    project: Project, ref: str, device: torch.device, dtype: torch.dtype | None = None
) -> tuple[CausalLM, Tokenizer, ModelRef]:
    """Open a run's checkpoint, an adapter on its base, a version or a directory, in evaluation mode.

    `dtype` is the base weights' (default: float32 on a CPU, elsewhere what the device is fast in); an adapter's
    stay float32. Raises ArtifactError when something is missing, damaged or does not fit, a tokenizer with more ids
    than the model among it.
    """
    found = resolve_model(project, ref)
    dtype = dtype or (torch.float32 if device.type == "cpu" else default_dtype(device))
    if found.kind != "adapter":
        model, home = load_model(found.directory, device=device, dtype=dtype), found.directory
    else:
        base = adapter_base(project, found.directory)
        model, home = load_model(base, device=device, dtype=dtype), _tokenizer_home(found.directory, base)
        load_adapter(model, found.directory)
    tokenizer = Tokenizer.load(home)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ArtifactError(
            f"{ref}: the tokenizer has {tokenizer.vocab_size} ids, the model {model.config.vocab_size}",
            "give the model the tokenizer it was trained with",
        )
    return model, tokenizer, found


def answers_chat(found: ModelRef, tokenizer: Tokenizer) -> bool:
    """Whether the model was tuned to take turns: an adapter was; else generation must be set to end at end-of-turn, or,
    where nothing but eos ends one, the chat template be the one that tuning writes."""
    if found.kind == "adapter":
        return True
    if not tokenizer.marker_ids:
        try:
            return (found.directory / TEMPLATE_FILE).read_text(encoding="utf-8") == chat_template(tokenizer)
        except (OSError, ValueError):
            return False
    try:
        raw = json.loads((found.directory / "generation_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    stops = raw.get("eos_token_id")
    stops = stops if isinstance(stops, list) else [stops]
    return tokenizer.eot_id in stops


def _tokenizer_home(adapter: Path, base: Path) -> Path:
    return base if engine_file(adapter) is None else adapter
