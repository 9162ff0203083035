"""A model by name, ready to compute: full weights, or an adapter on its base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, get_args

import torch

from gptcli.artifacts.locations import ModelRef, resolve_model
from gptcli.artifacts.project import Project
from gptcli.errors import ArtifactError, SpecError
from gptcli.inference.adapter_base import adapter_base
from gptcli.models.family import CausalLM, build_model
from gptcli.models.load import load_adapter, load_model, stored_dtype
from gptcli.models.lora import merge
from gptcli.models.quantized import load_quantized, quantize_model
from gptcli.runtime.device import default_dtype
from gptcli.templates import TEMPLATE_FILE, chat_template
from gptcli.tokenizer import Tokenizer, engine_file

Weights = Literal["auto", "float32", "bfloat16", "int8"]


def open_model(
    project: Project,
    ref: str,
    device: torch.device,
    dtype: torch.dtype | None = None,
    *,
    weights: Weights | None = None,
) -> tuple[CausalLM, Tokenizer, ModelRef]:
    """Open a run's checkpoint, an adapter on its base, a version or a directory, in evaluation mode.

    Without `weights`, `dtype` is the base weights' (default: float32 on a CPU, elsewhere what the device is fast in);
    an adapter's stay float32 beside them. With `weights` the model is for inference alone: an adapter is merged in
    float32 first, and its weights kept as told; int8: see models/quantized.py; auto: on a CPU as they are stored
    (bfloat16, else float32), elsewhere what the device is fast in. Raises SpecError for other weights, ArtifactError
    when something is missing, damaged or does not fit, a tokenizer with more ids than the model among it.
    """
    found = resolve_model(project, ref)
    base = adapter_base(project, found.directory) if found.kind == "adapter" else None
    home = found.directory if base is None else _tokenizer_home(found.directory, base)
    if weights is None:
        dtype = dtype or (torch.float32 if device.type == "cpu" else default_dtype(device))
        model = _load(found, base, device, dtype)
    else:
        model = _for_inference(found, base, device, weights)
    tokenizer = Tokenizer.load(home)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ArtifactError(
            f"{ref}: the tokenizer has {tokenizer.vocab_size} ids, the model {model.config.vocab_size}",
            "give the model the tokenizer it was trained with",
        )
    return model, tokenizer, found


def _load(found: ModelRef, base: Path | None, device: torch.device, dtype: torch.dtype) -> CausalLM:
    model = load_model(base or found.directory, device=device, dtype=dtype)
    if base is not None:
        load_adapter(model, found.directory)
    return model


def _for_inference(found: ModelRef, base: Path | None, device: torch.device, weights: str) -> CausalLM:
    if weights not in get_args(Weights):
        raise SpecError(f"weights={weights} is unknown", f"choose {', '.join(get_args(Weights))}")
    if weights == "auto" and device.type == "cpu":
        stored = stored_dtype(base or found.directory)
        weights = "bfloat16" if stored == torch.bfloat16 and base is None else "float32"
    elif weights == "auto":
        weights = str(default_dtype(device)).removeprefix("torch.")
    kept = torch.bfloat16 if weights == "bfloat16" else torch.float32
    whole = base is not None or weights == "int8"  # merged, or measured, before anything is rounded
    if weights == "int8" and base is None:
        model = load_quantized(found.directory, device)
    else:
        model = _load(found, base, device, torch.float32 if whole else kept)
    if base is not None:
        tensors = merge(model)
        with torch.device("meta"):
            model = build_model(model.config)
        model.load_state_dict({name: tensor.to(kept) for name, tensor in tensors.items()}, assign=True)
        model = model.to(device).eval()
        if weights == "int8":
            quantize_model(model)
    if weights == "int8" and device.type == "cuda":
        model.to(default_dtype(device))
    return model


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
