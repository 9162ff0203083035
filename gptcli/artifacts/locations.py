"""How a model is named: a directory, a run's checkpoint, or a version."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from gptcli.artifacts.aliases import read_aliases
from gptcli.artifacts.durable import canonical_json, sha256_file
from gptcli.artifacts.manifest import Input, manifest_of
from gptcli.artifacts.project import Project
from gptcli.artifacts.rows import METRICS, read_rows
from gptcli.artifacts.versions import is_version
from gptcli.errors import ArtifactError

ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class ModelRef:
    """A model on disk. `kind`: checkpoint, adapter (PEFT), version or directory; `label`: as the user named it."""

    directory: Path
    kind: str
    label: str


def step_directories(run: Path) -> dict[int, Path]:
    """The finished checkpoints of a run by step, ascending."""
    found = {int(path.name[5:]): path for path in (run / "checkpoints").glob("step-[0-9]*") if _is_step(path.name[5:])}
    return dict(sorted(found.items()))


def _is_step(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def best_step(run: Path, among: Collection[int] | None = None) -> int:
    """The kept checkpoint (of the steps `among` alone, if given) with the lowest validation loss in metrics.jsonl;
    the latest where none was measured.

    Raises ArtifactError when the run has no checkpoint.
    """
    steps = [step for step in step_directories(run) if among is None or step in among]
    if not steps:
        raise ArtifactError(f"{run} has no checkpoint yet", "let the run reach its first checkpoint")
    measured = [row for row in read_rows(run / METRICS) if "val_loss" in row]
    losses = {row["step"]: row["val_loss"] for row in measured if row.get("step") in steps}
    return min(losses, key=lambda step: (losses[step], step)) if losses else max(steps)


def resolve_model(project: Project, ref: str) -> ModelRef:
    """Find a model by name.

    Anything with `/` or a leading `.` is a directory; a bare word is a run (its latest checkpoint), `RUN@best` and
    `RUN@1000` name one of its checkpoints; `MODEL:1.2.0` and `MODEL:production` name a version.
    Raises ArtifactError when it isn't there, saying what is.
    """
    if "/" in ref or ref.startswith("."):
        directory = project.path(ref)
        if not (directory / "config.json").is_file() and not (directory / ADAPTER_CONFIG).is_file():
            raise ArtifactError(
                f"{directory} is no model directory: it has neither config.json nor {ADAPTER_CONFIG}",
                f"gptcli checkpoint import {ref} --name base makes a run of it"
                if directory.is_file()
                else "name a Hugging Face model directory, a run or a version",
            )
        return ModelRef(directory, _kind(directory, "directory"), ref)
    if ":" in ref:
        return _version(project, ref)
    return _checkpoint(project, ref)


def _kind(directory: Path, otherwise: str) -> str:
    return "adapter" if (directory / ADAPTER_CONFIG).is_file() else otherwise


def _names(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return ", ".join(names) or "none"


def _version(project: Project, ref: str) -> ModelRef:
    model, _, version = ref.partition(":")
    folder = project.place("models", model)
    if not folder.is_dir():
        there = _names(project.root / "models") if (project.root / "models").is_dir() else "none"
        raise ArtifactError(f"there is no model {model} (models: {there})", "gptcli checkpoint tag RUN 1.0.0")
    if not is_version(version):  # whose own name asks no log
        version = read_aliases(project, model).get(version, version)
    directory = folder / version
    if manifest_of(directory) is None:
        raise ArtifactError(f"{model} has no version {version} (versions: {_names(folder)})", "gptcli checkpoint list")
    return ModelRef(directory, _kind(directory, "version"), ref)


def _checkpoint(project: Project, ref: str) -> ModelRef:
    name, _, which = ref.partition("@")
    run = project.place("runs", name)
    if not run.is_dir():
        there = _names(project.root / "runs") if (project.root / "runs").is_dir() else "none"
        raise ArtifactError(f"there is no run {name} (runs: {there})", f"gptcli pretrain --name {name}")
    steps = step_directories(run)
    if which == "best" or not steps:
        step = best_step(run)
    elif not which:
        step = max(steps)
    elif _is_step(which) and int(which) in steps:
        step = int(which)
    else:
        there = ", ".join(map(str, steps))
        raise ArtifactError(f"run {name} has no checkpoint {which} (steps: {there})", "gptcli checkpoint list")
    return ModelRef(steps[step], _kind(steps[step], "checkpoint"), ref)


def model_input(project: Project, ref: str, role: str = "model") -> Input:
    """The manifest entry of a model: its content hash, or a hash over its files where it is a foreign directory."""
    directory = resolve_model(project, ref).directory
    manifest = manifest_of(directory)
    if manifest is not None:
        return Input(role, project.relative(directory), manifest.content_sha256)
    names = sorted(path.name for path in directory.iterdir() if path.is_file())
    listing = [[name, sha256_file(directory / name)] for name in names]
    return Input(role, project.relative(directory), hashlib.sha256(canonical_json(listing)).hexdigest())
