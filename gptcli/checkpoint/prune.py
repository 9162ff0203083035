"""gptcli checkpoint prune"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gptcli.artifacts.durable import clear_discarded, discard
from gptcli.artifacts.project import Project
from gptcli.artifacts.usage import used_by
from gptcli.checkpoint.registry import Checkpoint, Run, read_run
from gptcli.console import Report, human_bytes
from gptcli.errors import ArtifactError


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
            discard(checkpoint.path)
        clear_discarded(path / "checkpoints")
    return report


def _split(
    project: Project, run: Run, keep: int, every: int
) -> tuple[list[tuple[Checkpoint, list[str]]], list[Checkpoint]]:
    """Those that stay, with the reasons, and those that go."""
    used = used_by(project)
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
