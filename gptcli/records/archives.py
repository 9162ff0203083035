"""Members of zip and tar archives as streams of bytes; nothing of an archive decides a path on this machine's disk."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from gptcli.records.compression import BLOCK, BOMB, CORRUPT, TRUNCATED
from gptcli.records.members import (
    BOMB_BYTES,
    BOMB_RATIO,
    ENCRYPTED,
    MAX_DEPTH,
    TOO_DEEP,
    UNSUPPORTED,
    Budget,
    printable,
    spooled,
)
from gptcli.records.opening import os_error
from gptcli.records.pieces import ByteStream, Notes
from gptcli.records.tars import members_of_tar
from gptcli.records.window import tell

__all__ = ["members_of_tar", "members_of_zip", "printable", "spooled"]

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)  # LZMA may ask for 4 GiB of memory
_BZIP2_STEP = 1 << 12  # decompressed at once; the module can't bound what a step of more gives
_ENCRYPTED_FLAG, _DIRECTORY, _REGULAR = 0x1, 0o040000, 0o100000
_FAILURES = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, struct.error)


class ZipMember:
    """The bytes of one member of a zip archive; `fault` may be known before it is read (ENCRYPTED …: no bytes)."""

    def __init__(
        self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, depth: int, budget: Budget | None
    ) -> None:
        self.name = name
        self.depth = depth  # 1: of an archive that is a file
        self.budget = budget
        self.fault = _unreadable(info)
        self._archive = archive
        self._info = info

    def __iter__(self) -> Iterator[bytes]:
        if self.budget is not None and self.budget.spent:
            self.fault = self.fault or BOMB
        if self.fault:
            return
        step = _BZIP2_STEP if self._info.compress_type == zipfile.ZIP_BZIP2 else BLOCK
        most = max(BOMB_BYTES, BOMB_RATIO * self._info.compress_size)
        given = 0
        try:
            with self._archive.open(self._info) as file:
                while block := file.read(step):
                    given += len(block)
                    if given > most or not (self.budget is None or self.budget.take(len(block))):
                        self.fault = BOMB
                        return
                    yield block
        except _FAILURES as error:
            self.fault = TRUNCATED if isinstance(error, EOFError) else CORRUPT
        except OSError:  # a damaged bzip2 member, or an offset outside of the file
            self.fault = CORRUPT
        if not self.fault and given < self._info.file_size:
            self.fault = TRUNCATED


def members_of_zip(
    path: Path, name: str, notes: Notes, within: ByteStream | None = None
) -> Iterator[tuple[str, ByteStream]]:
    """The files of a zip archive with their paths in it, in the order of its directory.

    within: the member of another archive that `path` was spooled from. Folders, links and devices are passed over. A
    member that can't be read (encrypted, damaged, a compression other than stored, deflated and bzip2, a bomb) is
    given as a stream with a `fault` and the bytes that could be read, perhaps none; that fault is noted once the next
    member is asked for. Of an archive that is no zip, or nested too deep, nothing is given but the fault.
    Raises SpecError naming the file when it can't be opened.
    """
    depth = getattr(within, "depth", 0)
    if depth >= MAX_DEPTH:
        tell(notes, name, TOO_DEEP)
        return
    try:
        budget = getattr(within, "budget", None) or Budget(path.stat().st_size)
        file = path.open("rb")
    except OSError as error:
        raise os_error(name, error) from error
    with file:
        try:
            archive = zipfile.ZipFile(file)
        except (*_FAILURES, OSError):
            tell(notes, name, CORRUPT)
            return
        for info in archive.infolist():
            kind = info.external_attr >> 16 & 0o170000 if info.create_system == 3 else 0
            if info.filename.endswith("/") or kind not in (0, _REGULAR):
                continue
            member = printable(info.filename)
            stream = ZipMember(archive, info, f"{name}!{member}", depth + 1, budget)
            yield member, stream
            if stream.fault:
                tell(notes, stream.name, stream.fault)


def _unreadable(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & _ENCRYPTED_FLAG:
        return ENCRYPTED
    return "" if info.compress_type in _METHODS else UNSUPPORTED
