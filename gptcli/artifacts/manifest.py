"""The manifest: what an artifact is, what it was made from, and the hash of every byte in it.

`content_sha256` stands for what the artifact is; `manifest_sha256`, in the file alone, for the file: SHA-256 of its own
bytes with those 64 digits left out. So a bit that flips in stats or records, which are outside the content, or in a
spelling that reads as the same value, is found too. Manifests from before there was one are read without it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gptcli import __version__
from gptcli.artifacts.durable import canonical_json, json_text, sha256_file, write_text
from gptcli.artifacts.manifest_types import require_types
from gptcli.errors import ArtifactError

MANIFEST = "manifest.json"
_SUM = "manifest_sha256"
# Its line in the file: an outermost key is indented by one space, and no value holds a line's end.
_SUM_LINE = re.compile(rb'\n "manifest_sha256": "([^"\n]*)"')
FORMAT_VERSIONS = {
    "corpus": 2,
    "tokens": 1,
    "run": 1,
    "checkpoint": 1,
    "evaluation": 1,
    "export": 1,
    "version": 1,
}


@dataclass(frozen=True)
class Input:
    """Another artifact, or a source the user named, that this one was made from."""

    role: str
    path: str
    content_sha256: str


@dataclass(frozen=True)
class Source:
    """One raw file; re-hashed only when its bytes or mtime_ns differ from the record."""

    path: str
    bytes: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class Inputs:
    """All that a stage reads: the entries enter the content hash, the sources are the raw files behind them."""

    entries: tuple[Input, ...] = ()
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True)
class FileEntry:
    path: str
    bytes: int
    sha256: str
    rows: int | None = None


@dataclass(frozen=True)
class Manifest:
    """manifest.json. `content_sha256` covers kind, format_version, spec, files and the inputs' hashes;
    `records` (times, memory, workers) is outside it."""

    kind: str
    format_version: int
    gptcli_version: str
    content_sha256: str
    spec: dict[str, Any]
    inputs: tuple[Input, ...]
    files: tuple[FileEntry, ...]
    stats: dict[str, Any]
    records: dict[str, Any]

    def sources(self) -> tuple[Source, ...]:
        """The raw files recorded when this artifact was made."""
        return tuple(Source(**entry) for entry in self.records.get("sources", []))

    def total_bytes(self) -> int:
        return sum(entry.bytes for entry in self.files)


def content_sha256(kind: str, version: int, spec: dict[str, Any], files: tuple[FileEntry, ...], inputs: Inputs) -> str:
    """SHA-256 of the canonical JSON of what decides an artifact's content."""
    content = {
        "kind": kind,
        "format_version": version,
        "spec": spec,
        "files": [asdict(entry) for entry in files],
        "inputs": [entry.content_sha256 for entry in inputs.entries],
    }
    return hashlib.sha256(canonical_json(content)).hexdigest()


def make_manifest(
    kind: str,
    spec: dict[str, Any],
    inputs: Inputs,
    files: tuple[FileEntry, ...],
    stats: dict[str, Any],
    records: dict[str, Any],
) -> Manifest:
    version = FORMAT_VERSIONS[kind]
    return Manifest(
        kind=kind,
        format_version=version,
        gptcli_version=__version__,
        content_sha256=content_sha256(kind, version, spec, files, inputs),
        spec=spec,
        inputs=inputs.entries,
        files=files,
        stats=stats,
        records={**records, "sources": [asdict(source) for source in inputs.sources]} if inputs.sources else records,
    )


