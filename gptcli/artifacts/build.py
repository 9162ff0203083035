"""Building an artifact beside its place, so that to exist is to be whole.

`.NAME.partial` is filled, `manifest.json` is written and fsynced last, then the folder takes its name. From the
manifest on the new artifact counts: whatever cuts the rest short, `repair` ends it. An artifact that is replaced
steps aside as `.NAME.old` for the moment of the swap.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gptcli.artifacts.durable import PENDING, disk_errors, fsync_directory, fsync_file, replace, write_json
from gptcli.artifacts.manifest import MANIFEST, Inputs, Manifest, list_files, make_manifest, write_manifest

SPEC = "spec.json"
UNITS = "units"
_FOR_RESUME = (SPEC, UNITS)


def partial_path(place: Path) -> Path:
    return place.with_name(f".{place.name}.partial")


def old_path(place: Path) -> Path:
    return place.with_name(f".{place.name}.old")


def cache_path(place: Path) -> Path:
    """Where a stage may keep finished parts, named by their content, from one build to the next."""
    return place.with_name(f".{place.name}.units")


def repair(place: Path) -> None:
    """Finish a swap that a crash cut short, or undo it where the new artifact isn't whole.

    Call it with the artifact's lock held.
    """
    partial, old = partial_path(place), old_path(place)
    is_free = (place / MANIFEST).is_file() or not place.exists()  # a foreign folder is never replaced
    if (partial / MANIFEST).is_file() and is_free:
        _take_place(place)
    elif old.exists() and not place.exists():
        replace(old, place)
    if old.exists():
        shutil.rmtree(old)


def _take_place(place: Path) -> None:
    """Rid a build whose manifest is written of all that only a resume needs, and give it its name."""
    partial, old = partial_path(place), old_path(place)
    with disk_errors(partial):
        if (partial / UNITS).exists():
            shutil.rmtree(partial / UNITS)
        (partial / SPEC).unlink(missing_ok=True)
        fsync_directory(partial)
    if place.exists():
        if old.exists():
            shutil.rmtree(old)
        replace(place, old)
    replace(partial, place)
    if old.exists():
        shutil.rmtree(old)


def set_aside(place: Path) -> None:
    """Rename what stands at `place` to the first free NAME.N."""
    number = 1
    while place.with_name(f"{place.name}.{number}").exists():
        number += 1
    replace(place, place.with_name(f"{place.name}.{number}"))


class Build:
    """One artifact under construction; make it with `Build.open`."""

    def __init__(self, place: Path, kind: str, spec: dict[str, Any], inputs: Inputs, resumed: bool) -> None:
        self.place = place
        self.kind = kind
        self.spec = spec
        self.inputs = inputs
        self.resumed = resumed
        self.directory = partial_path(place)
        self.units = self.directory / UNITS

    @staticmethod
    def open(place: Path, *, kind: str, spec: dict[str, Any], inputs: Inputs, say: Callable[[str], None]) -> Build:
        """Begin the artifact that will stand at `place`, or go on with an interrupted one.

        Only finished units are kept, and only when spec and inputs are those of the interrupted build; otherwise it
        starts over and `say`s so. The caller holds the artifact's lock.
        """
        directory = partial_path(place)
        wanted = {"kind": kind, "spec": spec, "inputs": [asdict(entry) for entry in inputs.entries]}
        found = _read_spec(directory / SPEC)
        with disk_errors(directory):  # the manifest goes first: without its files it must vouch for nothing
            (directory / MANIFEST).unlink(missing_ok=True)
        resumed = found is not None and found == json.loads(json.dumps(wanted))
        if directory.exists() and not resumed:
            if found is not None:
                say(f"{place.name}: what was begun with another spec or other inputs is started over")
            shutil.rmtree(directory)
        with disk_errors(directory):
            (directory / UNITS).mkdir(parents=True, exist_ok=True)
        if not resumed:
            write_json(directory / SPEC, wanted)
        for path in directory.iterdir():
            if path.name not in _FOR_RESUME:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for pending in (directory / UNITS).rglob(f"*{PENDING}"):
            pending.unlink()
        return Build(place, kind, spec, inputs, resumed)

    def commit(self, stats: dict[str, Any], records: dict[str, Any], rows: dict[str, int] | None = None) -> Manifest:
        """Hash and fsync every file, write the manifest last, and swap the artifact into its place.

        `rows` gives the row counts of those files that have rows, by name. Units and spec.json are none of the
        artifact's files and stay until the manifest is written: hashing takes long, and a kill in it loses no unit.
        """
        with disk_errors(self.directory):
            for path in sorted(self.directory.rglob("*")):
                if path.relative_to(self.directory).parts[0] not in _FOR_RESUME:
                    fsync_file(path)
        files = list_files(self.directory, rows or {}, without=_FOR_RESUME)
        manifest = make_manifest(self.kind, self.spec, self.inputs, files, stats, records)
        write_manifest(self.directory, manifest)
        _take_place(self.place)
        return manifest


def _read_spec(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def touch(directory: Path) -> None:
    """Renew only the manifest's mtime, so that make sees the artifact as up to date."""
    os.utime(directory / MANIFEST)
