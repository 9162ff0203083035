"""Gzip files of many members, each a record: a damaged member costs only itself."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gptcli.records.compression import BLOCK, BOMB, CORRUPT, TRUNCATED
from gptcli.records.opening import os_error
from gptcli.records.window import Window

_FEED = 1 << 18  # compressed bytes fed at once
_BOMB_BYTES, _BOMB_RATIO = 64 << 20, 200  # a file that grows by more than both is a bomb
_MEMBER = re.compile(rb"\x1f\x8b\x08[\x00-\x1f]")  # RFC 1952: magic, deflate, flags without reserved bits
_JOINT = b"\r\n\r\n"  # stands where a member was cut off, so that the next record begins on a line of its own


class GzipMembers:
    """The decompressed bytes of a gzip file in blocks of at most 1 MiB, all members after each other.

    Where a member is damaged, what came out of it stands, and reading goes on at the next place that looks like a
    member; `fault` is CORRUPT then, TRUNCATED where the last member ends too early, BOMB as in `Decompressed`.
    To be iterated once. Raises SpecError naming the file when it can't be opened or read.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.fault = ""

    def __iter__(self) -> Iterator[bytes]:
        grown = 0
        try:
            with self.path.open("rb", buffering=0) as file:
                window = Window(iter(lambda: file.read(_FEED), b""))
                while window.fill(4):
                    if _MEMBER.match(window.peek(4)) is None:
                        self._seek(window)
                        continue
                    for block in self._member(window):
                        grown += len(block)
                        if grown > max(_BOMB_BYTES, _BOMB_RATIO * file.tell()):
                            self.fault = BOMB
                            return
                        yield block
        except OSError as error:
            raise os_error(self.name, error) from error

    def _seek(self, window: Window) -> None:
        """Pass over what is no member; zero padding is allowed."""
        zeros = window.peek(_FEED)
        if not zeros.strip(b"\0"):
            window.skip(len(zeros))
            return
        self.fault = CORRUPT
        window.skip_to(_MEMBER, 4)

    def _member(self, window: Window) -> Iterator[bytes]:
        stream, given = zlib.decompressobj(wbits=31), 0
        while not stream.eof:
            visible = window.fill(1)
            if not visible:
                self.fault = self.fault or TRUNCATED
                return
            data = window.peek(min(visible, _FEED))
            while data:
                before = stream.copy()
                try:
                    block = stream.decompress(data, BLOCK)
                except zlib.error:
                    self.fault = CORRUPT
                    rest = _until_damage(before, data)
                    if given or rest:
                        yield rest + _JOINT
                    window.skip_to(_MEMBER, 4)
                    return
                left = stream.unused_data if stream.eof else stream.unconsumed_tail
                window.skip(len(data) - len(left))
                if block:
                    given += len(block)
                    yield block
                if stream.eof or (not left and len(block) < BLOCK):
                    break
                data = left


def _until_damage(stream: Any, data: bytes) -> bytes:
    """What comes out before the damage, fed a few bytes at a time: zlib gives nothing of a step that fails."""
    parts: list[bytes] = []
    size = 0
    try:
        for at in range(0, len(data), 16):
            parts.append(stream.decompress(data[at : at + 16], BLOCK - len(_JOINT) - size))
            size += len(parts[-1])
            if size >= BLOCK - len(_JOINT):
                break
    except zlib.error:
        pass
    return b"".join(parts)
