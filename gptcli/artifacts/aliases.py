"""Which version a name such as `production` points at, told by a model's log.

models/MODEL/log.jsonl is the truth: a line a change, appended whole and synced, never altered. A version's own line
stands in its manifest too (`records.log`), so that the rename that makes the version is also the moment of its line
and of the alias it moves: where the line is not in the log yet it is implied, and the next change writes it down.
A version's line moves no alias that has moved since it was written, and none for a version that comes back.
aliases.json is derived, for whoever reads it without gptcli; before there was a log it was the truth, and it is read as
that where there is none: it alone then says what aliases there are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gptcli.artifacts.manifest import MANIFEST, manifest_of
from gptcli.artifacts.project import Project
from gptcli.artifacts.versions import highest_version
from gptcli.errors import ArtifactError

ALIASES = "aliases.json"
LOG = "log.jsonl"
LATEST = "latest"  # the alias that follows the highest version by itself; no line ever moves it
RETURNED = "returned"  # a version that was gone stands again; it brings back no alias
MADE_BY = ("tag", "promote", "pull", RETURNED)  # verbs whose line says that a version came to be
LINE = "log"  # in a version's records: the line by which it came to be

Entry = dict[str, Any]  # a line: time, by, verb, and of version, alias, from, to, message … those that it has


def read_aliases(project: Project, model: str) -> dict[str, str]:
    """The version that each alias of a model points at; ArtifactError when its log can't be read."""
    folder = project.place("models", model)
    return current_aliases(folder, read_log(folder))


def current_aliases(folder: Path, entries: Iterable[Entry]) -> dict[str, str]:
    """What a model's log says of its aliases, and `latest` by the versions that stand in its folder."""
    latest = highest_version(standing_versions(folder))
    return {**replay(entries), **({LATEST: latest} if latest else {})}


def replay(entries: Iterable[Entry]) -> dict[str, str]:
    """Where each alias points at the end of a log."""
    aliases: dict[str, str] = {}
    for entry in entries:
        alias, target = entry.get("alias"), entry.get("to")
        if alias is not None and target is not None:
            aliases[str(alias)] = str(target)
        elif alias is not None:
            aliases.pop(str(alias), None)
    return aliases


def standing_versions(folder: Path) -> list[str]:
    """The versions that a model has, in no order."""
    return [path.parent.name for path in folder.glob(f"*/{MANIFEST}") if not path.parent.name.startswith(".")]


def read_log(folder: Path) -> list[Entry]:
    """A model's log, with the lines that are implied; see `written_lines` and `implied_lines`."""
    written = written_lines(folder / LOG)
    return written + implied_lines(folder, written)


def written_lines(path: Path) -> list[Entry]:
    """The whole lines of a log; one that a crash cut short at its end was never a change.

    Raises ArtifactError naming a line that can't be read.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}", "check the file's permissions") from error
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict):
                raise ValueError("it is no JSON object")
        except ValueError as error:
            raise ArtifactError(
                f"{path}:{number} cannot be read: {error}", "mend that line, or take it out: what it says is then lost"
            ) from error
        entries.append(entry)
    return entries


def implied_lines(folder: Path, written: list[Entry]) -> list[Entry]:
    """What has happened to a model beyond its log's lines: aliases set before there was a log, versions that came to
    be or came back, and versions that somebody took away."""
    is_told = not written and (folder / ALIASES).is_file()
    entries = _earlier_aliases(folder / ALIASES) if is_told else []
    logged: set[str] = set()
    for entry in written:
        if entry.get("verb") in MADE_BY and "version" in entry:
            logged.add(str(entry["version"]))
        elif entry.get("verb") == "gone":
            logged.discard(str(entry.get("version")))
    standing = set(standing_versions(folder))
    entries += [{"time": now(), "verb": "gone", "version": version} for version in sorted(logged - standing)]
    for line in sorted((_line_of(folder, version) for version in standing - logged), key=_when):
        if _making(line) in {_making(entry) for entry in written if entry.get("verb") in MADE_BY}:
            entries.append({"time": now(), "verb": RETURNED, "version": line["version"]})
        else:
            is_current = not is_told and _is_current(line, written, entries)
            entries.append(line if is_current else without_alias(line))
    return entries


def _is_current(line: Entry, written: list[Entry], implied: list[Entry]) -> bool:
    """Whether a version's line can be the model's last change, which a crash kept out of the log: nothing was logged
    after it, and the alias points where the line moved it from."""
    is_last = not written or str(written[-1].get("time", "")) <= str(line["time"])
    return is_last and line.get("from") == replay([*written, *implied]).get(str(line.get("alias")))


def without_alias(line: Entry) -> Entry:
    """A line as far as it moves no alias."""
    return {key: value for key, value in line.items() if key not in ("alias", "from", "to")}


def _making(line: Entry) -> tuple[str, str]:
    """What tells a version's coming to be from that of another by its number."""
    return str(line.get("version")), str(line.get("time"))


def _when(entry: Entry) -> tuple[str, str]:
    return str(entry["time"]), str(entry["version"])


def _earlier_aliases(path: Path) -> list[Entry]:
    try:
        found = {str(name): str(version) for name, version in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"{path} cannot be read: {error}", "delete it and set its names again: gptcli checkpoint alias"
        ) from error
    why = f"as {ALIASES} had it"
    return [
        {"time": now(), "verb": "alias", "alias": name, "from": None, "to": version, "message": why}
        for name, version in sorted(found.items())
        if name != LATEST
    ]


def _line_of(folder: Path, version: str) -> Entry:
    """The line by which a version came to be; of one from before there was a log what its manifest tells."""
    try:
        manifest = manifest_of(folder / version)
    except ArtifactError:  # whoever opens the version is told what is wrong with it
        manifest = None
    records = manifest.records if manifest is not None else {}
    line = records.get(LINE)
    if isinstance(line, dict) and line.get("version") == version and line.get("verb") in MADE_BY and "time" in line:
        return line
    return {"time": str(records.get("created", "")), "verb": "tag", "version": version}


def now() -> str:
    """The time as logs and manifests have it: UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
