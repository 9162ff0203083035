"""gptcli checkpoint average: a run whose one checkpoint lies between, or amid, several."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptcli.artifacts.durable import sha256_file
from gptcli.artifacts.locations import model_input, resolve_model
from gptcli.artifacts.project import Project
from gptcli.checkpoint.bars import OpenBar
from gptcli.checkpoint.derived import Derivation, derive
from gptcli.checkpoint.one_step_run import CHECKPOINT
from gptcli.console import Report, human_bytes, human_count
from gptcli.errors import ArtifactError, SpecError
from gptcli.models.arithmetic import ema_weights, mean_weights, spherical, weighted
from gptcli.models.importers import ForeignModel
from gptcli.models.importers.hugging_face import HuggingFaceDirectory
from gptcli.models.load import check_files
from gptcli.models.weights import StoredTensor

METHODS = ("uniform", "ema", "linear", "spherical")
# Which options a method reads, and what it takes where they are not given.
_READS: dict[str, dict[str, float]] = {
    "uniform": {},
    "ema": {"decay": 0.9},
    "linear": {"t": 0.5},
    "spherical": {"t": 0.5},
}
_SHOWN = 5


@dataclass(frozen=True)
class Wish:
    """How to average, as typed: `method` (None: uniform), `weights` "1,2,1" for uniform, `t` for linear and spherical,
    `decay` for ema; None where an option is not given."""

    method: str | None = None
    weights: str | None = None
    t: float | None = None
    decay: float | None = None


def average(project: Project, refs: Sequence[str], wish: Wish, name: str, force: bool, open_bar: OpenBar) -> Report:
    """Make runs/NAME of the models `refs` by models/arithmetic.py; the same command again changes nothing.

    Raises SpecError for options that the method does not read or that are out of range; ArtifactError when a model is
    missing, damaged or an adapter, when their configs, tensors or tokenizers differ, when the outcome is not finite
    though they are, and as `derive`.
    """
    spec = _spec(wish, len(refs))
    directories = [_whole_model(project, ref) for ref in refs]
    inputs = tuple(model_input(project, ref) for ref in refs)
    wanted = Derivation(spec, inputs, partial(_open, refs, directories, spec))
    manifest, is_new = derive(project, wanted, name, force, open_bar)
    place, stats = project.place("runs", name), manifest.stats
    figures = {
        "name": name,
        "averaged": is_new,
        "checkpoint": project.relative(place / CHECKPOINT),
        "content_sha256": manifest.content_sha256,
        **{key: value for key, value in manifest.spec.items() if key != "made"},
        "models": [dataclasses.asdict(entry) for entry in manifest.inputs],
        **stats,
    }
    rows = [("method", _method(manifest.spec))]
    rows += [(f"{_share(manifest.spec, at)}", entry.path) for at, entry in enumerate(manifest.inputs)]
    rows += [
        ("parameters", f"{stats['parameters']:,} ({human_count(stats['parameters'])}), {stats['dtype']}"),
        ("size", human_bytes(stats["weight_bytes"])),
    ]
    return Report(f"{name}: averaged" + ("" if is_new else " already"), figures["checkpoint"], figures, rows)


def _spec(wish: Wish, count: int) -> dict[str, Any]:
    """What decides the outcome, beside the models."""
    method = wish.method or "uniform"
    if method not in METHODS:
        raise SpecError(f"{method} is no way to average", f"--method {'|'.join(METHODS)}")
    if count < 2:
        raise SpecError("an average needs two models or more", "name them one after another")
    if method in ("linear", "spherical") and count != 2:
        raise SpecError(f"{method} goes between two models, not {count}", "--method uniform takes any number")
    given = {"t": wish.t, "decay": wish.decay}
    reads = _READS[method]
    for key in [key for key, value in given.items() if value is not None and key not in reads]:
        raise SpecError(
            f"--{key} says nothing to --method {method}", f"leave it out; {method} reads {_options(method)}"
        )
    if wish.weights is not None and method != "uniform":
        raise SpecError(f"--weights says nothing to --method {method}", f"leave it out; it reads {_options(method)}")
    taken = {key: given[key] if given[key] is not None else default for key, default in reads.items()}
    _require_range(method, taken)
    if method != "uniform":
        return {"made": "average", "method": method, **taken}
    return {"made": "average", "method": method, "weights": _weights(wish.weights, count)}


def _options(method: str) -> str:
    return ", ".join(f"--{key}" for key in (*_READS[method], *(["weights"] if method == "uniform" else [])))


def _require_range(method: str, taken: dict[str, float | None]) -> None:
    decay, t = taken.get("decay"), taken.get("t")
    if decay is not None and not 0 <= decay < 1:
        raise SpecError(f"--decay {decay:g} is outside 0 … 1", "0.9 keeps nine tenths of what came before; 1 keeps all")
    if t is not None and not math.isfinite(t):
        raise SpecError(f"--t {t} is no finite number", "0 is the first model, 1 the second")
    if t is not None and method == "spherical" and not 0 <= t <= 1:
        raise SpecError(f"--t {t:g} is outside 0 … 1", "an arc ends at its models; --method linear goes beyond them")


def _weights(typed: str | None, count: int) -> list[float]:
    """The weights as typed, divided by their sum; equal ones where none were."""
    if typed is None:
        return mean_weights([1.0] * count)
    try:
        weights = [float(word) for word in typed.split(",")]
    except ValueError as error:
        raise SpecError(f"--weights {typed}: not numbers with commas between them", "--weights 1,2,1") from error
    if len(weights) != count:
        raise SpecError(f"--weights {typed} has {len(weights)} weights for {count} models", "give one a model")
    try:
        return mean_weights(weights)
    except ValueError as error:
        raise SpecError(f"--weights {typed}: {error}", "--weights 1,2,1") from error


def _whole_model(project: Project, ref: str) -> Path:
    found = resolve_model(project, ref)
    if found.kind == "adapter":
        raise ArtifactError(
            f"{ref} is an adapter: the mean of two products B·A is not the product of their factors' means",
            f"gptcli checkpoint merge {ref} --name NAME makes a whole model of it, which can be averaged",
        )
    return found.directory


def _open(refs: Sequence[str], directories: list[Path], spec: dict[str, Any]) -> tuple[ForeignModel, dict[str, Any]]:
    """The average, its tensors computed when they are read."""
    for directory in directories:
        check_files(directory)
    models = [HuggingFaceDirectory().open(directory) for directory in directories]
    for ref, directory, model in zip(refs[1:], directories[1:], models[1:], strict=True):
        _require_alike((refs[0], models[0], directories[0]), (ref, model, directory))
    combine = _combination(spec, len(models))
    tensors = {
        name: StoredTensor(first.shape, first.dtype, partial(_combined, combine, name, models))
        for name, first in models[0].tensors.items()
    }
    return dataclasses.replace(models[0], form="average", tensors=tensors), {"averaged_models": len(models)}


def _combination(spec: dict[str, Any], count: int) -> Callable[[Sequence[Tensor]], Tensor]:
    method = spec["method"]
    if method == "spherical":
        return lambda tensors: spherical(tensors[0], tensors[1], spec["t"])
    weights = _shares(spec, count)
    return lambda tensors: weighted(tensors, weights)


def _shares(spec: dict[str, Any], count: int) -> list[float]:
    if spec["method"] == "ema":
        return ema_weights(count, spec["decay"])
    return [1 - spec["t"], spec["t"]] if "t" in spec else list(spec["weights"])


def _combined(combine: Callable[[Sequence[Tensor]], Tensor], name: str, models: Sequence[ForeignModel]) -> Tensor:
    tensors = [model.tensors[name].read() for model in models]
    out = combine(tensors)
    if not bool(torch.isfinite(out).all()) and all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        raise ArtifactError(
            f"{name}: the outcome is too large for {str(out.dtype).removeprefix('torch.')}",
            "choose --t between 0 and 1",
        )
    return out


def _require_alike(first: tuple[str, ForeignModel, Path], other: tuple[str, ForeignModel, Path]) -> None:
    """ArtifactError naming the keys, tensors or files in which two models differ that are to be averaged."""
    one, two = first[1].config, other[1].config
    keys = [field.name for field in dataclasses.fields(one)] if type(one) is type(two) else ["model_type"]
    told = [
        f"{key} {getattr(one, key)} and {getattr(two, key)}" for key in keys if getattr(one, key) != getattr(two, key)
    ]
    if not told:
        pairs = ((name, tensor, other[1].tensors[name]) for name, tensor in first[1].tensors.items())
        told = [
            f"{name} is stored as {str(a.dtype)[6:]} and {str(b.dtype)[6:]}"
            for name, a, b in pairs
            if a.dtype != b.dtype
        ]
    if not told:
        mine, its = tokenizer_sums(first[1]), tokenizer_sums(other[1])
        told = [f"their {file}" for file in sorted({*mine, *its}) if mine.get(file) != its.get(file)]
    if told:
        more = f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
        raise ArtifactError(
            f"{first[0]} and {other[0]} can't be averaged, they differ: {'; '.join(told[:_SHOWN])}{more}",
            "average models of one shape, type and tokenizer; gptcli checkpoint diff shows all that differs",
        )


def tokenizer_sums(model: ForeignModel) -> dict[str, str]:
    """SHA-256 of a model's tokenizer files by name; of JSON its values, however they are laid out."""
    files = model.tokenizer.files if model.tokenizer else ()
    return {path.name: _sum(path) for path in files}


def _sum(path: Path) -> str:
    if path.suffix != ".json":
        return sha256_file(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return sha256_file(path)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _method(spec: dict[str, Any]) -> str:
    shown = [f"{key} {spec[key]:g}" for key in ("t", "decay") if key in spec]
    return ", ".join([spec["method"], *shown])


def _share(spec: dict[str, Any], at: int) -> str:
    """How a model is told in the table: by its share, or as an end of the arc."""
    if spec["method"] == "spherical":
        return f"t = {at}"
    if spec["method"] == "ema":
        return f"{at + 1}."
    return f"{100 * _shares(spec, 2)[at]:.4g} %"
