"""gptcli checkpoint verify"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gptcli.artifacts.locations import resolve_model
from gptcli.artifacts.manifest import Manifest, read_manifest, verify_files
from gptcli.artifacts.project import Project
from gptcli.artifacts.usage import artifact_directories
from gptcli.checkpoint.weights import TORCH_FILES, not_finite
from gptcli.errors import ArtifactError

ALL = "all"


def verify(
    project: Project, ref: str, finite: bool = True, advance: Callable[[int], None] | None = None
) -> list[dict[str, Any]]:
    """Check every hash of one model, or of every artifact of the project (`all`), and that weights are finite.

    One entry an artifact: path, kind, files, bytes, problems (empty when it is whole). `advance` is called with the
    bytes checked. Raises ArtifactError when the model named isn't there.
    """
    if ref == ALL:
        return [_check(project, directory, finite, advance) for directory in artifact_directories(project)]
    return [_check(project, resolve_model(project, ref).directory, finite, advance)]


def _check(project: Project, directory: Path, finite: bool, advance: Callable[[int], None] | None) -> dict[str, Any]:
    manifest, problems = _hashes(directory)
    names = [entry.path for entry in manifest.files] if manifest else [path.name for path in directory.iterdir()]
    # A run's manifest names its last checkpoint's files, whose own manifest is checked too.
    own = [name for name in names if not name.startswith("checkpoints/")]
    weights = [name for name in own if name.endswith(".safetensors") and (directory / name).is_file()]
    broken = {problem.split(":")[0] for problem in problems}
    for name in weights:
        if name not in broken:
            problems += _weights(directory, name, finite)
    if manifest is None and not _has_safetensors(names) and any(directory.glob(TORCH_FILES)):
        problems += _torch_weights(directory, finite)
    size = manifest.total_bytes() if manifest else 0
    if advance is not None:
        advance(size)
    return {
        "path": project.relative(directory),
        "kind": manifest.kind if manifest else "directory",
        "files": len(names),
        "bytes": size,
        "hashed": manifest is not None,
        "problems": problems,
    }


def _hashes(directory: Path) -> tuple[Manifest | None, list[str]]:
    """The manifest and what does not match it; a directory from elsewhere has no manifest, and nothing to match."""
    if not (directory / "manifest.json").exists():
        return None, []
    try:
        manifest = read_manifest(directory)
    except ArtifactError as error:
        return None, [error.message]
    return manifest, verify_files(directory, manifest)


def _weights(directory: Path, name: str, finite: bool) -> list[str]:
    try:
        bad = not_finite(directory / name) if finite else []
    except ArtifactError as error:
        return [f"{name}: {error.message}"]
    return [f"{name}: {tensor} holds values that are not finite" for tensor in bad]


def _has_safetensors(names: list[str]) -> bool:
    """Whether the weights are in safetensors, which models are opened from before any other form."""
    return any(name.startswith("model") and name.endswith(".safetensors") for name in names)


def _torch_weights(directory: Path, finite: bool) -> list[str]:
    from gptcli.checkpoint.torch_weights import not_finite_in, parameters_of

    try:
        bad = not_finite_in(directory) if finite else []
        if not finite:
            parameters_of(directory)
    except ArtifactError as error:
        return [error.message]
    return [f"{name} holds values that are not finite" for name in bad]


def table(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Path and verdict of every artifact."""
    return [(entry["path"], _verdict(entry)) for entry in found]


def _verdict(entry: dict[str, Any]) -> str:
    if entry["problems"]:
        return "DAMAGED: " + "; ".join(entry["problems"])
    return f"whole ({entry['files']} files)" if entry["hashed"] else "readable; no manifest to check its bytes against"


def require_whole(found: list[dict[str, Any]]) -> None:
    """Raise ArtifactError naming the damaged files."""
    damaged = [f"{entry['path']}/{problem}" for entry in found for problem in entry["problems"]]
    if damaged:
        more = f" (and {len(damaged) - 3} more)" if len(damaged) > 3 else ""
        raise ArtifactError("; ".join(damaged[:3]) + more, "restore these files, or make the artifact again")
