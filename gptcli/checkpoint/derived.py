"""Runs that verbs make of standing models: their one checkpoint, at step 0, is what the verb computed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gptcli.artifacts.build import SPEC, touch
from gptcli.artifacts.locations import model_input
from gptcli.artifacts.manifest import Input, Inputs, Manifest, manifest_of
from gptcli.artifacts.project import Project
from gptcli.checkpoint.bars import OpenBar
from gptcli.checkpoint.imported import check_written, write_model
from gptcli.checkpoint.one_step_run import CHECKPOINT, Making, end_swap, holds_another_s, make_run
from gptcli.errors import ArtifactError
from gptcli.models.importers import ForeignModel


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
        end_swap(place)
        manifest, begun = _standing(place, force)
        spec = json.loads(json.dumps(wanted.spec))
        is_same = begun is not None and begun == _identity(spec, wanted.inputs)
        if manifest is not None and is_same and not force and manifest_of(place / CHECKPOINT) is not None:
            touch(place)
            return manifest, False
        _require_free(place, manifest, begun, is_same, force)
        model, facts = wanted.open()
        write = partial(_write, project, wanted, model, facts, open_bar)
        return make_run(place, Making(spec, Inputs(wanted.inputs), _bytes(model), write)), True


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


def _write(
    project: Project, wanted: Derivation, model: ForeignModel, facts: dict[str, Any], open_bar: OpenBar, target: Path
) -> dict[str, Any]:
    """Compute the model into `target`; figures for the checkpoint's stats."""
    with open_bar(wanted.spec["made"], 2 * _bytes(model)) as bar:
        found = facts | write_model(model, model.tokenizer, "auto", target, bar.advance)
        check_written(model, "auto", target, bar.advance)
    _require_unchanged(project, wanted.inputs)
    return found


def _bytes(model: ForeignModel) -> int:
    return sum(tensor.bytes for tensor in model.tensors.values())


def _require_unchanged(project: Project, inputs: tuple[Input, ...]) -> None:
    """The models were hashed before they were read: they must still be the same."""
    for entry in inputs:
        path = project.path(entry.path)
        if model_input(project, f"{path.absolute()}", entry.role).content_sha256 != entry.content_sha256:
            raise ArtifactError(f"{entry.path} changed while it was read", "run the same command again")
