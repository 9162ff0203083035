"""What sources from elsewhere share: the project's folder of downloads, where each file is whole or not there.

Beside a download NAME stand `.NAME.part` (what has come so far), `.NAME.json` (what is known of it) and `.NAME.lock`.
A file once downloaded is kept and used as it is, so that a corpus can be made again; who deletes its folder gets the
present one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptcli.artifacts.durable import disk_errors, replace, sha256_file, write_json
from gptcli.console import human_bytes, human_seconds
from gptcli.errors import ArtifactError

STDIN = "-"
TELL_EVERY = 10.0  # seconds between two lines on how far a download is
TELL_FIRST = 2.0  # seconds before the first of them

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_USERINFO = re.compile(r"(?<=http://)[^/?#\s]*@|(?<=https://)[^/?#\s]*@|(?<=://)[^/?#\s:@]*:[^/?#\s]*@", re.IGNORECASE)


@dataclass(frozen=True)
class Downloads:
    """Where downloads are kept, whether the network may be asked, and who is told about it."""

    cache: Path
    offline: bool = False
    tell: Callable[[str], None] = lambda line: None

    def folder(self, key: str) -> Path:
        """The folder of one source: the first 16 hex digits of the SHA-256 of its name."""
        return self.cache / hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def require_network(self, name: str) -> None:
        """Raise ArtifactError naming a source that is to be downloaded where the network is forbidden."""
        if self.offline:
            raise ArtifactError(f"{name} has not been downloaded yet", "run the same command once without --offline")

    def tell_kept(self, folder: Path) -> None:
        """Say once, when all of a source has come, where it is."""
        self.tell(f"kept in {folder}, delete that to download again")


def is_remote(typed: str) -> bool:
    """Whether a typed source is standard input or has a scheme (`s3://…`): what is no local file."""
    return typed == STDIN or _SCHEME.match(typed) is not None


def without_password(text: str) -> str:
    """A text in which no URL carries a password (or, of http and https, any user name or token before the @)."""
    return _USERINFO.sub("", text)


def beside(target: Path, ending: str) -> Path:
    """The file of a download's own that stands beside it: part, json or lock."""
    return target.with_name(f".{target.name}.{ending}")


def is_kept(target: Path, sha256: str = "") -> bool:
    """Whether a whole download stands at `target`, with the SHA-256 asked for if one is."""
    return target.is_file() and sha256 in ("", _known_sha256(target))


def read_state(path: Path) -> dict[str, Any]:
    """What was written down about a download; nothing where it can't be read."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def exclusive(target: Path, name: str, tell: Callable[[str], None]) -> Iterator[None]:
    """Only one process downloads a file; the others wait for it to end. The kernel frees the lock of a dead one."""
    path = beside(target, "lock")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell(f"waiting for another process that downloads {name}")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def finish(target: Path, name: str, state: dict[str, Any], sha256: str = "") -> None:
    """Make the whole `.part` of a download the file itself. ArtifactError, and no file, for a wrong SHA-256."""
    part = beside(target, "part")
    found, about = sha256_file(part), part.stat()
    if sha256 not in ("", found):
        part.unlink()
        raise ArtifactError(f"{name} has the SHA-256 {found}, not {sha256}", "check the checksum, or the URL")
    write_json(
        beside(target, "json"), {**state, "bytes": about.st_size, "mtime_ns": about.st_mtime_ns, "sha256": found}
    )
    replace(part, target)


def _known_sha256(target: Path) -> str:
    state, about = read_state(beside(target, "json")), target.stat()
    if (state.get("bytes"), state.get("mtime_ns")) == (about.st_size, about.st_mtime_ns):
        return str(state.get("sha256", ""))
    return sha256_file(target)


class Meter:
    """Tells how far a download is: where it goes on, now and then, and at its end; of a short one only its end."""

    def __init__(self, name: str, target: Path, tell: Callable[[str], None]) -> None:
        self._name = name
        self._target = target
        self._tell = tell
        self._began = time.monotonic()
        self._told = self._began + min(TELL_FIRST, TELL_EVERY) - TELL_EVERY
        self.received = 0  # bytes that came over the wire, those received twice counted twice

    def start(self, begin: int, total: int | None) -> None:
        if begin:
            whole = f" of {human_bytes(total)}" if total is not None else ""
            self._tell(f"going on with {self._name} at {human_bytes(begin)}{whole}")

    def advance(self, count: int, done: int, total: int | None) -> None:
        self.received += count
        now = time.monotonic()
        if now - self._told >= TELL_EVERY:
            self._told = now
            whole = f" of {human_bytes(total)}" if total is not None else ""
            rate = human_bytes(self.received / (now - self._began))
            self._tell(f"downloading {self._name}: {human_bytes(done)}{whole}, {rate}/s")

    def end(self) -> None:
        size = human_bytes(self._target.stat().st_size)
        took = human_seconds(time.monotonic() - self._began)
        self._tell(f"downloaded {self._name}: {size} in {took}")
