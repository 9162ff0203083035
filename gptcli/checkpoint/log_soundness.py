"""Whether the logs of models and runs are whole, as far as they can be held against what else says the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gptcli.artifacts.aliases import (
    ALIASES,
    LATEST,
    LINE,
    LOG,
    MADE_BY,
    Entry,
    read_log,
    replay,
    standing_versions,
    without_alias,
    written_lines,
)
from gptcli.artifacts.manifest import manifest_of
from gptcli.artifacts.project import Project
from gptcli.artifacts.usage import folders
from gptcli.errors import ArtifactError

LOG_KIND = "log"  # of an entry, beside the kinds of artifacts
_OF_A_VERSION = (*MADE_BY, "gone", "push")  # verbs whose line names a version
_OF_AN_ALIAS = ("alias", "rollback")


def check_logs(project: Project) -> list[dict[str, Any]]:
    """An entry for each log of a model and of a run, as `verify` gives one for each artifact: that its lines can be
    read and say what such lines do; of a model also that aliases.json and the versions' manifests say the same, and
    that what its aliases point at is there."""
    models = [folder for folder in folders(project.root / "models") if _is_registered(folder)]
    runs = [folder for folder in folders(project.root / "runs") if (folder / LOG).exists()]
    found = []
    for folder in [*models, *runs]:
        problems: list[str] = []
        notes: list[str] = []
        try:
            written = written_lines(folder / LOG)
            problems += [f"{LOG}: line {number} {fault}" for number, fault in _faults(written)]
            if folder in models and not problems:
                problems += _model_problems(folder, written, notes)
        except ArtifactError as error:
            problems.append(f"{LOG}: {error.message}")
        entry = {"path": project.relative(folder), "kind": LOG_KIND, "files": 1, "bytes": 0, "hashed": True}
        found.append({**entry, "problems": problems, "notes": notes})
    return found


def _is_registered(folder: Path) -> bool:
    return any((folder / name).exists() for name in (LOG, ALIASES)) or bool(standing_versions(folder))


def _faults(written: list[Entry]) -> list[tuple[int, str]]:
    """Lines that no verb writes, by number."""
    found = []
    for number, entry in enumerate(written, 1):
        verb = entry.get("verb")
        if not isinstance(verb, str) or not isinstance(entry.get("time"), str):
            found.append((number, "does not say what was done when"))
        elif verb in _OF_A_VERSION and not isinstance(entry.get("version"), str):
            found.append((number, f"is of {verb} and names no version"))
        elif ("alias" in entry) != ("to" in entry) or (verb in _OF_AN_ALIAS and "alias" not in entry):
            found.append((number, "does not say which alias points where"))
    return found


def _model_problems(folder: Path, written: list[Entry], notes: list[str]) -> list[str]:
    entries, standing = read_log(folder), standing_versions(folder)
    problems = []
    for version in sorted(standing):
        line = _own_line(folder / version)
        if line is not None and line not in entries and without_alias(line) not in entries:
            problems.append(f"{LOG}: its line of {version} is not what that version's manifest says")
    aliases = replay(entries)
    for alias, version in sorted(aliases.items()):
        if version not in standing:
            problems.append(f"{LOG}: {alias} points at {version}, which isn't there")
    told = _told(folder / ALIASES)
    if told is None or told == aliases:
        return problems + ([f"{ALIASES}: cannot be read"] if told is None else [])
    if told == replay(written[:-1]) or told == replay(written):
        notes.append(f"{ALIASES} is a change behind {LOG}, as a crash leaves it: the next change mends it")
        return problems
    return [*problems, f"{ALIASES}: does not say what {LOG} says"]


def _own_line(version: Path) -> Entry | None:
    """The line in a version's manifest; None where it has none, or where the manifest can't be read, told elsewhere."""
    try:
        manifest = manifest_of(version)
    except ArtifactError:
        return None
    line = manifest.records.get(LINE) if manifest is not None else None
    return line if isinstance(line, dict) and line.get("version") == version.name else None


def _told(path: Path) -> dict[str, str] | None:
    """What aliases.json says but for `latest`; None where it can't be read."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        return None
    return {name: to for name, to in found.items() if name != LATEST} if isinstance(found, dict) else None
