"""Runs that verbs make of standing models: their one checkpoint, at step 0, is what the verb computed.

Such a run is begun as training begins one: its spec.json first, which names what it is made from, then the checkpoint
as an artifact, the manifest last. So whatever cuts it short, the same command goes on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gptcli.artifacts.build import SPEC, Build, repair, set_aside, touch
from gptcli.artifacts.durable import sha256_file, write_bytes, write_json
from gptcli.artifacts.locations import model_input
from gptcli.artifacts.manifest import (
    FileEntry,
    Input,
    Inputs,
    Manifest,
    make_manifest,
    manifest_of,
    verify_files,
    write_manifest,
)
from gptcli.artifacts.project import Project
from gptcli.artifacts.rows import METRICS
from gptcli.checkpoint.imported import check_written, write_model
from gptcli.checkpoint.importing import CHECKPOINT, OpenBar, holds_another_s
from gptcli.console import human_bytes
from gptcli.errors import ArtifactError, ResourceError
from gptcli.models.importers import ForeignModel
from gptcli.runtime.device import peak_memory_bytes

_SPARE_BYTES = 64 << 20  # of the disk, beside the weights


@dataclass(frozen=True)
class Derivation:
    """What to make: `spec` says how and decides, with the inputs' content, what comes out; `open` gives the model, its
    tensors not yet computed, and figures for the manifest's stats."""

    spec: dict[str, Any]
    inputs: tuple[Input, ...]
    open: Callable[[], tuple[ForeignModel, dict[str, Any]]]


def derive(project: Project, wanted: Derivation, name: str, force: bool, open_bar: OpenBar) -> tuple[Manifest, bool]:
    """Make runs/NAME, or find it made; its manifest, and whether it is new.

    Raises ArtifactError when another run of that name stands and `force` is not given (with it, that run is kept as
    NAME.1), and when what was written can't be read back the same; ResourceError when the disk is too small.
    """
    place = project.place("runs", name)
    for entry in wanted.inputs:
        if project.path(entry.path).resolve().is_relative_to(place.resolve()):
            raise ArtifactError(f"runs/{name} is what it is to be made from", "choose another --name")
    with project.lock("runs", name):
        repair(place / CHECKPOINT)
        manifest, begun = _standing(place, force)
        spec = json.loads(json.dumps(wanted.spec))
        is_same = begun is not None and begun == _identity(spec, wanted.inputs)
        if manifest is not None and is_same and not force and manifest_of(place / CHECKPOINT) is not None:
            touch(place)
            return manifest, False
        _require_free(place, manifest, begun, is_same, force)
        model, facts = wanted.open()
        _require_room(project, model)
        if force and place.exists() and (manifest is not None or not is_same):
            set_aside(place)
        return _make(project, place, spec, wanted, model, facts, open_bar), True


def _standing(place: Path, force: bool) -> tuple[Manifest | None, tuple[Any, ...] | None]:
    """The manifest of what stands at the place, and what it was made from or begun with.

    Raises ArtifactError for a folder that is no run, and without `force` for one that can't be read.
    """
    try:
        manifest = manifest_of(place)
        if manifest is not None:
            return manifest, _identity(manifest.spec, manifest.inputs)
        if not (place / SPEC).is_file():
            if holds_another_s(place):
                raise ArtifactError(
                    f"{place} exists and is no run of gptcli's", "move it away, or choose another --name"
                )
            return None, None
        try:
            told = json.loads((place / SPEC).read_text(encoding="utf-8"))
            return None, _identity(told["spec"], tuple(Input(**entry) for entry in told["inputs"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"{place / SPEC} can't be read: {error}", "--force starts over and keeps what stands under another name"
            ) from error
    except ArtifactError:
        if not force or not ((place / SPEC).is_file() or (place / "manifest.json").is_file()):
            raise
        return None, None


def _identity(spec: dict[str, Any], inputs: tuple[Input, ...]) -> tuple[Any, ...]:
    return spec, [(entry.role, entry.content_sha256) for entry in inputs]


def _require_free(
    place: Path, manifest: Manifest | None, begun: tuple[Any, ...] | None, is_same: bool, force: bool
) -> None:
    """Raise ArtifactError when what stands is something else, and would be lost."""
    if force or begun is None or (manifest is None and (is_same or begun[0].get("made"))):
        return  # what such a verb has begun and not ended holds nothing that is lost by starting over
    what = f"made by checkpoint {begun[0]['made']}" if begun[0].get("made") else "a run that was trained or imported"
    otherwise = " and its checkpoint is gone" if is_same else " otherwise" if begun[0].get("made") else ""
    raise ArtifactError(
        f"{place} stands already and is {what}{otherwise}",
        "--force keeps what stands under another name; or choose another --name",
    )


def _require_room(project: Project, model: ForeignModel) -> None:
    need = sum(tensor.bytes for tensor in model.tensors.values()) + _SPARE_BYTES
    free = shutil.disk_usage(project.root).free
    if need > free:
        raise ResourceError(
            f"the model needs about {human_bytes(need)} of disk, {human_bytes(free)} are free",
            "free some space, or point -C at another disk",
        )


def _make(
    project: Project,
    place: Path,
    spec: dict[str, Any],
    wanted: Derivation,
    model: ForeignModel,
    facts: dict[str, Any],
    open_bar: OpenBar,
) -> Manifest:
    inputs, target = Inputs(wanted.inputs), place / CHECKPOINT
    told = [asdict(entry) for entry in wanted.inputs]
    write_json(place / SPEC, {"kind": "run", "spec": spec, "inputs": told})
    manifest = manifest_of(target)
    is_ours = manifest is not None and _identity(manifest.spec, manifest.inputs) == _identity(spec, wanted.inputs)
    if manifest is None or not is_ours or verify_files(target, manifest):
        if target.exists():
            shutil.rmtree(target)
        build = Build.open(target, kind="checkpoint", spec=spec, inputs=inputs, say=lambda line: None)
        with open_bar(spec["made"], 2 * sum(tensor.bytes for tensor in model.tensors.values())) as bar:
            facts |= write_model(model, model.tokenizer, "auto", build.directory, bar.advance)
            check_written(model, "auto", build.directory, bar.advance)
        _require_unchanged(project, wanted.inputs)
        manifest = build.commit({"step": 0, "tokens": 0, **facts}, _records())
    write_bytes(place / METRICS, b"")
    names = (METRICS, SPEC)
    files = [FileEntry(name, (place / name).stat().st_size, sha256_file(place / name)) for name in names]
    files += [FileEntry(f"{CHECKPOINT}/{entry.path}", entry.bytes, entry.sha256) for entry in manifest.files]
    ended = make_manifest("run", spec, inputs, tuple(files), {**manifest.stats, "best_step": 0}, _records())
    write_manifest(place, ended)
    return ended


def _require_unchanged(project: Project, inputs: tuple[Input, ...]) -> None:
    """The models were hashed before they were read: they must still be the same."""
    for entry in inputs:
        path = project.path(entry.path)
        if model_input(project, f"{path.absolute()}", entry.role).content_sha256 != entry.content_sha256:
            raise ArtifactError(f"{entry.path} changed while it was read", "run the same command again")


def _records() -> dict[str, Any]:
    created = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {"created": created, "peak_memory_bytes": peak_memory_bytes()}
