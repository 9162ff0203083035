"""gptcli checkpoint verify: no bit of an artifact can flip unnoticed.

Every file is listed with its hash in the manifest, the manifest carries its own, a file that is not listed is told, and
so is a manifest that is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gptcli.artifacts.locations import ADAPTER_CONFIG, resolve_model
from gptcli.artifacts.manifest import MANIFEST, Manifest, manifest_of, own_sum, read_manifest, verify_files
from gptcli.artifacts.project import Project
from gptcli.artifacts.usage import artifact_directories, had_manifest
from gptcli.checkpoint.adapters import missing_base
from gptcli.checkpoint.log_soundness import LOG_KIND, check_logs
from gptcli.checkpoint.weights import TORCH_FILES, not_finite
from gptcli.errors import ArtifactError

ALL = "all"
_CHECKPOINTS = "checkpoints"  # in a run's folder: artifacts of their own
_OWN = ("log.jsonl", "timings.jsonl")  # in a run's folder: what goes on being written when the run has ended
_OLD = f"the figures and times in {MANIFEST} have no checksum: an older gptcli wrote it"
Advance = Callable[[int], None]


def verify(
    project: Project, ref: str, finite: bool = True, advance: Advance | None = None, deep: bool = False
) -> list[dict[str, Any]]:
    """Check one model, or every artifact of the project (`all`): each file's hash, the manifest's own, files that the
    manifest does not list, tensors' names and shapes against the config, that weights are finite; with `deep` also that
    each model loads, generates, and computes the same with its cache as without. Of `all` the logs too, of models and
    of runs.

    One entry an artifact: path, kind, files, bytes, problems (empty when it is whole) and notes (what could not be
    checked, and is no damage). `advance` is called with the bytes checked. Raises ArtifactError when the model named
    isn't there.
    """
    found = []
    for directory in _directories(project, ref):
        entry = _check(project, directory, finite, deep)
        if advance is not None:
            advance(entry["bytes"])
        found.append(entry)
    return found + (check_logs(project) if ref == ALL else [])


def bytes_to_check(project: Project, ref: str) -> int:
    """The bytes that `verify` advances by in all."""
    return sum(manifest.total_bytes() for manifest in map(_manifest, _directories(project, ref)) if manifest)


def _directories(project: Project, ref: str) -> list[Path]:
    return artifact_directories(project) if ref == ALL else [resolve_model(project, ref).directory]


def _manifest(directory: Path) -> Manifest | None:
    try:
        return manifest_of(directory)
    except ArtifactError:  # told when it is checked
        return None


def _check(project: Project, directory: Path, finite: bool, deep: bool) -> dict[str, Any]:
    manifest, problems = _hashes(project, directory)
    names = [entry.path for entry in manifest.files] if manifest else _names(directory)
    notes = [_OLD] if manifest and own_sum(directory / MANIFEST) is None else []
    unlisted = _unlisted(directory, manifest) if manifest else []
    told = notes if manifest and manifest.kind == "run" else problems  # a run's folder is a container
    told += [f"{name}: not in the manifest" for name in unlisted]
    broken = {problem.split(":")[0] for problem in problems}
    if not broken & set(names):
        problems += _model_problems(project, directory, deep, notes if manifest is None else problems, notes)
    problems += _weights(directory, names, broken, finite)
    if manifest is None and not _has_safetensors(names) and any(directory.glob(TORCH_FILES)):
        problems += _torch_weights(directory, finite)
    return {
        "path": project.relative(directory),
        "kind": manifest.kind if manifest else "directory",
        "files": len(names),
        "bytes": manifest.total_bytes() if manifest else 0,
        "hashed": manifest is not None,
        "problems": list(dict.fromkeys(problems)),
        "notes": notes,
    }


def _hashes(project: Project, directory: Path) -> tuple[Manifest | None, list[str]]:
    """The manifest and what does not match it; a directory from elsewhere has no manifest, and nothing to match."""
    if not (directory / MANIFEST).exists():
        return None, [f"{MANIFEST}: missing"] if had_manifest(project, directory) else []
    try:
        manifest = read_manifest(directory)
    except ArtifactError as error:
        return None, [f"{MANIFEST}: {error.message}"]
    return manifest, verify_files(directory, manifest)


def _names(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir())


def _unlisted(directory: Path, manifest: Manifest) -> list[str]:
    """Files below an artifact that its manifest says nothing of."""
    is_run = manifest.kind == "run"
    listed = {MANIFEST, *(entry.path for entry in manifest.files), *(_OWN if is_run else ())}
    inside = f"{_CHECKPOINTS}/" if is_run else None
    return [name for name in _names(directory) if name not in listed and not (inside and name.startswith(inside))]


def _model_problems(
    project: Project, directory: Path, deep: bool, unsupported: list[str], notes: list[str]
) -> list[str]:
    """What is wrong with a directory that holds a model, or one beside its adapter; nothing of others.

    A config that gptcli does not compute is told in `unsupported`: of a directory from elsewhere it is no damage. That
    an adapter's base isn't here is none either, and told in `notes`.
    """
    found: list[str] = []
    for home in (directory, directory / "base"):
        is_model = (home / "config.json").is_file() and (
            any(home.glob("model*.safetensors")) or any(home.glob(TORCH_FILES))
        )
        if not is_model and not (home / ADAPTER_CONFIG).is_file():
            continue
        from gptcli.checkpoint.soundness import config_problem, deep_problems, shape_problems

        reason = config_problem(home)
        if reason is not None:
            unsupported.append(f"its tensors can't be held against its config: {reason}")
            continue
        if base := missing_base(project, home):
            notes.append(f"its tensors can't be held against its base: {base} isn't here")
            continue
        problems = shape_problems(project, home)
        if deep and not problems:
            problems = deep_problems(project, home)
        prefix = "" if home == directory else "base: "
        found += [prefix + problem.removeprefix(f"{home}: ") for problem in problems]
    return found


def _weights(directory: Path, names: list[str], broken: set[str], finite: bool) -> list[str]:
    """What is wrong with the safetensors files whose bytes are as written."""
    # A run's manifest names its last checkpoint's files, whose own manifest is checked too.
    own = [name for name in names if not name.startswith(f"{_CHECKPOINTS}/") and name.endswith(".safetensors")]
    problems: list[str] = []
    for name in own:
        if name in broken or not (directory / name).is_file():
            continue
        try:
            bad = not_finite(directory / name) if finite else []
        except ArtifactError as error:
            problems.append(f"{name}: {error.message}")
            continue
        problems += [f"{name}: {tensor} holds values that are not finite" for tensor in bad]
    return problems


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
    if entry["kind"] == LOG_KIND:
        return "; ".join(["its log is whole", *entry["notes"]])
    whole = f"whole ({entry['files']} files)" if entry["hashed"] else "readable; no manifest to check its bytes against"
    return "; ".join([whole, *entry["notes"]])


def require_whole(found: list[dict[str, Any]]) -> None:
    """Raise ArtifactError naming the damaged files."""
    damaged = [f"{entry['path']}/{problem}" for entry in found for problem in entry["problems"]]
    if damaged:
        more = f" (and {len(damaged) - 3} more)" if len(damaged) > 3 else ""
        raise ArtifactError("; ".join(damaged[:3]) + more, "restore these files, or make the artifact again")
