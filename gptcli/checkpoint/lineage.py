"""Where a model comes from: manifests' inputs followed back to the raw source files, with their licences and the tools
that were at work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gptcli.artifacts.manifest import Input, Manifest, manifest_of
from gptcli.artifacts.project import Project
from gptcli.checkpoint.registry import TRAINER
from gptcli.console import human_bytes
from gptcli.errors import ArtifactError

_SHOWN_SOURCES = 3
_STATE = Path(TRAINER) / "state.json"  # of a checkpoint: how and by which torch it was trained


def lineage(project: Project, manifest: Manifest) -> list[dict[str, Any]]:
    """The inputs of an artifact, each with `state` (unchanged, changed, gone, damaged, or source for raw files), its
    own `inputs`, the `sources` recorded when it was made, its `tools` and when it was `created`, and of a corpus its
    `licences`."""
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
    return {
        **found,
        "state": "unchanged",
        "kind": manifest.kind,
        "tools": tools(project.path(entry.path), manifest),
        "created": manifest.records.get("created"),
        **({"licences": _licences(manifest)} if manifest.kind == "corpus" else {}),
        "inputs": lineage(project, manifest),
    }


def tools(directory: Path, manifest: Manifest) -> dict[str, str]:
    """What an artifact was made with: the versions of gptcli and, where it computed with it, of torch."""
    setup = manifest.records.get("setup")
    if setup is None:
        try:
            setup = json.loads((directory / _STATE).read_text(encoding="utf-8")).get("setup")
        except (OSError, ValueError, AttributeError):
            setup = None
    torch = setup.get("torch") if isinstance(setup, dict) else None
    return {"gptcli": manifest.gptcli_version, **({"torch": str(torch)} if torch else {})}


def _licences(manifest: Manifest) -> dict[str, int]:
    """Documents of a corpus by licence, "" where none is stated."""
    found: dict[str, int] = {}
    for source in manifest.stats.get("sources", []):
        name = str(source.get("license") or manifest.spec.get("license") or "")
        found[name] = found.get(name, 0) + int(source.get("documents") or 0)
    return found


def all_licences(entries: list[dict[str, Any]]) -> dict[str, int]:
    """Documents by licence over every corpus of a lineage, each counted once."""
    counts: dict[str, int] = {}
    for entry in _each_once(entries):
        for name, count in entry.get("licences", {}).items():
            counts[name] = counts.get(name, 0) + count
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def all_tools(own: dict[str, str], entries: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Every version of every tool that was at work anywhere in a lineage."""
    found: dict[str, set[str]] = {}
    for each in (own, *(entry.get("tools", {}) for entry in _each_once(entries))):
        for name, version in each.items():
            found.setdefault(name, set()).add(version)
    return {name: sorted(versions) for name, versions in sorted(found.items())}


def _each_once(entries: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    waiting = list(entries)
    while waiting:
        entry = waiting.pop(0)
        if entry["content_sha256"] not in seen:
            seen.add(entry["content_sha256"])
            yield entry
        waiting += entry.get("inputs", [])


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
        licences = f"  {licence_text(entry['licences'])}" if entry.get("licences") else ""
        note = licences if entry["state"] == "unchanged" else f"  ({entry['state']})"
        rows.append((label, f"{entry['path']}  {entry['content_sha256'][:12]}{note}"))
        rows += _rows(entry.get("inputs", []), depth + 1, seen)
    return rows


def licence_text(counts: dict[str, int]) -> str:
    """Licences with their documents, on one line."""
    return ", ".join(f"{name or 'not stated'}: {count:,} documents" for name, count in counts.items())


def _sources(entry: dict[str, Any]) -> str:
    sources = entry["sources"]
    total = human_bytes(sum(source["bytes"] for source in sources))
    named = ", ".join(source["path"] for source in sources[:_SHOWN_SOURCES])
    more = ", …" if len(sources) > _SHOWN_SOURCES else ""
    return f"{entry['path']}: {len(sources):,} files, {total} ({named}{more})"