def list_files(directory: Path, rows: dict[str, int], without: Collection[str] = ()) -> tuple[FileEntry, ...]:
    """Every file below `directory` but the manifest and what the names `without` hold, hashed, in the order of
    their names."""
    paths = (path.relative_to(directory) for path in directory.rglob("*") if path.is_file())
    found = sorted(path.as_posix() for path in paths if path.parts[0] not in without)
    return tuple(
        FileEntry(name, (directory / name).stat().st_size, sha256_file(directory / name), rows.get(name))
        for name in found
        if name != MANIFEST
    )


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write manifest.json, with the checksum of its own bytes."""
    text = json_text({**asdict(manifest), _SUM: ""})
    digest = hashlib.sha256(text.encode()).hexdigest()
    write_text(directory / MANIFEST, text.replace(f'\n "{_SUM}": ""', f'\n "{_SUM}": "{digest}"', 1))


def read_manifest(directory: Path, kind: str | None = None) -> Manifest:
    """The manifest in `directory`.

    Raises ArtifactError when there is none, when it can't be read or a field of it is of another type, when it was
    written by a newer gptcli, or when the artifact is of another kind.
    """
    path = directory / MANIFEST
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        is_there = directory.exists()
        fault = f"{directory} is no finished artifact: it has no {MANIFEST}"
        raise ArtifactError(
            fault if is_there else f"there is no {kind or 'artifact'} {directory}", "gptcli status"
        ) from error
    except OSError as error:
        raise _unreadable(f"{directory}", error) from error
    return parse_manifest(data, f"{directory}", kind)


def parse_manifest(data: bytes, place: str, kind: str | None = None) -> Manifest:
    """A manifest of its bytes; `place` is told as where it stands. Raises ArtifactError as `read_manifest` does."""
    try:
        raw = json.loads(data)
        require_types(raw, without=(_SUM,))
        manifest = Manifest(
            **{
                **{key: raw[key] for key in raw if key != _SUM},
                "inputs": tuple(Input(**entry) for entry in raw["inputs"]),
                "files": tuple(FileEntry(**entry) for entry in raw["files"]),
            }
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _unreadable(place, error) from error
    if kind is not None and manifest.kind != kind:
        raise ArtifactError(f"{place} holds a {manifest.kind}, not a {kind}", "gptcli status")
    if manifest.format_version > FORMAT_VERSIONS.get(manifest.kind, 0):
        raise ArtifactError(
            f"{place} was written by gptcli {manifest.gptcli_version} in format {manifest.format_version}, "
            f"newer than this gptcli {__version__} reads",
            "pip install --upgrade gptcli",
        )
    return manifest


def _unreadable(place: str, error: Exception) -> ArtifactError:
    return ArtifactError(f"{place}/{MANIFEST} cannot be read: {error}", "build the artifact again with --force")


def manifest_of(directory: Path) -> Manifest | None:
    """The manifest in `directory`, or None when there is no finished artifact."""
    return read_manifest(directory) if (directory / MANIFEST).is_file() else None


def verify_files(directory: Path, manifest: Manifest) -> list[str]:
    """What is wrong with an artifact's bytes, one line a file; an empty list when it is whole."""
    told = ((entry.path, _file_problem(directory / entry.path, entry)) for entry in manifest.files)
    problems = [f"{name}: {problem}" for name, problem in told if problem is not None]
    problem = manifest_problem(manifest, own_sum(directory / MANIFEST))
    if problem is not None:
        problems.append(f"{MANIFEST}: {problem}")
    return problems


def _file_problem(path: Path, entry: FileEntry) -> str | None:
    try:
        if not path.is_file():
            return "missing"
        if path.stat().st_size != entry.bytes:
            return f"{path.stat().st_size} bytes where the manifest has {entry.bytes}"
        return None if sha256_file(path) == entry.sha256 else "its bytes do not match their SHA-256"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"


def content_of(manifest: Manifest) -> str | None:
    """The content_sha256 that a manifest's own fields give, whatever it says; None where no content has such fields."""
    inputs = Inputs(manifest.inputs)
    try:
        return content_sha256(manifest.kind, manifest.format_version, manifest.spec, manifest.files, inputs)
    except ValueError:  # a number out of range, which nothing writes
        return None


def manifest_problem(manifest: Manifest, is_sound: bool | None) -> str | None:
    """What is wrong with a manifest by its own checksums, None where nothing is; `is_sound`: what `own_sum` or
    `sum_matches` says of its bytes."""
    if content_of(manifest) != manifest.content_sha256:
        return "content_sha256 does not match its own fields"
    return "its bytes do not match its manifest_sha256" if is_sound is False else None


def own_sum(path: Path) -> bool | None:
    """Whether a manifest's bytes are those that it was written with; None where it was written without a checksum, or
    isn't there."""
    try:
        return sum_matches(path.read_bytes())
    except OSError:
        return None


def sum_matches(data: bytes) -> bool | None:
    """Whether a manifest's bytes fit the checksum in them; None where there is none."""
    found = _SUM_LINE.search(data)
    if found is None:
        return None
    blank = data[: found.start(1)] + data[found.end(1) :]
    return found[1] == hashlib.sha256(blank).hexdigest().encode()
