"""A foreign model written as a checkpoint, tensor by tensor, and read back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gptcli.artifacts.durable import write_json
from gptcli.artifacts.project import Project
from gptcli.errors import ArtifactError
from gptcli.models.importers import ForeignModel
from gptcli.models.importers.fitting import embedding_name
from gptcli.models.importers.foreign import ForeignTokenizer, StoredTensor
from gptcli.models.importers.hugging_face import stored_tensors
from gptcli.models.importers.tokenizer_files import tokenizer_at
from gptcli.models.load import WEIGHTS, generation_config, read_config
from gptcli.models.weights import write_streamed
from gptcli.tokenizer import Tokenizer

NO_TOKENIZER = "none"


def choose_tokenizer(project: Project, model: ForeignModel, asked: str | None) -> ForeignTokenizer | None:
    """The tokenizer to import with a model: its own, the one at the path asked for, or none where that is asked for.

    Raises ArtifactError where there is none and none was not asked for.
    """
    if asked == NO_TOKENIZER:
        return None
    if asked is not None:
        path = project.path(asked)
        found = tokenizer_at(path)
        if found is None:
            raise ArtifactError(f"there is no tokenizer at {path}", "name tokens/NAME/tokenizer, or its file")
        return found
    if model.tokenizer is None:
        raise ArtifactError(
            model.no_tokenizer,
            f"--tokenizer DIR names the one that the model was trained with; --tokenizer {NO_TOKENIZER} goes without",
        )
    return model.tokenizer


def write_model(
    model: ForeignModel,
    tokenizer: ForeignTokenizer | None,
    dtype: str,
    target: Path,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Write config, generation config, weights and tokenizer into `target`; returns figures for the manifest's stats.

    `dtype` "auto" leaves every tensor's bytes as they are. Raises ArtifactError where tokenizer and model do not go
    together.
    """
    tensors = cast_all(model, dtype)
    stored = str(tensors[embedding_name(model.config)].dtype).removeprefix("torch.")
    write_json(target / "config.json", model.config.to_hf(stored))
    told = {**model.generation, **generation_config(model.config, _stops(model))}
    write_json(target / "generation_config.json", told)
    vocab_size = _write_tokenizer(tokenizer, model, target)  # before the weights: what may fail fails early
    write_streamed(target / WEIGHTS, tensors, advance)
    return {
        "parameters": model.parameters,
        "dtype": ", ".join(sorted({str(each.dtype).removeprefix("torch.") for each in tensors.values()})),
        "weight_bytes": sum(tensor.bytes for tensor in tensors.values()),
        "vocab_size": vocab_size,
    }


def cast_all(model: ForeignModel, dtype: str) -> dict[str, StoredTensor]:
    """The model's tensors as they are to be stored."""
    if dtype == "auto":
        return model.tensors
    wanted: torch.dtype = getattr(torch, dtype)
    return {name: tensor.cast(wanted) for name, tensor in model.tensors.items()}


def check_written(model: ForeignModel, dtype: str, directory: Path, advance: Callable[[int], None]) -> None:
    """Read back what `write_model` wrote and hold it against the source, value by value. Raises ArtifactError."""
    if read_config(directory) != model.config:
        raise ArtifactError(f"{directory}: the config read back is not the one written", "report this, please")
    _, written = stored_tensors(directory)
    for name, tensor in cast_all(model, dtype).items():
        found = written.get(name)
        if found is None or not _same_bytes(found.read(), tensor.read()):
            raise ArtifactError(f"{directory}: {name} read back is not what was written", "check the disk; try again")
        advance(tensor.bytes)


def _same_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal to the bit: weights that are no numbers are for `checkpoint verify` to find."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(one.reshape(-1).view(torch.uint8), other.contiguous().reshape(-1).view(torch.uint8))


def _stops(model: ForeignModel) -> tuple[int, ...]:
    """Where generation ends: what the model's own generation config says, else its eos."""
    own = model.generation.get("eos_token_id")
    ids = [each for each in (own if isinstance(own, list) else [own]) if isinstance(each, int)]
    return tuple(ids) or model.config.eos_ids


def _write_tokenizer(tokenizer: ForeignTokenizer | None, model: ForeignModel, target: Path) -> int:
    """Write the tokenizer, if any, and return its number of ids, 0 for none."""
    if tokenizer is None:
        return 0
    tokenizer.write(target)
    found = Tokenizer.load(target).vocab_size
    if found > model.config.vocab_size:
        raise ArtifactError(
            f"the tokenizer has {found:,} ids, the model {model.config.vocab_size:,}",
            "--tokenizer DIR names the one that the model was trained with",
        )
    return found
