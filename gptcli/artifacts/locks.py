"""One process at a time builds an artifact: flock, held for the process's life and freed by the kernel at its end."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gptcli.artifacts.durable import disk_errors
from gptcli.errors import ArtifactError

PATIENCE_SECONDS = 1.0  # whoever asks `is_held` holds the lock for a moment; who builds holds it for longer


@contextmanager
def lock(path: Path, what: str, patience: float = PATIENCE_SECONDS) -> Iterator[None]:
    """Hold the lock at `path`; ArtifactError naming pid and host when another process keeps it for `patience` seconds.

    A patience of more than the usual second is for work that takes moments, which others may be at too.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            _take(descriptor, patience)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
            raise ArtifactError(
                f"{what} is busy: {holder} is working on it", "wait for it to end, or stop it"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _take(descriptor: int, patience: float) -> None:
    """BlockingIOError when another process keeps the lock for so many seconds."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.02)


def is_held(path: Path) -> str | None:
    """Who holds the lock at `path` ("pid 12 on host"), or None.

    Never waits; to find out it shares the lock for a moment, which `lock` outwaits.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
    else:
        return None
    finally:
        os.close(descriptor)
