"""Where a model comes from: manifests' inputs followed back to the raw source files."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from gptcli.artifacts.manifest import Input, Manifest, manifest_of
from gptcli.artifacts.project import Project
from gptcli.console import human_bytes
from gptcli.errors import ArtifactError

_SHOWN_SOURCES = 3


def lineage(project: Project, manifest: Manifest) -> list[dict[str, Any]]:
    """The inputs of an artifact, each with `state` (unchanged, changed, gone, damaged, or source for raw files), its
    own `inputs`, and the `sources` recorded when it was made."""
    return [_entry(project, entry, manifest) for entry in manifest.inputs]


def _entry(project: Project, entry: Input, owner: Manifest) -> dict[str, Any]:
    found: dict[str, Any] = {"role": entry.role, "path": entry.path, "content_sha256": entry.content_sha256}
    try:
        manifest = manifest_of(project.path(entry.path))
    except ArtifactError:
        return {**found, "state": "damaged"}
    if manifest is None:
        mine = [asdict(source) for source in owner.sources() if _is_of(source.path, entry.path)]
        if mine:
            return {**found, "state": "source", "sources": mine}
        return {**found, "state": "directory" if project.path(entry.path).exists() else "gone"}
    if manifest.content_sha256 != entry.content_sha256:
        return {**found, "state": "changed"}
    return {**found, "state": "unchanged", "kind": manifest.kind, "inputs": lineage(project, manifest)}


def _is_of(source: str, typed: str) -> bool:
    """Whether a raw file was found through what the user typed; a glob or a scheme claims every file below its root."""
    root = typed.split("*")[0].split("?")[0].split("[")[0].rstrip("/")
    return source == typed or source.startswith(root) or (typed.startswith("python:") and source.startswith("python:"))


def lineage_rows(entries: list[dict[str, Any]], depth: int = 0) -> list[tuple[str, str]]:
    """The lineage as indented rows for a person; an artifact named twice is opened once."""
    return _rows(entries, depth, set())


def _rows(entries: list[dict[str, Any]], depth: int, seen: set[str]) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for entry in entries:
        if entry["path"] in seen:
            continue
        seen.add(entry["path"])
        label = "  " * depth + ("from" if depth == 0 else "└ from")
        if "sources" in entry:
            rows.append((label, _sources(entry)))
            continue
        note = "" if entry["state"] == "unchanged" else f"  ({entry['state']})"
        rows.append((label, f"{entry['path']}  {entry['content_sha256'][:12]}{note}"))
        rows += _rows(entry.get("inputs", []), depth + 1, seen)
    return rows


def _sources(entry: dict[str, Any]) -> str:
    sources = entry["sources"]
    total = human_bytes(sum(source["bytes"] for source in sources))
    named = ", ".join(source["path"] for source in sources[:_SHOWN_SOURCES])
    more = ", …" if len(sources) > _SHOWN_SOURCES else ""
    return f"{entry['path']}: {len(sources):,} files, {total} ({named}{more})"
