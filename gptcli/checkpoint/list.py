"""gptcli checkpoint list: a tree on a terminal, plain columns elsewhere."""

from __future__ import annotations

import sys
from typing import Any

from gptcli.artifacts.aliases import read_aliases
from gptcli.artifacts.locations import ADAPTER_CONFIG
from gptcli.artifacts.project import Project
from gptcli.checkpoint.registry import Checkpoint, Run, Version, find_runs, find_versions
from gptcli.console import human_bytes, print_columns

HEADER = ("model", "val loss", "train loss", "size", "")
_LOSSES = (("val_loss", "val"), ("train_loss", "train"))


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
        "kind": _kind(run),
        "running": project.holder("runs", run.name),
        "best": run.best,
        "latest": run.latest,
        "checkpoints": [_checkpoint(project, checkpoint, versions) for checkpoint in run.checkpoints],
    }


def _kind(run: Run) -> str:
    """How a run's weights came to be: trained, adapter, imported, or the verb that made them; "" where there are none
    yet."""
    if not run.checkpoints:
        return ""
    last = run.checkpoints[-1]
    spec = last.manifest.spec if last.manifest is not None else {}
    if spec.get("made"):
        return str(spec["made"])
    if (last.path / ADAPTER_CONFIG).is_file():
        return "adapter"
    return "imported" if "form" in spec else "trained"


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


def print_models(found: dict[str, Any]) -> None:
    """What `list_models` found, on stdout, for a person."""
    if sys.stdout.isatty():
        _print_tree(found)
    else:
        print_columns(HEADER, table(found))


def _print_tree(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.tree import Tree

    roots = []
    for run in found["runs"]:
        branch = Tree(_line(run["run"], "bold", run["kind"] or "no checkpoint yet", run["running"] and "running"))
        for entry in run["checkpoints"]:
            notes = [word for word in ("best", "latest") if run[word] == entry["step"]]
            branch.add(_leaf(f"@{entry['step']}", entry, [*notes, *entry["versions"]]))
        roots.append(branch)
    for model in found["models"]:
        branch = Tree(_line(model["model"], "bold", "model"))
        for entry in model["versions"]:
            names = [name for name, version in sorted(model["aliases"].items()) if version == entry["version"]]
            origin = [f"from {path}" for path in entry["from"]]
            branch.add(_leaf(f":{entry['version']}", entry, [*names, *origin]))
        roots.append(branch)
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    for root in roots:
        console.print(root)


def _leaf(name: str, entry: dict[str, Any], notes: list[str]) -> Any:
    losses = [f"{label} {_loss(entry[key])}" for key, label in _LOSSES if entry[key] is not None]
    return _line(name, "cyan", *losses, human_bytes(entry["bytes"]), ", ".join(notes), problem=entry.get("problem", ""))


def _line(name: str, style: str, *parts: str | None, problem: str = "") -> Any:
    """A name in its style and what is told of it, dimmed; a name is no markup, whatever is in it."""
    from rich.text import Text

    line = Text().append(name, style).append("  " + "  ".join(part for part in parts if part), "dim")
    return line.append(f"  {problem}", "red") if problem else line


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
    losses = (_loss(entry[key]) for key in ("val_loss", "train_loss"))
    return (name, *losses, human_bytes(entry["bytes"]), ", ".join(note for note in notes if note))


def _loss(value: Any) -> str:
    """A loss as it is shown; what a manifest from elsewhere has in its place, as it is."""
    return f"{value:.4f}" if isinstance(value, int | float) else "" if value is None else str(value)
