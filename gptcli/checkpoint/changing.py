"""Changing what is registered of a model: one process at a time, a line in the log for each change."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gptcli.artifacts.aliases import (
    ALIASES,
    LATEST,
    LOG,
    Entry,
    current_aliases,
    implied_lines,
    now,
    replay,
    written_lines,
)
from gptcli.artifacts.durable import canonical_json, disk_errors, fsync_directory, write_json
from gptcli.artifacts.manifest import manifest_of
from gptcli.artifacts.project import Project
from gptcli.artifacts.versions import require_name
from gptcli.errors import ArtifactError, SpecError

PATIENCE = 60.0  # seconds that a verb waits for another on the same model: each takes moments


def whoami() -> str:
    """Who runs this process: user@host, the user's number where it has no name."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's
        user = f"uid{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def new_line(verb: str, message: str | None = None, **what: Any) -> Entry:
    """A line for a log, of this moment and this user."""
    told = {"message": message} if message else {}
    return {"time": now(), "by": whoami(), "verb": verb, **what, **told}


def append_lines(path: Path, entries: list[Entry]) -> None:
    """Append lines to a log, durably and each whole or not at all; what a crash had cut short at its end goes first.

    Whoever calls holds the lock of what the log is of. Raises ResourceError where the disk is full.
    """
    data = b"".join(canonical_json(entry) + b"\n" for entry in entries)
    with disk_errors(path):
        is_new = not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            end = _whole_bytes(descriptor)
            os.ftruncate(descriptor, end)
            try:
                written = 0
                while written < len(data):
                    written += os.pwrite(descriptor, data[written:], end + written)
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, end)
                raise
        finally:
            os.close(descriptor)
        if is_new:
            fsync_directory(path.parent)


def _whole_bytes(descriptor: int) -> int:
    """How many bytes of a log are whole lines."""
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0).rfind(b"\n") + 1


class Registered:
    """A model's log and aliases while its lock is held; made by `changing`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / LOG
        self.entries = written_lines(self._path)
        self.settle()

    @property
    def aliases(self) -> dict[str, str]:
        """Where each alias points, `latest` included."""
        return current_aliases(self.folder, self.entries)

    def append(self, *entries: Entry) -> None:
        """Change what the lines say: from here on it holds."""
        append_lines(self._path, list(entries))
        self.entries += entries

    def settle(self) -> None:
        """Write down what is implied: the lines of versions that have come to be since, that of this process too."""
        implied = implied_lines(self.folder, self.entries)
        if implied:
            self.append(*implied)

    def point(self, alias: str, version: str | None, verb: str, message: str | None = None) -> bool:
        """Let an alias point at a version, or at none; False where it does already."""
        before = replay(self.entries).get(alias)
        if before != version:
            self.append(new_line(verb, message, alias=alias, **{"from": before, "to": version}))
        return before != version


@contextmanager
def changing(project: Project, model: str) -> Iterator[Registered]:
    """Hold a model's lock and see to it that log and aliases.json agree, before and after.

    What a process left that was killed is cleared away first, be it as good as made: no later command moves an alias
    for it. Raises ArtifactError where another process keeps the lock for PATIENCE seconds, or where the log can't be
    read.
    """
    folder = project.place("models", model)
    with project.lock("models", model, PATIENCE):
        for partial in folder.glob(".*.partial"):  # never had its name: links, which are soon made again
            shutil.rmtree(partial)
        registered = Registered(folder)
        _derive(registered)
        yield registered
        registered.settle()
        _derive(registered)


def _derive(registered: Registered) -> None:
    """Write aliases.json where it says anything else than the log."""
    path, aliases = registered.folder / ALIASES, registered.aliases
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        found = {}
    except (OSError, ValueError):
        found = None
    if found != aliases:
        write_json(path, aliases)


def require_alias(alias: str) -> None:
    """SpecError for what can't be an alias that somebody sets."""
    require_name(alias, "an alias")
    if alias == LATEST:
        raise SpecError(f"{LATEST} follows the highest version by itself", "choose another alias")


def require_version_stands(project: Project, model: str, version: str) -> None:
    """ArtifactError unless the model has that version, whole as far as its manifest tells."""
    if manifest_of(project.place("models", model) / version) is None:
        raise ArtifactError(f"{model} has no version {version}", "gptcli checkpoint list")
