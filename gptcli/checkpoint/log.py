"""gptcli checkpoint log: who became what, when, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gptcli.artifacts.aliases import LATEST, LOG, Entry, current_aliases, read_log, written_lines
from gptcli.artifacts.project import Project
from gptcli.artifacts.usage import folders
from gptcli.artifacts.versions import is_version
from gptcli.checkpoint.alias import no_alias
from gptcli.errors import ArtifactError

HEADER = ("time", "by", "verb", "what", "")


def log(project: Project, name: str | None = None) -> list[dict[str, Any]]:
    """The changes to all models and runs, or to a model, one of its aliases (MODEL:ALIAS), one of its versions
    (MODEL:1.2.0: what names it) or a run, the oldest first.

    Each has `time`, `by` (user@host), `verb`, `model` or `run`, and what the verb told: version, alias, from, to,
    message … Raises ArtifactError for a name that is none of these, and for a log that can't be read.
    """
    named, colon, what = (name or "").partition(":")
    models = [path for path in folders(project.root / "models") if name is None or path.name == named]
    runs = [path for path in folders(project.root / "runs") if name is None or (path.name == named and not colon)]
    if name is not None and not models and not runs:
        raise ArtifactError(f"there is no model and no run {named}", "gptcli checkpoint list")
    if colon:
        found = [{"model": named, **entry} for entry in _of(models[0], what)]
    else:
        found = [{"model": path.name, **entry} for path in models for entry in read_log(path)]
        found += [{"run": path.name, **entry} for path in runs for entry in written_lines(path / LOG)]
    return sorted(found, key=lambda entry: str(entry.get("time", "")))


def _of(folder: Path, what: str) -> list[Entry]:
    """The lines of an alias of a model, or of what names one of its versions; ArtifactError where it has had neither.

    `latest`, which no line moves, is the version that it follows.
    """
    entries = read_log(folder)
    aliases = current_aliases(folder, entries)
    version = aliases.get(LATEST, "") if what == LATEST else what
    if is_version(version):
        found = [entry for entry in entries if version in (entry.get(key) for key in ("version", "from", "to"))]
        if not found:
            raise ArtifactError(f"{folder.name} has no version {version}, and never had", "gptcli checkpoint list")
        return found
    found = [entry for entry in entries if entry.get("alias") == what]
    if not found:
        raise no_alias(folder.name, what, aliases)
    return found


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
