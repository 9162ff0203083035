"""What stands in a project: each stage's artifacts held against the recipe and against their own inputs."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any

from gptcli.artifacts.aliases import read_aliases
from gptcli.artifacts.build import old_path, partial_path
from gptcli.artifacts.locations import step_directories
from gptcli.artifacts.project import FOLDERS, STAGES, Project
from gptcli.console import human_bytes, print_columns, print_rows
from gptcli.errors import GptcliError, SpecError
from gptcli.options import Shared
from gptcli.spec import resolve
from gptcli.stage import Standing, spec_layers, what_differs, what_stands

DONE, STALE, RUNNING, INTERRUPTED, MISSING = "done", "stale", "running", "interrupted", "missing"
_HEADER = ("stage", "name", "state", "size", "made", "")
_SHOWN_DIFFERENCES = 3


def survey(project: Project) -> dict[str, Any]:
    """Stages, models and disk use of a project, JSON-able. Changes nothing and takes no lock."""
    return {
        "project": project.name,
        "stages": [_row(project, stage, name) for stage in STAGES for name in _names(project, stage)],
        "models": _models(project),
        "bytes": {folder: _disk_use(project.root / folder) for folder in FOLDERS if (project.root / folder).is_dir()},
        "free_bytes": shutil.disk_usage(project.root).free,
        "notes": [f"{message}; {hint}" for message, hint in project.faults()],
    }


def _module(stage: str) -> Any:
    return importlib.import_module(f"gptcli.{stage.replace('-', '_')}.spec")


def _names(project: Project, stage: str) -> list[str]:
    """The names in the recipe's tables, then those that stand on disk alone."""
    typed = list(project.tables(stage))
    folder = project.root / _module(stage).FOLDER
    found: set[str] = set()
    for path in folder.glob("*"):
        hidden = path.name.startswith(".")
        name = path.name[1:].rpartition(".")[0] if hidden else path.name  # .NAME.partial, .NAME.old; nothing of .NAME
        if path.is_dir() and name and _stage_of(project, path) in (stage, None):
            found.add(name)
    return [*typed, *sorted(found - set(typed))]


def _stage_of(project: Project, path: Path) -> str | None:
    """Which of the two stages a run belongs to; None where the folder alone decides."""
    if path.parent.name != "runs":
        return None
    named = [stage for stage in ("pretrain", "finetune-lora") if path.name in project.tables(stage)]
    if named:
        return named[0]
    try:
        roles = {entry.role for entry in _read(path).inputs}
    except GptcliError:
        roles = set()
    return "finetune-lora" if roles and "tokens" not in roles else "pretrain"


def _read(place: Path) -> Standing:
    """What stands at a place, without complaint about an empty or foreign folder."""
    if not (place / "manifest.json").exists() and not (place / "spec.json").exists():
        return Standing()
    return what_stands(place)


def _row(project: Project, stage: str, name: str) -> dict[str, Any]:
    module = _module(stage)
    try:
        place = project.place(module.FOLDER, name)
    except GptcliError as error:  # a table whose name no folder can have
        nothing = {"bytes": 0, "created": None, "content_sha256": None}
        return {"stage": stage, "name": name, "path": "", "state": MISSING, "detail": error.message, **nothing}
    row: dict[str, Any] = {"stage": stage, "name": name, "path": project.relative(place)}
    try:
        standing, problem = _read(place), ""
    except GptcliError as error:
        standing, problem = Standing(), error.message
    state, detail = _state(project, module, name, place, standing)
    if problem and state != RUNNING:
        state, detail = STALE, problem
    manifest = standing.manifest
    return {
        **row,
        "state": state,
        "detail": detail,
        "bytes": _disk_use(place) + _disk_use(partial_path(place)),
        "created": manifest.records.get("created") if manifest else None,
        "content_sha256": manifest.content_sha256 if manifest else None,
    }


