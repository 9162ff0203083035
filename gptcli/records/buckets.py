"""Sources that fsspec opens (`s3://`, `gs://`, `sftp://`, `memory://` …): listed once, copied into the cache, kept."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any

from gptcli.artifacts.durable import disk_errors, write_json
from gptcli.errors import GptcliError, SpecError
from gptcli.records.downloads import (
    Downloads,
    Meter,
    beside,
    exclusive,
    finish,
    is_kept,
    read_state,
    without_password,
)
from gptcli.records.patterns import has_magic

_BLOCK = 1 << 20
_OTHERS = ("http", "https", "hf")  # read without fsspec
_USUAL = ("s3", "gs", "az", "abfs", "sftp", "ftp", "file", "memory")
_PACKAGES = {"smbclient": "smbprotocol", "libarchive": "libarchive-c"}  # named otherwise than what they hold
# What file systems tell of a file that changes with its content.
_VERSIONS = (
    "size",
    *("ETag", "etag", "md5Hash", "crc32c", "content_md5"),
    *("mtime", "LastModified", "last_modified", "updated", "modify", "modified", "created"),
)


def bucket_files(typed: str, downloads: Downloads) -> list[tuple[Path, str]]:
    """The files behind an fsspec URL, a folder of it or a glob, copied into the cache, sorted by name.

    Raises SpecError for an unknown scheme, a missing package, nothing found, or a file that can't be read or changed
    since it was listed.
    """
    name = without_password(typed)
    folder = downloads.folder(name)
    path = folder / "listing.json"
    files: dict[str, Any] = read_state(path)
    if not files:
        downloads.require_network(name)
    source = None
    if not files or not all(is_kept(folder / kept) for kept in files):
        downloads.require_network(name)
        source = _Opened(typed, name)
    if not files and source is not None:
        with exclusive(path, name, downloads.tell):
            files = read_state(path) or source.listing()
            write_json(path, files)
    has_come = False
    for kept, about in files.items():
        target = folder / kept
        if source is not None and not is_kept(target):
            with exclusive(target, about["name"], downloads.tell):
                if not is_kept(target):
                    source.copy(about, target, downloads)
                    has_come = True
    if has_come:
        downloads.tell_kept(folder)
    return sorted(((folder / kept, str(about["name"])) for kept, about in files.items()), key=lambda file: file[1])


class _Opened:
    """The file system behind a typed URL; what it raises becomes a SpecError without passwords."""

    def __init__(self, typed: str, name: str) -> None:
        self._name = name
        try:
            import fsspec
        except ImportError as error:
            known = ", ".join(f"{scheme}://" for scheme in (*_OTHERS, *_USUAL))
            raise SpecError(
                f"{name} needs the package fsspec", f"pip install 'gptcli[fsspec]' (sources may begin with {known})"
            ) from error
        scheme = typed.partition("://")[0]
        if scheme not in fsspec.available_protocols():
            known = ", ".join(sorted({*_OTHERS, *fsspec.available_protocols()}))
            raise SpecError(f"{name} is no source that can be read", f"known schemes: {known}; download it first")
        try:
            self._system, self._path = fsspec.core.url_to_fs(typed)
        except ImportError as error:
            package = _package(scheme, error)
            raise SpecError(
                f"{name} needs the package {package}" if package else f"{name} cannot be read yet: {error}",
                f"pip install {package}" if package else "install what it names",
            ) from error
        except Exception as error:
            raise self._failed(name, error) from error
        self._tail = "".join(f"::{link}" for link in name.split("::")[1:])

    def listing(self) -> dict[str, dict[str, Any]]:
        """By its place in the cache, of every file: its name, its path there, bytes and version."""
        try:
            found = self._found()
        except Exception as error:
            raise self._failed(self._name, error) from error
        if not found:
            raise SpecError(f"no file matches {self._name}", "check the address; ** goes deeper")
        return {
            f"{number:06d}/{path.rstrip('/').rpartition('/')[2].lstrip('.') or 'file'}": {
                "name": self._typed_name(path, len(found)),
                "path": path,
                "bytes": info.get("size"),
                "version": _version(info),
            }
            for number, (path, info) in enumerate(sorted(found.items()))
        }

    def _found(self) -> dict[str, dict[str, Any]]:
        if has_magic(self._path):
            return {
                path: info
                for path, info in self._system.glob(self._path, detail=True).items()
                if info["type"] == "file"
            }
        if not self._system.isdir(self._path):
            return {self._path: self._system.info(self._path)}
        inside = len(self._path.rstrip("/")) + 1
        return {
            path: info
            for path, info in self._system.find(self._path, detail=True).items()
            if not any(part.startswith(".") for part in path[inside:].split("/"))
        }

    def _typed_name(self, path: str, count: int) -> str:
        if path == self._path and count == 1:
            return self._name
        if not has_magic(self._path):
            inside = path[len(self._path.rstrip("/")) + 1 :]
            head = self._name.removesuffix(self._tail) if self._tail else self._name
            return f"{head.rstrip('/')}/{inside}{self._tail}"
        return without_password(f"{self._system.unstrip_protocol(path)}{self._tail}")

    def copy(self, about: dict[str, Any], target: Path, downloads: Downloads) -> None:
        """Bring one file into the cache, going on from what an earlier process brought of the same version."""
        name = str(about["name"])
        try:
            if _differ(_version(self._system.info(about["path"])), about["version"]):
                raise SpecError(
                    f"{name} changed since it was listed",
                    f"delete {target.parent.parent} to list it again, then run the same command",
                )
            self._receive(about, target, Meter(name, target, downloads.tell))
        except GptcliError:
            raise
        except Exception as error:
            raise self._failed(name, error) from error

    def _receive(self, about: dict[str, Any], target: Path, meter: Meter) -> None:
        part, name, size = beside(target, "part"), str(about["name"]), about["bytes"]
        begin = part.stat().st_size if part.is_file() else 0
        with self._system.open(about["path"], "rb") as source, disk_errors(part), part.open("ab") as file:
            meter.start(begin, size)
            source.seek(begin)
            done = begin
            while block := source.read(_BLOCK):
                file.write(block)
                done += len(block)
                meter.advance(len(block), done, size)
            file.flush()
            os.fsync(file.fileno())
        if size is not None and done != size:
            part.unlink()
            raise SpecError(
                f"{name} gave {done} bytes where its listing has {size}",
                f"run the same command again; if it stays so, delete {target.parent.parent}",
            )
        finish(target, name, {"url": name, "version": about["version"]})
        meter.end()

    def _failed(self, name: str, error: Exception) -> SpecError:
        told = without_password((str(error).strip().splitlines() or [type(error).__name__])[0])
        if isinstance(error, FileNotFoundError):
            return SpecError(f"there is no file {name}", "check the address")
        return SpecError(f"cannot read {name}: {told}", "check the address and that this user may read it")


def _package(scheme: str, error: ImportError) -> str:
    """What is to be installed: the package that holds the scheme's file system, or that fsspec's own one misses."""
    from fsspec.registry import known_implementations

    module = str(known_implementations.get(scheme, {}).get("class", "fsspec")).partition(".")[0]
    if module == "fsspec":
        module = str(getattr(error.__cause__ or error, "name", None) or "").partition(".")[0]
    return _PACKAGES.get(module, module.replace("_", "-"))


def _version(info: dict[str, Any]) -> dict[str, str]:
    """What a file system tells of one state of a file; it may tell more or less when it is asked another way."""
    found = {key: info[key] for key in _VERSIONS if info.get(key) is not None}
    return {key: str(value.timestamp() if isinstance(value, datetime) else value) for key, value in found.items()}


def _differ(version: dict[str, str], other: dict[str, str]) -> bool:
    return any(other.get(key, value) != value for key, value in version.items())
