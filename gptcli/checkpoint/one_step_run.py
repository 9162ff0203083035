"""Runs made in one go, whose one checkpoint, at step 0, is all there is: an import, an average, a merge.

Such a run is built beside its place, in `.NAME.partial`: its spec.json first, which names what it is made from, then
the checkpoint as an artifact, the manifest last. Only then does what stands at the place step aside, and the new run
takes its name. So whatever cuts it short, what stood stands, and the same command goes on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gptcli.artifacts.build import SPEC, Build, partial_path, repair, set_aside, touch
from gptcli.artifacts.durable import PENDING, disk_errors, replace, sha256_file, write_bytes, write_json
from gptcli.artifacts.locations import step_directories
from gptcli.artifacts.manifest import (
    MANIFEST,
    FileEntry,
    Inputs,
    Manifest,
    make_manifest,
    manifest_of,
    verify_files,
    write_manifest,
)
from gptcli.artifacts.rows import METRICS
from gptcli.console import human_bytes
from gptcli.errors import ArtifactError, GptcliError, ResourceError
from gptcli.runtime.device import peak_memory_bytes

CHECKPOINT = "checkpoints/step-00000000"
_SPARE_BYTES = 64 << 20  # of the disk, beside the weights


@dataclass(frozen=True)
class Making:
    """What to make: `write` fills the folder of the checkpoint and returns figures for its stats; `bytes` is about what
    it writes there, and `smaller` a way to write less, if there is one."""

    spec: dict[str, Any]
    inputs: Inputs
    bytes: int
    write: Callable[[Path], dict[str, Any]]
    smaller: str = ""


def end_swap(place: Path) -> None:
    """Give a run its name that is whole and whose command was cut short when the name was free."""
    if not place.exists() and (partial_path(place) / MANIFEST).is_file():
        replace(partial_path(place), place)


def holds_another_s(place: Path) -> bool:
    """Whether a folder without manifest and spec.json holds what no run has left: one cut short in writing its first
    file leaves that file's unfinished name."""
    return place.exists() and not all(path.name.endswith(PENDING) for path in place.iterdir())


def make_run(place: Path, making: Making) -> Manifest:
    """Make the run and give it its name; a whole run that stands there is kept as NAME.1, unless it is the same.

    The caller holds the run's lock and has found that what stands may step aside. Raises ResourceError when the disk
    is too small, before anything is written; what was begun goes when `write` fails.
    """
    partial = partial_path(place)
    try:
        manifest = _build(place, partial, making)
    except GptcliError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return _take_place(place, partial, manifest)


def _build(place: Path, partial: Path, making: Making) -> Manifest:
    """Go on with what the same command has begun, or begin; the manifest of the whole run."""
    target = partial / CHECKPOINT
    told = {"kind": "run", "spec": making.spec, "inputs": [asdict(entry) for entry in making.inputs.entries]}
    told = json.loads(json.dumps(told))
    if partial.exists() and _told(partial / SPEC) != told:
        shutil.rmtree(partial)
    with disk_errors(partial):  # the manifest goes first: without its files it must vouch for nothing
        (partial / MANIFEST).unlink(missing_ok=True)
    repair(target)
    manifest = manifest_of(target)
    if manifest is None or verify_files(target, manifest):
        if target.exists():
            shutil.rmtree(target)
        _require_room(place, making)
        write_json(partial / SPEC, told)
        build = Build.open(target, kind="checkpoint", spec=making.spec, inputs=making.inputs, say=lambda line: None)
        facts = making.write(build.directory)
        manifest = build.commit({"step": 0, "tokens": 0, **facts}, _records())
    write_bytes(partial / METRICS, b"")
    names = (METRICS, SPEC)
    files = [FileEntry(name, (partial / name).stat().st_size, sha256_file(partial / name)) for name in names]
    files += [FileEntry(f"{CHECKPOINT}/{entry.path}", entry.bytes, entry.sha256) for entry in manifest.files]
    stats = {**manifest.stats, "best_step": 0}
    ended = make_manifest("run", making.spec, making.inputs, tuple(files), stats, _records())
    write_manifest(partial, ended)
    return ended


def _told(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _take_place(place: Path, partial: Path, made: Manifest) -> Manifest:
    standing = _whole(place, made)
    if standing is not None:  # made again, and the same came out
        shutil.rmtree(partial)
        touch(place)
        return standing
    if place.exists():
        set_aside(place) if _would_be_lost(place) else shutil.rmtree(place)
    replace(partial, place)
    return made


def _would_be_lost(place: Path) -> bool:
    """Whether a folder has more in it than what was begun: a manifest, a checkpoint, or the spec of a training."""
    if (place / MANIFEST).exists() or step_directories(place):
        return True
    told = _told(place / SPEC)
    spec = told.get("spec") if isinstance(told, dict) else None
    return (place / SPEC).exists() and not (isinstance(spec, dict) and (spec.get("made") or spec.get("form")))


def _whole(place: Path, made: Manifest) -> Manifest | None:
    """The manifest of what stands at the place, if it is all that was made, undamaged."""
    try:
        standing, inner = manifest_of(place), manifest_of(place / CHECKPOINT)
    except ArtifactError:
        return None
    if standing is None or inner is None or standing.content_sha256 != made.content_sha256:
        return None
    return None if verify_files(place, standing) or verify_files(place / CHECKPOINT, inner) else standing


def _require_room(place: Path, making: Making) -> None:
    root = next(folder for folder in place.parents if folder.exists())
    need, free = making.bytes + _SPARE_BYTES, shutil.disk_usage(root).free
    if need > free:
        raise ResourceError(
            f"the model needs about {human_bytes(need)} of disk, {human_bytes(free)} are free",
            "free some space, or point -C at another disk" + making.smaller,
        )


def _records() -> dict[str, Any]:
    created = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {"created": created, "peak_memory_bytes": peak_memory_bytes()}
