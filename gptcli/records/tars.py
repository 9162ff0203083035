"""Members of tar archives (ustar, GNU and PAX), read as a stream in constant memory; damage costs only what it hit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from gptcli.records.compression import BLOCK, CORRUPT, TRUNCATED
from gptcli.records.members import MAX_DEPTH, TOO_DEEP, UNSUPPORTED, Budget, printable
from gptcli.records.pieces import ByteStream, Notes
from gptcli.records.window import Window, tell

_SECTOR = 512
_MAX_NAME = 1 << 20  # bytes of a header that holds names; a longer one is passed over
_REGULAR, _LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL, _SPARSE = b"0\x007", b"L", b"K", b"x", b"g", b"S"
_PAX_LENGTH = re.compile(rb"(\d{1,9}) ")


@dataclass(frozen=True, slots=True)
class _Header:
    name: bytes
    size: int
    kind: bytes


class TarMember:
    """The bytes of one member of a tar archive; `fault` UNSUPPORTED may be known before it is read (no bytes)."""

    def __init__(self, window: Window, size: int, name: str, depth: int, budget: Budget | None) -> None:
        self.name = name
        self.depth = depth  # 1: of an archive that is a file
        self.budget = budget
        self.fault = ""
        self._window = window
        self._left = size

    def __iter__(self) -> Iterator[bytes]:
        while self._left and not self.fault:
            block = self._window.take(min(BLOCK, self._left))
            if not block:
                self.fault = TRUNCATED
                return
            self._left -= len(block)
            yield block

    def finish(self) -> None:
        """Pass over what was not read."""
        if self._window.skip(self._left) < self._left:
            self.fault = self.fault or TRUNCATED
        self._left = 0


def members_of_tar(stream: ByteStream, notes: Notes) -> Iterator[tuple[str, ByteStream]]:
    """The files of a tar archive with their paths in it, in order; each is to be read before the next is asked for.

    Folders, links and devices are passed over. A sparse member is given without bytes and with fault UNSUPPORTED, a
    cut off one with those there are; that is noted once the next member is asked for. Where a header is damaged,
    reading goes on at the next good one, and the archive has the fault CORRUPT; TRUNCATED where it ends too early.
    The stream's own fault is noted, too. An archive nested too deep gives nothing but that fault.
    """
    depth, budget = getattr(stream, "depth", 0), getattr(stream, "budget", None)
    if depth >= MAX_DEPTH:
        tell(notes, stream.name, TOO_DEEP)
        return
    window = Window(stream)
    long_name = b""
    told: dict[bytes, bytes] = {}  # by a PAX header, of the member behind it
    for header in _headers(window, stream.name, notes):
        if header.kind == _LONG_NAME:
            long_name = _extra(window, header.size).split(b"\0", 1)[0]
        elif header.kind == _PAX:
            told = _pax(_extra(window, header.size))
        elif header.kind in (_LONG_LINK, _PAX_GLOBAL):
            _pass(window, header.size)
        else:
            name = printable((told.get(b"path") or long_name or header.name).decode("utf-8", "surrogateescape"))
            size = int(told[b"size"]) if told.get(b"size", b"").isdigit() else header.size
            sparse = header.kind == _SPARSE or any(key.startswith(b"GNU.sparse") for key in told)
            long_name, told = b"", {}
            if header.kind not in _REGULAR + _SPARSE or name.endswith("/"):
                _pass(window, size if header.kind not in b"123456" else 0)
                continue
            member = TarMember(window, size, f"{stream.name}!{name}", depth + 1, budget)
            member.fault = UNSUPPORTED if sparse else ""
            yield name, member
            member.finish()
            _pass(window, 0, -size % _SECTOR)
            if member.fault:
                tell(notes, member.name, member.fault)
    if stream.fault:
        tell(notes, stream.name, stream.fault)


def _headers(window: Window, name: str, notes: Notes) -> Iterator[_Header]:
    """Good headers; behind each the caller takes the data and its padding."""
    zeros = 0
    while sector := window.take(_SECTOR):
        if len(sector) < _SECTOR:
            if sector.strip(b"\0"):
                tell(notes, name, TRUNCATED)
            return
        if not sector.strip(b"\0"):
            zeros += 1  # two end an archive, but archives are also written one behind another
            continue
        header = _parse(sector)
        if header is None:
            tell(notes, name, CORRUPT)
            continue
        zeros = 0
        yield header
    if not zeros:
        tell(notes, name, TRUNCATED)


def _parse(sector: bytes) -> _Header | None:
    """The header in a sector; None where its checksum is wrong or its size is no number."""
    wanted = _number(sector[148:156])
    if wanted != sum(sector[:148]) + sum(sector[156:]) + 8 * 0x20:
        return None
    size = _number(sector[124:136])
    if size is None or size < 0:
        return None
    name = sector[:100].split(b"\0", 1)[0]
    prefix = sector[345:500].split(b"\0", 1)[0] if sector[257:263] == b"ustar\0" else b""
    return _Header(prefix + b"/" + name if prefix else name, size, sector[156:157])


def _number(data: bytes) -> int | None:
    """Octal digits, or GNU's big-endian binary; None for neither."""
    if data[:1] == b"\x80":
        return int.from_bytes(data[1:], "big")
    digits = data.split(b"\0", 1)[0].strip()
    try:
        return int(digits or b"0", 8)
    except ValueError:
        return None


def _extra(window: Window, size: int) -> bytes:
    """The data of a header that holds names."""
    if size > _MAX_NAME:
        _pass(window, size)
        return b""
    data = window.take(size)
    _pass(window, 0, -size % _SECTOR)
    return data


def _pax(data: bytes) -> dict[bytes, bytes]:
    """Records "LENGTH KEY=VALUE\\n" (POSIX.1-2001), up to the first that is none."""
    records: dict[bytes, bytes] = {}
    at = 0
    while (found := _PAX_LENGTH.match(data, at)) is not None and int(found[1]) > len(found[0]):
        key, _, value = data[found.end() : at + int(found[1])].rstrip(b"\n").partition(b"=")
        records[key] = value
        at += int(found[1])
    return records


def _pass(window: Window, size: int, padding: int | None = None) -> None:
    window.skip(size + (-size % _SECTOR if padding is None else padding))
