"""Hugging Face's model directory: config.json beside safetensors or pytorch_model.bin, in one file or several."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from gptcli.errors import ArtifactError
from gptcli.models.family import read_config
from gptcli.models.importers.fitting import fit
from gptcli.models.importers.foreign import ForeignModel, StoredTensor
from gptcli.models.importers.tokenizer_files import tokenizer_files
from gptcli.models.importers.torch_zip import torch_tensors

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
# A file of weights and the index where they are in several, best first.
_LAYOUTS = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
_OTHERS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.gguf", "*.onnx")
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class HuggingFaceDirectory:
    """A directory with a config.json."""

    name = "Hugging Face directory"

    def recognises(self, path: Path) -> bool:
        return path.is_dir() and (path / CONFIG).is_file()

    def open(self, path: Path) -> ForeignModel:
        config = read_config(path)
        files, tensors = stored_tensors(path)
        beside = [path / CONFIG, *([path / GENERATION_CONFIG] if (path / GENERATION_CONFIG).is_file() else [])]
        tokenizer = tokenizer_files(path)
        return ForeignModel(
            form=f"{config.model_type}, {self.name}, {files[0].suffix.removeprefix('.')}",
            config=config,
            tensors=fit(tensors, config, str(path)),
            files=(*beside, *files),
            tokenizer=tokenizer,
            no_tokenizer="" if tokenizer else f"there is no tokenizer in {path}",
            generation=read_json(path / GENERATION_CONFIG) if len(beside) > 1 else {},
        )


def stored_tensors(directory: Path) -> tuple[tuple[Path, ...], dict[str, StoredTensor]]:
    """The files of a directory's weights, an index with them, and the tensors as they are named there.

    Raises ArtifactError for weights in another format, an index without its files, a damaged file, and a tensor that
    two files have.
    """
    files = _weight_files(directory)
    tensors: dict[str, StoredTensor] = {}
    for path in files:
        if path.suffix == ".json":
            continue
        found = _safetensors(path) if path.suffix == ".safetensors" else torch_tensors(path)
        twice = min(found.keys() & tensors.keys(), default=None)
        if twice is not None:
            raise ArtifactError(f"{path}: {twice[:80]!r} is in another file too", "fetch the weights again")
        tensors.update(found)
    return files, tensors


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises ArtifactError for anything else."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} can't be read: {error}", "fetch it again from its source") from error
    if not isinstance(raw, dict):
        raise ArtifactError(f"{path} holds no JSON object", "fetch it again from its source")
    return raw


def _weight_files(directory: Path) -> tuple[Path, ...]:
    for whole, index in _LAYOUTS:
        if (directory / whole).is_file():
            return (directory / whole,)
        if (directory / index).is_file():
            places = read_json(directory / index).get("weight_map")
            if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
                raise ArtifactError(f"{directory / index} has no weight_map", "fetch it again from its source")
            names = sorted({Path(name).name for name in places.values()})  # an index leads nowhere else
            if any(not name.endswith(Path(whole).suffix) for name in names):
                raise ArtifactError(f"{directory / index} names files that are no {Path(whole).suffix}")
            return (*(directory / name for name in names), directory / index)
    foreign = sorted(path.name for pattern in _OTHERS for path in directory.glob(pattern))
    if foreign:
        raise ArtifactError(
            f"{directory} has its weights in {foreign[0]}: only safetensors and pytorch_model.bin are opened here",
            f"gptcli checkpoint import {directory / foreign[0]}"
            if foreign[0].endswith(".gguf")
            else "convert it with transformers: model.save_pretrained(DIR, safe_serialization=True)",
        )
    raise ArtifactError(f"{directory} has no {_LAYOUTS[0][0]}", "fetch its weights beside config.json")


def _safetensors(path: Path) -> dict[str, StoredTensor]:
    try:
        file: Any = safe_open(path, framework="pt")
        return {name: _stored(path, file, name) for name in file.keys()}  # noqa: SIM118  (a file handle, no dict)
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing", "fetch it beside the others") from error
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path} can't be read: {error}", "the file is damaged or no safetensors file") from error


def _stored(path: Path, file: Any, name: str) -> StoredTensor:
    place = file.get_slice(name)
    dtype = _DTYPES.get(str(place.get_dtype()))
    if dtype is None:
        raise ArtifactError(f"{path}: {name} holds {place.get_dtype()}, no plain weights", "use the unquantised model")
    return StoredTensor(tuple(place.get_shape()), dtype, lambda: file.get_tensor(name))
