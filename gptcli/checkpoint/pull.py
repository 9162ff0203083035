"""gptcli checkpoint pull: a version fetched from elsewhere."""

from __future__ import annotations

import shutil
from dataclasses import replace as changed
from pathlib import Path

from gptcli.artifacts.aliases import LINE
from gptcli.artifacts.durable import fsync_directory, replace, sha256_file
from gptcli.artifacts.manifest import MANIFEST, FileEntry, Manifest, manifest_of, verify_files, write_manifest
from gptcli.artifacts.project import Project
from gptcli.artifacts.versions import require_name, require_version
from gptcli.checkpoint.adapters import base_of
from gptcli.checkpoint.addresses import source_of
from gptcli.checkpoint.bars import OpenBar
from gptcli.checkpoint.changing import PATIENCE, changing, new_line
from gptcli.checkpoint.incoming import read_incoming
from gptcli.checkpoint.stores import Store
from gptcli.console import Report, human_bytes
from gptcli.errors import ArtifactError, GptcliError, ResourceError, SpecError
from gptcli.inference.adapter_base import adapter_base

INCOMING = ".incoming"


def pull(project: Project, typed: str, name: str | None, offline: bool, open_bar: OpenBar) -> Report:
    """Make models/MODEL/VERSION of a version that stands elsewhere; MODEL is `name`, or what its manifest says.

    Files come into models/MODEL/.VERSION.incoming, each checked; those that an interrupted pull brought stay. Then
    the folder takes its name, and that with its line in the log. Raises SpecError where the place can't be read,
    ArtifactError where no version stands there, where one of that number but of another content stands here or that
    one is damaged, or where what came is not what its manifest says, ResourceError where the disk is too small.
    """
    store = source_of(project, typed, offline)
    manifest = read_incoming(store)
    model, version = name or str(manifest.spec.get("model", "")), str(manifest.spec.get("version", ""))
    try:
        require_name(model, "a model (--name)")
        require_version(version)
    except SpecError as error:
        raise ArtifactError(f"{store.address}/{MANIFEST}: {error.message}", error.hint) from error
    place = project.place("models", model) / version
    with project.lock("models", f"{model}:{version}", PATIENCE):
        is_new = not _stands(place, manifest, store.address)
        if is_new:
            incoming = place.with_name(f".{version}{INCOMING}")
            _receive(store, manifest, incoming, open_bar)
        else:
            _require_whole(project, place)
        line = new_line("pull", version=version, address=store.address)
        with changing(project, model) as registered:  # where it stands already, what a crash left is ended
            if not _stands(place, manifest, store.address):
                _take_name(incoming, place, changed(manifest, records={**manifest.records, LINE: line}))
                registered.append(line)
    base = base_of(place)
    figures = {
        "model": model,
        "version": version,
        "address": store.address,
        "bytes": manifest.total_bytes(),
        "content_sha256": manifest.content_sha256,
        "base": base,
    }
    size = f"{human_bytes(manifest.total_bytes())} in {len(manifest.files)} files, each checked"
    rows = [("from", store.address), ("size", size), *_base_row(project, place, base)]
    title = f"{model}:{version} " + ("pulled" if is_new else "stands already")
    return Report(title, project.relative(place), figures, rows)


def _stands(place: Path, manifest: Manifest, address: str) -> bool:
    found = manifest_of(place)
    if found is None and place.exists():
        raise ArtifactError(f"{place} exists and is no version", "move it away, or choose another --name")
    if found is not None and found.content_sha256 != manifest.content_sha256:
        raise ArtifactError(
            f"{place.parent.name}:{place.name} stands and is another than {address}",
            "a version never changes: --name MODEL keeps it beside",
        )
    return found is not None


def _require_whole(project: Project, place: Path) -> None:
    """ArtifactError where a version that stands is damaged."""
    manifest = manifest_of(place)
    problems = verify_files(place, manifest) if manifest is not None else []
    if problems:
        raise ArtifactError(
            f"{project.relative(place)} stands already and is damaged: {problems[0]}",
            "move it away and pull again, or restore that file",
        )


def _receive(store: Store, manifest: Manifest, incoming: Path, open_bar: OpenBar) -> None:
    """Bring what is missing of a version's files into a folder, and clear away what is none of them."""
    wanted = {entry.path: entry for entry in manifest.files}
    there = [path for path in incoming.rglob("*") if path.is_file()] if incoming.is_dir() else []
    kept = {path.relative_to(incoming).as_posix() for path in there if _is_whole(path, incoming, wanted)}
    missing = [entry for entry in manifest.files if entry.path not in kept]
    need = sum(entry.bytes for entry in missing)
    incoming.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(incoming).free
    if need > free:
        raise ResourceError(
            f"{store.address} takes {human_bytes(need)} of disk, {human_bytes(free)} are free", "free some space"
        )
    with open_bar(f"pull {store.address}", manifest.total_bytes()) as bar:
        bar.advance(manifest.total_bytes() - need)
        for entry in missing:
            store.fetch(entry, incoming / entry.path, bar.advance)
    for path in sorted(incoming.rglob("*"), reverse=True):  # what is inside a folder comes before it
        if path.is_file() and path.relative_to(incoming).as_posix() not in wanted:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _is_whole(path: Path, incoming: Path, wanted: dict[str, FileEntry]) -> bool:
    entry = wanted.get(path.relative_to(incoming).as_posix())
    return entry is not None and path.stat().st_size == entry.bytes and sha256_file(path) == entry.sha256


def _take_name(incoming: Path, place: Path, manifest: Manifest) -> None:
    write_manifest(incoming, manifest)
    for path in incoming.rglob("*"):
        if path.is_dir():
            fsync_directory(path)
    replace(incoming, place)


def _base_row(project: Project, place: Path, base: str | None) -> list[tuple[str, str]]:
    if base is None:
        return []
    try:
        adapter_base(project, place)
    except GptcliError as error:
        return [("base", f"{error.message}: pull or import it, then {error.hint or 'name it in the adapter'}")]
    return [("base", f"{base}, which is here")]
