"""The one bridge between model modules and directories in Hugging Face's layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from gptcli.artifacts import durable
from gptcli.artifacts.locations import ADAPTER_CONFIG
from gptcli.artifacts.manifest import manifest_of
from gptcli.errors import ArtifactError, SpecError
from gptcli.models.llama import Llama, LlamaConfig
from gptcli.models.lora import LoraConfig, adapter_state_dict, apply_lora, load_adapter_state_dict
from gptcli.models.weights import read_tensors, write_tensors

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
EMBEDDING = "model.embed_tokens.weight"
_FOREIGN_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.gguf")
# Old Llama checkpoints store this table; it follows from the config.
_DERIVED = "rotary_emb.inv_freq"


def read_config(directory: Path) -> LlamaConfig:
    """The model's shape from config.json. Raises ArtifactError when missing, broken or unsupported."""
    try:
        return LlamaConfig.from_hf(_read_object(directory / "config.json"))
    except ArtifactError as error:
        if str(directory) in error.message:
            raise
        raise ArtifactError(f"{directory}: {error.message}", error.hint) from error


def load_model(
    directory: Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    checked: bool = False,
) -> Llama:
    """Open a Hugging Face model directory (config.json and model.safetensors, sharded or not), in evaluation mode.

    Where the directory carries a manifest, its files are checked against it first, unless the caller has `checked`
    them. Raises ArtifactError for weights in another format, a damaged file, and missing, unexpected or misshapen
    tensors, naming them.
    """
    if not checked:
        check_files(directory)
    config = read_config(directory)
    tensors: dict[str, Tensor] = {}
    for path in _weight_files(directory):
        tensors.update(read_tensors(path, device))
    with torch.device("meta"):
        model = Llama(config)
    _match(tensors, model.state_dict(), config, directory)
    model.load_state_dict({name: tensor.to(dtype) for name, tensor in tensors.items()}, assign=True)
    return model.to(device).eval()


def stored_dtype(directory: Path) -> torch.dtype:
    """The type the embedding is stored in; the directory is one that `load_model` opens."""
    for path in _weight_files(directory):
        with safe_open(path, framework="pt") as file:
            if EMBEDDING in file.keys():  # noqa: SIM118  (a file handle, no dict)
                dtype: torch.dtype = file.get_slice(EMBEDDING)[:1].dtype
                return dtype
    raise ArtifactError(f"{directory}: {EMBEDDING} is missing")


def save_model(
    state: dict[str, Tensor],
    config: LlamaConfig,
    directory: Path,
    dtype: torch.dtype | None = None,
    stop_ids: tuple[int, ...] | None = None,
) -> None:
    """Write config.json, generation_config.json and model.safetensors; floating tensors are cast to `dtype` if given.

    A tied head is left out of the file. The same tensors give the same bytes. `stop_ids` are the ids at which
    generation ends (default: the config's eos).
    """
    kept = {name: tensor for name, tensor in state.items() if not (config.tie_word_embeddings and _is_head(name))}
    if dtype is not None:
        kept = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in kept.items()}
    stored = str(next(iter(kept.values())).dtype).removeprefix("torch.")
    durable.write_json(directory / "config.json", config.to_hf(stored))
    durable.write_json(directory / "generation_config.json", generation_config(config, stop_ids or config.eos_ids))
    write_tensors(directory / WEIGHTS, kept)


def generation_config(config: LlamaConfig, eos_ids: tuple[int, ...]) -> dict[str, Any]:
    """What generation_config.json holds; generation stops at any of `eos_ids`."""
    out: dict[str, Any] = {}
    if config.bos_token_id is not None:
        out["bos_token_id"] = config.bos_token_id
    if eos_ids:
        out["eos_token_id"] = list(eos_ids) if len(eos_ids) > 1 else eos_ids[0]
    if config.pad_token_id is not None:
        out["pad_token_id"] = config.pad_token_id
    return out


def save_adapter(model: Llama, lora: LoraConfig, base_path: str, directory: Path) -> None:
    """Write adapter_config.json and adapter_model.safetensors as PEFT does; `base_path` names the base model."""
    save_adapter_state(adapter_state_dict(model), lora, model.config, base_path, directory)


def save_adapter_state(
    state: dict[str, Tensor], lora: LoraConfig, config: LlamaConfig, base_path: str, directory: Path
) -> None:
    """`save_adapter` for tensors already gathered, under PEFT's names."""
    durable.write_json(directory / ADAPTER_CONFIG, lora.to_peft(base_path, config.tie_word_embeddings))
    write_tensors(directory / ADAPTER_WEIGHTS, state)


def read_adapter_config(directory: Path) -> tuple[LoraConfig, str]:
    """The adapter's settings and its base model as written. Raises ArtifactError when broken or unsupported."""
    raw = _read_object(directory / ADAPTER_CONFIG)
    try:
        return LoraConfig.from_peft(raw), str(raw.get("base_model_name_or_path") or "")
    except ArtifactError as error:
        raise ArtifactError(f"{directory / ADAPTER_CONFIG}: {error.message}", error.hint) from error


def load_adapter(model: Llama, directory: Path) -> LoraConfig:
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


def _read_object(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing", "a model directory has config.json beside its weights") from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} can't be read: {error}") from error
    if not isinstance(raw, dict):
        raise ArtifactError(f"{path} holds no JSON object")
    return raw


def _weight_files(directory: Path) -> list[Path]:
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    if (directory / INDEX).is_file():
        places = _read_object(directory / INDEX).get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
            raise ArtifactError(f"{directory / INDEX} has no weight_map")
        return [directory / Path(name).name for name in sorted(set(places.values()))]
    foreign = sorted(path.name for pattern in _FOREIGN_WEIGHTS for path in directory.glob(pattern))
    if foreign:
        raise ArtifactError(
            f"{directory} has its weights in {foreign[0]}, which is not opened: only safetensors are",
            "convert it with transformers: model.save_pretrained(DIR, safe_serialization=True)",
        )
    raise ArtifactError(f"{directory} has no {WEIGHTS}")


def _is_head(name: str) -> bool:
    return name == "lm_head.weight"


def _match(tensors: dict[str, Tensor], wanted: dict[str, Tensor], config: LlamaConfig, directory: Path) -> None:
    """Drop what follows from the rest, then demand names and shapes to agree."""
    for name in [name for name in tensors if name.endswith(_DERIVED)]:
        del tensors[name]
    if config.tie_word_embeddings and "lm_head.weight" in tensors:
        head, embedding = tensors.pop("lm_head.weight"), tensors.get(EMBEDDING)
        if embedding is None or not torch.equal(head, embedding):
            raise ArtifactError(
                f"{directory}: lm_head.weight differs from the embedding, though the config ties them",
                'set "tie_word_embeddings": false in config.json if the head is its own',
            )
    problems = [f"{name} is missing" for name in wanted if name not in tensors]
    problems += [f"{name} is not expected" for name in tensors if name not in wanted]
    problems += [
        f"{name} has shape {list(tensors[name].shape)}, not {list(shape.shape)}"
        for name, shape in wanted.items()
        if name in tensors and tensors[name].shape != shape.shape
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ArtifactError(f"{directory}: the weights do not fit config.json: {'; '.join(problems[:5])}{more}")
