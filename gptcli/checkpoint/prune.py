"""gptcli checkpoint prune"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptcli.artifacts.aliases import LOG, written_lines
from gptcli.artifacts.durable import DISCARDED, clear_discarded, replace
from gptcli.artifacts.project import Project
from gptcli.artifacts.usage import used_by
from gptcli.checkpoint.changing import append_lines, new_line
from gptcli.checkpoint.registry import Checkpoint, Run, read_run
from gptcli.console import Report, human_bytes
from gptcli.errors import ArtifactError


@dataclass(frozen=True)
class Rule:
    """What stays of a run: the latest `keep` checkpoints, the `keep_best` with the lowest validation loss, and every
    multiple of `every` steps (0: none for that)."""

    keep: int
    keep_best: int = 1
    every: int = 0


def prune(project: Project, name: str, rule: Rule, dry_run: bool = False) -> Report:
    """Delete a run's checkpoints but those that the rule keeps; what went is a line in runs/NAME/log.jsonl.

    The best, the latest, and those that a version, an adapter or a run was made from always stay. Cut short, it has
    deleted some of them, each whole, and the same command ends it. Raises ArtifactError when there is no such run or
    when it is being trained.
    """
    path = project.place("runs", name)
    if "/" in name or not path.is_dir():
        raise ArtifactError(f"there is no run {name}", "gptcli checkpoint list")
    if dry_run:
        return _report(project, *_split(project, read_run(path), rule), dry_run=True)
    with project.lock("runs", name):
        kept, dropped = _split(project, read_run(path), rule)
        report = _report(project, kept, dropped, dry_run=False)
        checkpoints = path / "checkpoints"
        for checkpoint in dropped:
            replace(checkpoint.path, checkpoints / f".{checkpoint.path.name}{DISCARDED}")
        _write_down(path)
        clear_discarded(checkpoints)
    return report


def _write_down(run: Path) -> None:
    """A line for the checkpoints that have lost their names and are still to be deleted: those of a prune that was
    killed are among them, unless it had come so far as to write their line."""
    names = [path.name for path in (run / "checkpoints").glob(f".step-*{DISCARDED}")]
    steps = sorted(int(name.removesuffix(DISCARDED)[len(".step-") :]) for name in names)
    last = written_lines(run / LOG)[-1:]
    if steps and not (last and set(steps) <= set(last[0].get("steps", []))):
        append_lines(run / LOG, [new_line("prune", steps=steps)])


def _split(project: Project, run: Run, rule: Rule) -> tuple[list[tuple[Checkpoint, list[str]]], list[Checkpoint]]:
    """Those that stay, with the reasons, and those that go."""
    used = used_by(project)
    newest = {checkpoint.step for checkpoint in run.checkpoints[-rule.keep :]}
    measured = [(entry.figures["val_loss"], entry.step) for entry in run.checkpoints if "val_loss" in entry.figures]
    best = {step for _, step in sorted(measured)[: rule.keep_best]}
    kept, dropped = [], []
    for checkpoint in run.checkpoints:
        step = checkpoint.step
        reasons = ["best"] if step == run.best else []
        reasons += [f"one of the best {rule.keep_best}"] if step in best and rule.keep_best > 1 else []
        reasons += ["latest"] if step == run.latest else []
        reasons += [f"one of the latest {rule.keep}"] if step in newest and rule.keep > 1 else []
        reasons += [f"a multiple of {rule.every}"] if rule.every and step % rule.every == 0 else []
        users = dict.fromkeys(used.get(project.relative(checkpoint.path), []))  # a container tells what its parts tell
        reasons += [f"{user} was made from it" for user in users]
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
