"""Where versions are pushed to and pulled from: a folder, what fsspec opens, a repository on the Hugging Face Hub.

A version stands there as its own files and its manifest.json, sent last: to exist is to be whole.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from gptcli.artifacts.durable import PENDING, disk_errors, replace, sha256_file
from gptcli.artifacts.manifest import MANIFEST, FileEntry, Manifest, manifest_problem, parse_manifest, sum_matches
from gptcli.errors import ArtifactError, SpecError

BLOCK = 1 << 20

Advance = Callable[[int], None]


class Store(Protocol):
    """The place of one version. Its methods raise SpecError where it can't be reached or written."""

    address: str  # what pull takes, without a password

    def manifest(self) -> bytes | None:
        """The manifest.json that stands there."""

    def send(self, directory: Path, manifest: Manifest, advance: Advance) -> int:
        """Send the files that are not there yet, and then the manifest, unless one that is whole is there; how many
        had to be sent, a manifest that took a damaged one's place among them.

        All that arrived is checked. Raises ArtifactError where that is not what was sent.
        """

    def fetch(self, entry: FileEntry, target: Path, advance: Advance) -> None:
        """Bring a file to `target`, whole. Raises ArtifactError where its bytes are not those of the manifest."""


class Tree(Protocol):
    """Files below a place, by their names in a version."""

    address: str

    def size(self, name: str) -> int | None:
        """Bytes of a file, None where there is none."""

    def put(self, source: Path, name: str) -> None:
        """Write a file; under its name it is whole."""

    def blocks(self, name: str) -> Iterator[bytes]:
        """What is in a file."""


class TreeStore:
    """A version in a tree of files, each read back after it was sent."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.address = tree.address

    def manifest(self) -> bytes | None:
        if self._tree.size(MANIFEST) is None:
            return None
        return b"".join(self._tree.blocks(MANIFEST))

    def send(self, directory: Path, manifest: Manifest, advance: Advance) -> int:
        own = directory / MANIFEST
        last = FileEntry(MANIFEST, own.stat().st_size, sha256_file(own))
        sent = 0
        for entry in manifest.files:
            sent += self._send(directory, entry)
            advance(entry.bytes)
        found = self.manifest()
        if found is None or not _is_whole(found, self.address):  # a whole one's records may be others
            self._send(directory, last)
            sent += found is not None
        return sent

    def _send(self, directory: Path, entry: FileEntry) -> bool:
        """Whether the file had to be sent."""
        if self._is_there(entry):
            return False
        self._tree.put(directory / entry.path, entry.path)
        if not self._is_there(entry):
            raise ArtifactError(
                f"{self.address}/{entry.path} is not what was sent: its bytes do not match their SHA-256",
                "run the same command again; if it stays so, that place loses data",
            )
        return True

    def _is_there(self, entry: FileEntry) -> bool:
        if self._tree.size(entry.path) != entry.bytes:
            return False
        digest = hashlib.sha256()
        for block in self._tree.blocks(entry.path):
            digest.update(block)
        return digest.hexdigest() == entry.sha256

    def fetch(self, entry: FileEntry, target: Path, advance: Advance) -> None:
        size = self._tree.size(entry.path)
        if size != entry.bytes:
            told = "is missing" if size is None else f"has {size} bytes where the manifest has {entry.bytes}"
            raise ArtifactError(f"{self.address}/{entry.path} {told}", "push that version again")
        write_blocks(self._tree.blocks(entry.path), entry, target, self.address, advance)


def _is_whole(found: bytes, address: str) -> bool:
    """Whether a manifest can be read and fits its own checksums."""
    try:
        return manifest_problem(parse_manifest(found, address), sum_matches(found)) is None
    except ArtifactError:
        return False


def write_blocks(blocks: Iterator[bytes], entry: FileEntry, target: Path, address: str, advance: Advance) -> None:
    """Write a file of a version that comes in blocks, durably. ArtifactError, and no file, where its hash is wrong."""
    pending = target.with_name(target.name + PENDING)
    digest = hashlib.sha256()
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with pending.open("wb") as file:
            for block in blocks:
                digest.update(block)
                file.write(block)
                advance(len(block))
            file.flush()
            os.fsync(file.fileno())
    if digest.hexdigest() != entry.sha256:
        pending.unlink()
        raise ArtifactError(
            f"{address}/{entry.path} is damaged: its bytes do not match their SHA-256", "push that version again"
        )
    replace(pending, target)


class Folder:
    """A folder of this machine; what can't be reached or written there is a SpecError, a full disk a ResourceError."""

    def __init__(self, root: Path, address: str) -> None:
        self._root = root
        self.address = address

    def size(self, name: str) -> int | None:
        path = self._root / name
        with self._told("reached"):
            return path.stat().st_size if path.is_file() else None

    def put(self, source: Path, name: str) -> None:
        target = self._root / name
        pending = target.with_name(target.name + PENDING)
        with self._told("written"), disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with source.open("rb") as file, pending.open("wb") as out:
                while block := file.read(BLOCK):
                    out.write(block)
                out.flush()
                os.fsync(out.fileno())
            replace(pending, target)

    def blocks(self, name: str) -> Iterator[bytes]:
        with self._told("read"), (self._root / name).open("rb") as file:
            while block := file.read(BLOCK):
                yield block

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SpecError(
                f"{self.address} cannot be {what}: {error.strerror or error}", "name a folder that this user may use"
            ) from error
