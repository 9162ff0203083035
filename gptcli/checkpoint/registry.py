"""What training has left on disk: runs, their checkpoints, tagged versions and their aliases. Reads JSON only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptcli.artifacts.locations import best_step, step_directories
from gptcli.artifacts.manifest import Manifest, manifest_of
from gptcli.artifacts.project import Project
from gptcli.artifacts.rows import METRICS, read_rows
from gptcli.artifacts.usage import folders
from gptcli.errors import ArtifactError, SpecError

LATEST = "latest"  # the alias that follows the highest version by itself
# Semantic Versioning 2.0.0: three numbers without leading zeros, then perhaps -pre.release and +build.
_IDENTIFIERS = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_VERSION = re.compile(rf"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-({_IDENTIFIERS}))?(?:\+{_IDENTIFIERS})?")
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*")


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


def version_order(version: str) -> tuple[Any, ...]:
    """A sort key of semantic precedence (SemVer 2.0.0 §11); what is no version comes first."""
    match = _VERSION.fullmatch(version)
    if match is None:
        return (-1, version)
    prerelease = tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in (match[4].split(".") if match[4] else [])
    )
    return (*(int(part) for part in match.groups()[:3]), not prerelease, prerelease)


def require_version(version: str) -> None:
    """SpecError unless it is a semantic version."""
    if not _VERSION.fullmatch(version):
        raise SpecError(f"{version} is no semantic version", "write MAJOR.MINOR.PATCH, for example 1.2.0 or 1.3.0-rc.1")


def require_name(name: str, what: str) -> None:
    """SpecError unless a model or an alias may be named so: letters, digits, `_`, `-` and `.`, and no version."""
    if not _NAME.fullmatch(name):
        raise SpecError(f"{name!r} can't name {what}", "use letters, digits, _ - and .")
    if _VERSION.fullmatch(name):
        raise SpecError(f"{name!r} can't name {what}: it reads like a version", "choose a word")


def highest_version(versions: list[str]) -> str | None:
    """The highest release, or the highest pre-release where there is no release."""
    known = [version for version in versions if _VERSION.fullmatch(version)]
    released = [version for version in known if not _VERSION.fullmatch(version)[4]]  # type: ignore[index]
    return max(released or known, key=version_order, default=None)
