"""Building an artifact beside its place, so that to exist is to be whole.

`.NAME.partial` is filled, `manifest.json` is written and fsynced last, then the folder takes its name. An artifact
that is replaced steps aside as `.NAME.old` for the moment of the swap; `repair` ends a swap that was cut short.
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


def partial_path(place: Path) -> Path:
    return place.with_name(f".{place.name}.partial")


def old_path(place: Path) -> Path:
    return place.with_name(f".{place.name}.old")


def repair(place: Path) -> None:
    """Finish or undo a swap that a crash cut short. Call it with the artifact's lock held."""
    partial, old = partial_path(place), old_path(place)
    if old.exists() and not place.exists():
        # The old one stepped aside and the new one, whole if it has its manifest, had not yet taken the name.
        replace(partial if (partial / MANIFEST).is_file() else old, place)
    if old.exists():
        shutil.rmtree(old)
    if (partial / MANIFEST).is_file() and not place.exists():
        replace(partial, place)


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
        resumed = found is not None and found == json.loads(json.dumps(wanted))
        if directory.exists() and not resumed:
            if found is not None:
                say(f"{place.name}: an interrupted build with another spec or other inputs is started over")
            shutil.rmtree(directory)
        with disk_errors(directory):
            (directory / UNITS).mkdir(parents=True, exist_ok=True)
        if not resumed:
            write_json(directory / SPEC, wanted)
        for path in directory.iterdir():
            if path.name not in (SPEC, UNITS):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for pending in (directory / UNITS).rglob(f"*{PENDING}"):
            pending.unlink()
        return Build(place, kind, spec, inputs, resumed)

    def commit(self, stats: dict[str, Any], records: dict[str, Any], rows: dict[str, int] | None = None) -> Manifest:
        """Hash and fsync every file, write the manifest last, and swap the artifact into its place.

        `rows` gives the row counts of those files that have rows, by name.
        """
        shutil.rmtree(self.units, ignore_errors=True)
        (self.directory / SPEC).unlink(missing_ok=True)
        with disk_errors(self.directory):
            for path in sorted(self.directory.rglob("*")):
                fsync_file(path)
        files = list_files(self.directory, rows or {})
        manifest = make_manifest(self.kind, self.spec, self.inputs, files, stats, records)
        write_manifest(self.directory, manifest)
        fsync_directory(self.directory)
        self._swap()
        return manifest

    def _swap(self) -> None:
        old = old_path(self.place)
        if self.place.exists():
            replace(self.place, old)
        replace(self.directory, self.place)
        if old.exists():
            shutil.rmtree(old)

    def discard(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)


def _read_spec(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def touch(directory: Path) -> None:
    """Renew only the manifest's mtime, so that make sees the artifact as up to date."""
    os.utime(directory / MANIFEST)
