"""Writes that survive a crash: a temporary name, fsync, rename, fsync of the directory.

A reader therefore sees the old file, the new one or none, never half of one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gptcli.errors import ResourceError

PENDING = ".tmp"  # ends the name of a file that is still being written
DISCARDED = ".discarded"  # ends the name of a folder on its way out


def canonical_json(value: Any) -> bytes:
    """The one JSON text of a value: sorted keys, no spaces, UTF-8, NaN refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex; reads in constant memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_directory(path: Path) -> None:
    """Make the names in a directory last (a rename is durable only when its directory is)."""
    fsync_file(path)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk into a ResourceError that names the place."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(
                f"no space left on the disk while writing {path}",
                "free some space (gptcli checkpoint prune --dry-run shows what can go) and run the same command again",
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise ResourceError(f"cannot write {path}: {error.strerror}", "check the folder's permissions") from error
        raise


def replace(source: Path, target: Path) -> None:
    """Rename within one directory and make the new name last."""
    with disk_errors(target):
        source.replace(target)
        fsync_directory(target.parent)


def link(source: Path, target: Path) -> None:
    """A second name for the same bytes; a copy where the file system can't, or forbids it."""
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copyfile(source, target)


def discard(directory: Path) -> None:
    """Delete a folder so that it is there whole or, under its own name, not at all.

    Cut short it leaves `.NAME.discarded`, which `clear_discarded` removes.
    """
    discarded = directory.with_name(f".{directory.name}{DISCARDED}")
    shutil.rmtree(discarded, ignore_errors=True)
    replace(directory, discarded)
    shutil.rmtree(discarded)


def clear_discarded(parent: Path) -> None:
    """Remove what deletions that were cut short left in a folder."""
    for leftover in parent.glob(f".*{DISCARDED}"):
        shutil.rmtree(leftover)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file atomically and durably; makes its directory if needed."""
    pending = path.with_name(path.name + PENDING)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with pending.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    replace(pending, path)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def json_text(value: Any) -> str:
    """Indented JSON with sorted keys and a closing newline; NaN refused."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write `json_text` of a value, atomically and durably."""
    write_text(path, json_text(value))
