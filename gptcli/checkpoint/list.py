"""gptcli checkpoint list"""

from __future__ import annotations

from typing import Any

from gptcli.artifacts.aliases import read_aliases
from gptcli.artifacts.project import Project
from gptcli.checkpoint.registry import Checkpoint, Run, Version, find_runs, find_versions
from gptcli.console import human_bytes

HEADER = ("model", "val loss", "train loss", "size", "")


def list_models(project: Project) -> dict[str, Any]:
    """Runs with their checkpoints, and models with their versions and aliases; JSON-able."""
    versions = find_versions(project)
    models = sorted({version.model for version in versions})
    return {
        "runs": [_run(project, run, versions) for run in find_runs(project)],
        "models": [
            {
                "model": model,
                "aliases": read_aliases(project, model),
                "versions": [_version(project, version) for version in versions if version.model == model],
            }
            for model in models
        ],
    }


def _run(project: Project, run: Run, versions: list[Version]) -> dict[str, Any]:
    return {
        "run": run.name,
        "running": project.holder("runs", run.name),
        "best": run.best,
        "latest": run.latest,
        "checkpoints": [_checkpoint(project, checkpoint, versions) for checkpoint in run.checkpoints],
    }


def _checkpoint(project: Project, checkpoint: Checkpoint, versions: list[Version]) -> dict[str, Any]:
    path = project.relative(checkpoint.path)
    return {
        "step": checkpoint.step,
        "path": path,
        "bytes": checkpoint.manifest.total_bytes() if checkpoint.manifest else 0,
        "train_loss": checkpoint.figures.get("train_loss"),
        "val_loss": checkpoint.figures.get("val_loss"),
        "versions": [f"{version.model}:{version.version}" for version in versions if path in _origins(version)],
        **({"problem": checkpoint.problem} if checkpoint.problem else {}),
    }


def _origins(version: Version) -> set[str]:
    inputs = version.manifest.inputs if version.manifest is not None else ()
    return {entry.path for entry in inputs if entry.role == "checkpoint"}


def _version(project: Project, version: Version) -> dict[str, Any]:
    stats = version.manifest.stats if version.manifest is not None else {}
    return {
        "version": version.version,
        "path": project.relative(version.path),
        "bytes": version.manifest.total_bytes() if version.manifest else 0,
        "train_loss": stats.get("train_loss"),
        "val_loss": stats.get("val_loss"),
        "from": sorted(_origins(version)),
        **({"problem": version.problem} if version.problem else {}),
    }


def table(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """Rows under HEADER."""
    rows: list[tuple[str, ...]] = []
    for run in found["runs"]:
        if not run["checkpoints"]:
            rows.append((run["run"], "", "", "", "no checkpoint yet"))
        for entry in run["checkpoints"]:
            notes = [word for word in ("best", "latest") if run[word] == entry["step"]]
            notes += [*entry["versions"], entry.get("problem", "")]
            if run["running"] and entry["step"] == run["latest"]:
                notes.append(f"running: {run['running']}")
            rows.append(_row(f"{run['run']}@{entry['step']}", entry, notes))
    for model in found["models"]:
        for entry in model["versions"]:
            notes = [name for name, version in sorted(model["aliases"].items()) if version == entry["version"]]
            rows.append(_row(f"{model['model']}:{entry['version']}", entry, [*notes, entry.get("problem", "")]))
    return rows


def _row(name: str, entry: dict[str, Any], notes: list[str]) -> tuple[str, ...]:
    losses = (f"{entry[key]:.4f}" if entry[key] is not None else "" for key in ("val_loss", "train_loss"))
    return (name, *losses, human_bytes(entry["bytes"]), ", ".join(note for note in notes if note))