def _state(project: Project, module: Any, name: str, place: Path, standing: Standing) -> tuple[str, str]:
    """One word, and what there is to say about it."""
    holder = project.holder(module.FOLDER, name)
    if holder is not None:
        return RUNNING, ", ".join(part for part in (holder, _progress(place, standing)) if part)
    rebuilding = partial_path(place).exists() or old_path(place).exists()
    if standing.spec is None:
        return (INTERRUPTED, "the same command goes on") if rebuilding else (MISSING, f"gptcli {module.STAGE}")
    if standing.manifest is None:
        return INTERRUPTED, _progress(place, standing)
    if "form" in standing.spec:  # weights of another program, taken in by `checkpoint import`
        return DONE, f"imported from {standing.spec['path']}"
    differences = _what_changed(project, module, name, standing)
    if differences:
        more = len(differences) - _SHOWN_DIFFERENCES
        shown = "; ".join(differences[:_SHOWN_DIFFERENCES])
        return STALE, shown + (f"; and {more} more" if more > 0 else "")
    return DONE, "an interrupted rebuild waits" if rebuilding else ""


def _progress(place: Path, standing: Standing) -> str:
    """How far a run's checkpoints are."""
    steps = step_directories(place)
    total = (standing.spec or {}).get("steps")
    if standing.manifest is not None or standing.spec is None or total is None:
        return ""
    return f"saved up to step {max(steps)} of {total}" if steps else f"no checkpoint yet, {total} steps to do"


def _what_changed(project: Project, module: Any, name: str, standing: Standing) -> list[str]:
    """How a finished artifact differs from what its recipe table says, and which of its inputs changed.

    Keys that the table leaves out may have been set on the command line: they are taken as they were, unless the
    table no longer goes with them.
    """
    try:
        layers = spec_layers(module, project, name, Shared(project=project.root), {}, {})
        try:
            spec, _ = resolve(module.SPEC, [("its manifest", standing.spec or {}), *layers])
        except SpecError:
            spec, _ = resolve(module.SPEC, layers)
        return what_differs(standing, spec, module.inputs(spec, project, standing.manifest))
    except GptcliError as error:  # an input is gone, or the recipe can't be read as it stands
        return [error.message]


def _models(project: Project) -> list[dict[str, Any]]:
    from gptcli.checkpoint.registry import find_versions

    versions = find_versions(project)
    found = []
    for model in sorted({version.model for version in versions}):
        try:
            aliases, problem = read_aliases(project, model), ""
        except GptcliError as error:
            aliases, problem = {}, error.message
        mine = [version for version in versions if version.model == model]
        problems = [problem, *(version.problem for version in mine)]
        found.append(
            {
                "model": model,
                "versions": [version.version for version in mine],
                "aliases": aliases,
                "problems": [text for text in problems if text],
            }
        )
    return found


def _disk_use(folder: Path) -> int:
    """Bytes of all files below a folder; one that has several names is counted once."""
    sizes: dict[tuple[int, int], int] = {}
    for path in folder.rglob("*"):
        try:
            found = path.lstat()
        except OSError:  # gone since the folder was read
            continue
        if path.is_file():
            sizes[found.st_dev, found.st_ino] = found.st_size
    return sum(sizes.values())


def print_survey(found: dict[str, Any]) -> None:
    """The survey as tables for a person."""
    rows: list[tuple[str, ...]] = [
        (
            row["stage"],
            row["name"],
            row["state"],
            human_bytes(row["bytes"]) if row["bytes"] else "",
            (row["created"] or "").replace("T", " ").removesuffix("Z"),
            row["detail"],
        )
        for row in found["stages"]
    ]
    if rows:
        print_columns(_HEADER, rows)
    else:
        print("nothing yet: gptcli corpus SOURCE, or gptcli init DIR for a recipe to start from")
    for model in found["models"]:
        named = {version: [] for version in model["versions"]}  # type: dict[str, list[str]]
        for alias, version in sorted(model["aliases"].items()):
            named.setdefault(version, []).append(alias)
        shown = (version + (f" ({', '.join(names)})" if names else "") for version, names in named.items())
        print_rows([("model", f"{model['model']}: {', '.join(shown)}"), *(("", text) for text in model["problems"])])
    used = ", ".join(f"{folder} {human_bytes(size)}" for folder, size in found["bytes"].items())
    print_rows([("disk", f"{used or 'nothing'}; {human_bytes(found['free_bytes'])} free")])
    print_rows([("note", note) for note in found["notes"]])
