"""What training has left on disk: runs, their checkpoints, tagged versions and their aliases. Reads JSON only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptcli.artifacts.locations import best_step, step_directories
from gptcli.artifacts.manifest import Manifest, manifest_of
from gptcli.artifacts.project import Project
from gptcli.artifacts.rows import METRICS, read_rows
from gptcli.artifacts.usage import folders
from gptcli.artifacts.versions import version_order
from gptcli.errors import ArtifactError

TRAINER = "trainer"  # in a checkpoint: what its training goes on with


@dataclass(frozen=True)
class Checkpoint:
    """One step of a run; `problem` says why its manifest can't be read."""

    step: int
    path: Path
    manifest: Manifest | None
    figures: dict[str, Any]
    problem: str = ""


@dataclass(frozen=True)
class Run:
    """A run and what it keeps; `best` is None where no checkpoint stands."""

    name: str
    path: Path
    checkpoints: list[Checkpoint]
    best: int | None

    @property
    def latest(self) -> int | None:
        return self.checkpoints[-1].step if self.checkpoints else None


@dataclass(frozen=True)
class Version:
    """models/MODEL/VERSION."""

    model: str
    version: str
    path: Path
    manifest: Manifest | None
    problem: str = ""


def _manifest_or_problem(directory: Path) -> tuple[Manifest | None, str]:
    try:
        return manifest_of(directory), ""
    except ArtifactError as error:
        return None, error.message


def find_runs(project: Project) -> list[Run]:
    """Every run with its checkpoints, by name."""
    return [read_run(path) for path in folders(project.root / "runs")]


def read_run(path: Path) -> Run:
    """One run's checkpoints, by step."""
    measured = metrics_by_step(path)
    checkpoints = []
    for step, directory in step_directories(path).items():
        manifest, problem = _manifest_or_problem(directory)
        stats = manifest.stats if manifest is not None else {}
        checkpoints.append(Checkpoint(step, directory, manifest, {**stats, **measured.get(step, {})}, problem))
    return Run(path.name, path, checkpoints, best_step(path) if checkpoints else None)


def metrics_by_step(run: Path) -> dict[int, dict[str, Any]]:
    """All that metrics.jsonl says of a step, its rows laid over one another."""
    found: dict[int, dict[str, Any]] = {}
    for row in read_rows(run / METRICS):
        if "step" in row:  # a line that somebody else wrote may lack it
            found.setdefault(row["step"], {}).update(row)
    return found


def figures_of(directory: Path, manifest: Manifest | None) -> dict[str, Any]:
    """A model's own figures, and for a run's checkpoint what the run measured at its step."""
    stats = dict(manifest.stats) if manifest is not None else {}
    if directory.parent.name == "checkpoints" and "step" in stats:
        stats.update(metrics_by_step(directory.parents[1]).get(stats["step"], {}))
    return stats


def find_versions(project: Project) -> list[Version]:
    """Every tagged version, by model and ascending version."""
    return [
        Version(folder.name, path.name, path, *_manifest_or_problem(path))
        for folder in folders(project.root / "models")
        for path in sorted(folders(folder), key=lambda path: version_order(path.name))
    ]
