"""gptcli checkpoint prune"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from gptcli.artifacts.build import SPEC
from gptcli.artifacts.durable import replace
from gptcli.artifacts.manifest import manifest_of
from gptcli.artifacts.project import Project
from gptcli.checkpoint.registry import Checkpoint, Run, artifact_directories, read_run
from gptcli.console import Report, human_bytes
from gptcli.errors import ArtifactError

DISCARDED = "discarded"  # .step-00000100.discarded is on its way out, and no checkpoint any more


def prune(project: Project, name: str, keep: int, every: int = 0, dry_run: bool = False) -> Report:
    """Delete a run's checkpoints but the latest `keep` and every multiple of `every` steps.

    The best, the latest, and those that a version, an adapter or a run was made from always stay. Raises
    ArtifactError when there is no such run or when it is being trained.
    """
    path = project.place("runs", name)
    if "/" in name or not path.is_dir():
        raise ArtifactError(f"there is no run {name}", "gptcli checkpoint list")
    if dry_run:
        return _report(project, *_split(project, read_run(path), keep, every), dry_run=True)
    with project.lock("runs", name):
        kept, dropped = _split(project, read_run(path), keep, every)
        report = _report(project, kept, dropped, dry_run=False)
        for checkpoint in dropped:
            discarded = checkpoint.path.with_name(f".{checkpoint.path.name}.{DISCARDED}")
            replace(checkpoint.path, discarded)
        for leftover in (path / "checkpoints").glob(f".*.{DISCARDED}"):  # an interrupted prune's too
            shutil.rmtree(leftover)
    return report


def _split(
    project: Project, run: Run, keep: int, every: int
) -> tuple[list[tuple[Checkpoint, list[str]]], list[Checkpoint]]:
    """Those that stay, with the reasons, and those that go."""
    used = _used(project)
    newest = {checkpoint.step for checkpoint in run.checkpoints[-keep:]}
    kept, dropped = [], []
    for checkpoint in run.checkpoints:
        reasons = ["best"] if checkpoint.step == run.best else []
        reasons += ["latest"] if checkpoint.step == run.latest else []
        reasons += [f"one of the latest {keep}"] if checkpoint.step in newest and keep > 1 else []
        reasons += [f"a multiple of {every}"] if every and checkpoint.step % every == 0 else []
        reasons += [f"{user} was made from it" for user in used.get(project.relative(checkpoint.path), [])]
        if reasons:
            kept.append((checkpoint, reasons))
        else:
            dropped.append(checkpoint)
    return kept, dropped


def _used(project: Project) -> dict[str, list[str]]:
    """Which checkpoints are inputs of versions, checkpoints and runs, by path; evaluations and exports need none."""
    users: dict[str, list[str]] = {}
    for directory in artifact_directories(project):
        manifest = manifest_of(directory)
        if manifest is not None and manifest.kind not in ("evaluation", "export"):
            for entry in manifest.inputs:
                users.setdefault(entry.path, []).append(project.relative(directory))
    for started in sorted((project.root / "runs").glob(f"*/{SPEC}")):  # a run that has not ended
        for path in _inputs_of(started):
            users.setdefault(path, []).append(project.relative(started.parent))
    return users


def _inputs_of(started: Path) -> list[str]:
    try:
        return [str(entry["path"]) for entry in json.loads(started.read_text(encoding="utf-8"))["inputs"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{started} cannot be read, so what it needs is not known: {error}", "mend or remove that run first"
        ) from error


def _report(
    project: Project, kept: list[tuple[Checkpoint, list[str]]], dropped: list[Checkpoint], dry_run: bool
) -> Report:
    freed = sum(_freed(checkpoint.path) for checkpoint in dropped)
    figures: dict[str, Any] = {
        "dry_run": dry_run,
        "dropped": [project.relative(checkpoint.path) for checkpoint in dropped],
        "kept": {project.relative(checkpoint.path): reasons for checkpoint, reasons in kept},
        "freed_bytes": freed,
    }
    rows = [(f"step {checkpoint.step}", f"stays: {', '.join(reasons)}") for checkpoint, reasons in kept]
    rows += [(f"step {checkpoint.step}", "would go" if dry_run else "gone") for checkpoint in dropped]
    verb = "would free" if dry_run else "freed"
    title = f"{len(dropped)} of {len(dropped) + len(kept)} checkpoints {'would go' if dry_run else 'are gone'}"
    return Report(f"{title}, {verb} {human_bytes(freed)}", "", figures, sorted(rows, key=lambda row: int(row[0][5:])))


def _freed(directory: Path) -> int:
    """Bytes that deleting a directory gives back: files with another name elsewhere give none."""
    stats = [path.stat() for path in directory.rglob("*") if path.is_file()]
    return sum(found.st_size for found in stats if found.st_nlink == 1)
