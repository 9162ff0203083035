"""Standard input as a source: kept under its SHA-256, so that it can be read twice and has a name that lasts."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

from gptcli.artifacts.durable import disk_errors, replace
from gptcli.errors import SpecError
from gptcli.records.downloads import STDIN, Downloads
from gptcli.records.opening import Blocks

_BLOCK = 1 << 20
_FOLDER = "stdin"
_ROW = re.compile(rb'\s*\{\s*"')
_LIST = re.compile(rb"\s*\[\s*[\{\]]")

_spooled: dict[Path, Path] = {}  # by cache: a process has one standard input, which can be read once


def spooled_input(downloads: Downloads) -> Path:
    """The file that holds all of standard input, read at the first call in a process.

    Its name ends in .jsonl or .json where it begins as such. Raises SpecError where it is a terminal or empty.
    """
    cache = downloads.cache.resolve()
    if cache not in _spooled:
        stream = sys.stdin.buffer if sys.stdin is not None else None
        if stream is None or stream.isatty():
            raise SpecError(
                "the source - is standard input, and nothing is piped into it", "gptcli corpus - < FILE, or … | gptcli"
            )
        _spooled[cache] = _spool(stream, cache / _FOLDER)
    return _spooled[cache]


def _spool(stream: BinaryIO, folder: Path) -> Path:
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=".", suffix=".part")
    part, digest = Path(name), hashlib.sha256()
    try:
        with disk_errors(part), os.fdopen(descriptor, "wb") as file:
            while block := stream.read(_BLOCK):
                digest.update(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        if not part.stat().st_size:
            raise SpecError("standard input, the source -, is empty", "pipe text into it, or leave - out")
        target = folder / (digest.hexdigest() + _ending(part))
        if not target.is_file():  # the same input again keeps its file, and so its time
            replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _ending(path: Path) -> str:
    """.jsonl or .json for what can only be that: there is no name to tell it by."""
    head = next(iter(Blocks(path, STDIN)), b"").removeprefix(b"\xef\xbb\xbf")
    if _LIST.match(head):
        return ".json"
    line, newline, _ = head.lstrip().partition(b"\n")
    if not _ROW.match(line):
        return ""
    try:
        return ".jsonl" if isinstance(json.loads(line), dict) else ""
    except ValueError:
        return "" if newline else ".jsonl"  # a row longer than a block
