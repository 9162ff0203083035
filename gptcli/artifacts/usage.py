"""Which artifacts others were made from, told by manifests and by the specs of runs that have not ended."""

from __future__ import annotations

import json
from pathlib import Path

from gptcli.artifacts.build import SPEC
from gptcli.artifacts.locations import step_directories
from gptcli.artifacts.manifest import MANIFEST, manifest_of
from gptcli.artifacts.project import FOLDERS, Project
from gptcli.artifacts.versions import is_version
from gptcli.errors import ArtifactError


def artifact_directories(project: Project) -> list[Path]:
    """The directory of every artifact of the project that has a manifest, readable or not, or has lost it (see
    `had_manifest`), in the chain's order."""
    found: list[Path] = []
    for folder in FOLDERS:
        for path in folders(project.root / folder):
            inner = list(step_directories(path).values()) if folder == "runs" else []
            inner += folders(path) if folder == "models" else []
            found += [each for each in [*inner, path] if (each / MANIFEST).exists() or had_manifest(project, each)]
    return found


def had_manifest(project: Project, directory: Path) -> bool:
    """Whether a directory of that name never stood without a manifest: a run's step-* or a model's version takes its
    name when it is whole."""
    match project.relative(directory).split("/"):
        case ["runs", _, "checkpoints", name]:
            return name.startswith("step-")
        case ["models", _, name]:
            return is_version(name)
    return False


def folders(parent: Path) -> list[Path]:
    """The folders in a folder that are no hidden ones, by name."""
    return sorted(path for path in parent.glob("*") if path.is_dir() and not path.name.startswith("."))


def used_by(project: Project) -> dict[str, list[str]]:
    """What was made from each input of the project's artifacts and runs, both as paths from the project's root.

    Evaluations and exports are no users: they stand alone. Raises ArtifactError where a manifest or a run's spec.json
    can't be read, for then what it needs is not known.
    """
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


def checkpoints_in_use(project: Project) -> set[Path]:
    """The folders (resolved) of the checkpoints that a version, an adapter or a run was made from; see `used_by`."""
    runs = (project.root / "runs").resolve()
    paths = {project.path(path).resolve() for path in used_by(project)}
    return {path for path in paths if path.parent.name == "checkpoints" and path.is_relative_to(runs)}


def _inputs_of(started: Path) -> list[str]:
    try:
        return [str(entry["path"]) for entry in json.loads(started.read_text(encoding="utf-8"))["inputs"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{started} cannot be read, so what it needs is not known: {error}", "mend or remove that run first"
        ) from error
