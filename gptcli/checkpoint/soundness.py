"""Whether a model directory is one: its tensors those of its config, and, loaded, one answer by both of its roads."""

from __future__ import annotations

from pathlib import Path

import torch

from gptcli.artifacts.locations import ADAPTER_CONFIG
from gptcli.artifacts.project import Project
from gptcli.checkpoint.weights import read_header
from gptcli.errors import GptcliError
from gptcli.inference.adapter_base import adapter_base
from gptcli.inference.engine import open_reader
from gptcli.inference.generate import Session
from gptcli.inference.sampling import Sampling
from gptcli.models.family import CausalLM, read_config
from gptcli.models.importers.fitting import fit
from gptcli.models.importers.hugging_face import stored_tensors
from gptcli.models.load import ADAPTER_WEIGHTS, load_adapter, load_model, read_adapter_config
from gptcli.models.merging import require_adapter_fits
from gptcli.tokenizer import Tokenizer, engine_file

GENERATED = 16  # tokens
TOLERANCE = 1e-3  # largest difference of two float32 computations, per unit of the largest logit (at least 1)
_PROMPT = 8  # tokens
_NOT_FINITE = "its logits are not finite"


def config_problem(directory: Path) -> str | None:
    """Why a model's config, or an adapter's settings, describe nothing that gptcli computes; None where they do."""
    try:
        if _is_adapter(directory):
            read_adapter_config(directory)
        else:
            read_config(directory)
    except GptcliError as error:
        return error.message
    return None


def shape_problems(project: Project, directory: Path) -> list[str]:
    """What of a model's tensors is missing, unexpected, misshapen or no plain weights by its config.json; of an
    adapter's by its settings and its base's config. The weights are not read."""
    try:
        if _is_adapter(directory):
            lora, _ = read_adapter_config(directory)
            base = read_config(adapter_base(project, directory))
            shapes = {tensor.name: tensor.shape for tensor in read_header(directory / ADAPTER_WEIGHTS)}
            require_adapter_fits(shapes, lora, base, directory)
        else:
            config = read_config(directory)
            fit(stored_tensors(directory)[1], config, str(directory))
    except GptcliError as error:
        return [error.message]
    return []


@torch.no_grad()
def deep_problems(project: Project, directory: Path) -> list[str]:
    """Load a model in float32, let it continue a prompt of its own ids greedily, and compare the logits of what it
    read by a cache, token by token, with those of everything read at once."""
    try:
        model = _load(project, directory)
        home = directory if engine_file(directory) or not _is_adapter(directory) else adapter_base(project, directory)
        problems = _tokenizer_problems(home, model) if engine_file(home) else []
        return problems + _road_problems(model)
    except GptcliError as error:
        return [error.message]


def _is_adapter(directory: Path) -> bool:
    return (directory / ADAPTER_CONFIG).is_file()


def _load(project: Project, directory: Path) -> CausalLM:
    if not _is_adapter(directory):
        return load_model(directory, checked=True)
    model = load_model(adapter_base(project, directory), checked=True)
    load_adapter(model, directory)
    return model


def _tokenizer_problems(home: Path, model: CausalLM) -> list[str]:
    found = Tokenizer.load(home).vocab_size
    if found > model.config.vocab_size:
        return [f"its tokenizer has {found:,} ids, its weights {model.config.vocab_size:,}"]
    return []


def _road_problems(model: CausalLM) -> list[str]:
    config = model.config
    count = max(1, min(_PROMPT, config.max_position_embeddings - 1))
    step = max(1, config.vocab_size // count)
    prompt = [at * step % config.vocab_size for at in range(count)]
    if config.max_position_embeddings < 2:
        return []  # nothing follows a prompt, so nothing is ever cached
    if not bool(torch.isfinite(model(torch.tensor([prompt]))).all()):
        return [_NOT_FINITE]
    ids = [*prompt, *Session(model).generate(prompt, Sampling(temperature=0.0, max_tokens=GENERATED))]
    whole = model(torch.tensor([ids]))[0]
    reader = open_reader(model, 1)
    cached = [reader.read([0], [ids[:count]])[0], *(reader.read([0], [[each]])[0] for each in ids[count:])]
    expected = whole[count - 1 :]
    if not bool(torch.isfinite(whole).all()):
        return [_NOT_FINITE]
    gap, largest = float((torch.stack(cached) - expected).abs().max()), float(expected.abs().max())
    if not gap <= TOLERANCE * max(1.0, largest):
        return [f"with a cache its logits are off by {gap:.3g} where they reach {largest:.3g}"]
    return []
