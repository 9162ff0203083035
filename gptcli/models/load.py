"""The one bridge between model modules and directories in Hugging Face's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptcli.artifacts import durable
from gptcli.artifacts.locations import ADAPTER_CONFIG
from gptcli.artifacts.manifest import manifest_of
from gptcli.errors import ArtifactError, SpecError
from gptcli.models.family import CausalLM, ModelConfig, build_model, read_config
from gptcli.models.importers.fitting import EMBEDDINGS, HEAD, fit
from gptcli.models.importers.hugging_face import read_json, stored_tensors
from gptcli.models.lora import LoraConfig, adapter_state_dict, apply_lora, load_adapter_state_dict
from gptcli.models.weights import read_tensors, write_tensors

__all__ = [
    "ADAPTER_WEIGHTS",
    "WEIGHTS",
    "check_files",
    "generation_config",
    "load_adapter",
    "load_model",
    "read_adapter_config",
    "read_config",
    "save_adapter",
    "save_adapter_state",
    "save_model",
    "stored_dtype",
]

WEIGHTS = "model.safetensors"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def load_model(
    directory: Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    checked: bool = False,
) -> CausalLM:
    """Open a Hugging Face model directory, in evaluation mode: config.json, and safetensors or pytorch_model.bin in
    one file or several. Each tensor is cast and moved by itself.

    Where the directory carries a manifest, its files are checked against it first, unless the caller has `checked`
    them. Raises ArtifactError for weights in another format, a damaged file, and missing, unexpected or misshapen
    tensors, naming them.
    """
    if not checked:
        check_files(directory)
    config = read_config(directory)
    _, stored = stored_tensors(directory)
    tensors = fit(stored, config, str(directory))
    with torch.device("meta"):
        model = build_model(config)
    model.load_state_dict(
        {name: tensor.read().to(device=device, dtype=dtype) for name, tensor in tensors.items()}, assign=True
    )
    return model.to(device).eval()


def stored_dtype(directory: Path) -> torch.dtype:
    """The type the embedding is stored in; the directory is one that `load_model` opens."""
    _, stored = stored_tensors(directory)
    for name in EMBEDDINGS:
        for spelling in (name, name.partition(".")[2]):  # a model saved without its head has no prefix
            if spelling in stored:
                return stored[spelling].dtype
    raise ArtifactError(f"{directory}: the token embedding is missing", f"it is named {' or '.join(EMBEDDINGS)}")


def save_model(
    state: dict[str, Tensor],
    config: ModelConfig,
    directory: Path,
    dtype: torch.dtype | None = None,
    stop_ids: tuple[int, ...] | None = None,
) -> None:
    """Write config.json, generation_config.json and model.safetensors; floating tensors are cast to `dtype` if given.

    A tied head is left out of the file. The same tensors give the same bytes. `stop_ids` are the ids at which
    generation ends (default: the config's eos).
    """
    kept = {name: tensor for name, tensor in state.items() if not (config.tie_word_embeddings and name == HEAD)}
    if dtype is not None:
        kept = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in kept.items()}
    stored = str(next(iter(kept.values())).dtype).removeprefix("torch.")
    durable.write_json(directory / "config.json", config.to_hf(stored))
    durable.write_json(directory / "generation_config.json", generation_config(config, stop_ids or config.eos_ids))
    write_tensors(directory / WEIGHTS, kept)


def generation_config(config: ModelConfig, eos_ids: tuple[int, ...]) -> dict[str, Any]:
    """What generation_config.json holds; generation stops at any of `eos_ids`."""
    out: dict[str, Any] = {}
    if config.bos_token_id is not None:
        out["bos_token_id"] = config.bos_token_id
    if eos_ids:
        out["eos_token_id"] = list(eos_ids) if len(eos_ids) > 1 else eos_ids[0]
    if config.pad_token_id is not None:
        out["pad_token_id"] = config.pad_token_id
    return out


def save_adapter(model: CausalLM, lora: LoraConfig, base_path: str, directory: Path) -> None:
    """Write adapter_config.json and adapter_model.safetensors as PEFT does; `base_path` names the base model."""
    save_adapter_state(adapter_state_dict(model), lora, model.config, base_path, directory)


def save_adapter_state(
    state: dict[str, Tensor], lora: LoraConfig, config: ModelConfig, base_path: str, directory: Path
) -> None:
    """`save_adapter` for tensors already gathered, under PEFT's names."""
    durable.write_json(directory / ADAPTER_CONFIG, lora.to_peft(base_path, config.tie_word_embeddings))
    write_tensors(directory / ADAPTER_WEIGHTS, state)


def read_adapter_config(directory: Path) -> tuple[LoraConfig, str]:
    """The adapter's settings and its base model as written. Raises ArtifactError when broken or unsupported."""
    raw = read_json(directory / ADAPTER_CONFIG)
    try:
        return LoraConfig.from_peft(raw), str(raw.get("base_model_name_or_path") or "")
    except ArtifactError as error:
        raise ArtifactError(f"{directory / ADAPTER_CONFIG}: {error.message}", error.hint) from error


def load_adapter(model: CausalLM, directory: Path) -> LoraConfig:
    """Put a PEFT LoRA adapter on its base model, in place. Raises ArtifactError when they do not fit."""
    check_files(directory)
    lora, _ = read_adapter_config(directory)
    tensors = read_tensors(directory / ADAPTER_WEIGHTS)
    try:
        apply_lora(model, lora, torch.Generator())
        load_adapter_state_dict(model, tensors)
    except (ArtifactError, SpecError) as error:  # what a file asks for is no wish of the user's
        raise ArtifactError(f"{directory}: {error.message}", error.hint) from error
    model.eval()
    return lora


def check_files(directory: Path) -> None:
    """Raise ArtifactError when the directory has a manifest and a model file isn't what it says.

    The trainer's state is left out: using a model doesn't read it.
    """
    manifest = manifest_of(directory)
    for entry in manifest.files if manifest else ():
        path = directory / entry.path
        if entry.path.startswith("trainer/"):
            continue
        if not path.is_file() or path.stat().st_size != entry.bytes or durable.sha256_file(path) != entry.sha256:
            raise ArtifactError(
                f"{path} is damaged: its bytes are not what the manifest says",
                f"gptcli checkpoint verify {directory} lists all that is; use another checkpoint",
            )
