"""gptcli checkpoint log: who became what, when, and why."""

from __future__ import annotations

from typing import Any

from gptcli.artifacts.aliases import LOG, read_log, written_lines
from gptcli.artifacts.project import Project
from gptcli.artifacts.usage import folders
from gptcli.errors import ArtifactError

HEADER = ("time", "by", "verb", "what", "")


def log(project: Project, name: str | None = None) -> list[dict[str, Any]]:
    """The changes to all models and runs, or to a model, one of its aliases (MODEL:ALIAS) or a run, the oldest first.

    Each has `time`, `by` (user@host), `verb`, `model` or `run`, and what the verb told: version, alias, from, to,
    message … Raises ArtifactError for a name that is neither, and for a log that can't be read.
    """
    named, _, alias = (name or "").partition(":")
    models = [path for path in folders(project.root / "models") if named in ("", path.name)]
    runs = [path for path in folders(project.root / "runs") if named in ("", path.name) and not alias]
    if name is not None and not models and not runs:
        raise ArtifactError(f"there is no model and no run {named}", "gptcli checkpoint list")
    entries = [{"model": path.name, **entry} for path in models for entry in read_log(path)]
    entries += [{"run": path.name, **entry} for path in runs for entry in written_lines(path / LOG)]
    found = [entry for entry in entries if alias in ("", entry.get("alias"))]
    return sorted(found, key=lambda entry: str(entry.get("time", "")))


def table(entries: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Rows under HEADER."""
    return [
        (str(entry.get("time", "")), str(entry.get("by", "")), str(entry.get("verb", "")), *_told(entry))
        for entry in entries
    ]


def _told(entry: dict[str, Any]) -> tuple[str, str]:
    version = f":{entry['version']}" if "version" in entry else ""
    parts = []
    if "alias" in entry:
        parts.append(f"{entry['alias']}: {entry.get('from') or 'nothing'} → {entry.get('to') or 'nothing'}")
    if "steps" in entry:
        parts.append(f"{len(entry['steps'])} checkpoints: {', '.join(map(str, entry['steps']))}")
    if "address" in entry:
        parts.append(f"{'to' if entry.get('verb') == 'push' else 'from'} {entry['address']}")
    parts += [" ".join(str(entry["message"]).split())] if "message" in entry else []
    return f"{entry.get('model') or entry.get('run')}{version}", "; ".join(parts)
