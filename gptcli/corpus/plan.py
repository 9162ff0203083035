"""Cutting the sources into units: runs of small files, or parts of a big one, each named by what it is made from."""

from __future__ import annotations

import hashlib
import unicodedata
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gptcli import __version__
from gptcli.artifacts.durable import canonical_json
from gptcli.artifacts.manifest import Source
from gptcli.corpus.spec import SourceTable
from gptcli.records.parts import Part, parts_of
from gptcli.records.pieces import ReadOptions
from gptcli.records.sources import SourceFile

UNIT_BYTES = 4 << 20  # raw bytes of source files at which a unit is closed
UNIT_FILES = 1024  # files at which it is closed
PART_BYTES = 16 << 20  # of a big file
LAYOUT = 5  # of the unit files: units of another layout are made again
_DECIDING = ("charset-normalizer", "ftfy", "py3langid", "rensa", "resiliparse", "trafilatura")  # packages
_EARLY = 8  # a unit may close at 1 file in so many once it holds as small a share of its bytes


@dataclass(frozen=True)
class UnitFile:
    """One source file, as it was recorded when it was hashed."""

    path: Path
    recorded: Source

    @property
    def name(self) -> str:
        return self.recorded.path


@dataclass(frozen=True)
class Unit:
    """What one worker cleans at a time: files of one source, or one part of one file."""

    number: int
    key: str  # names its files on disk
    source: int  # number of the typed source
    files: tuple[UnitFile, ...]
    options: ReadOptions
    license: str | None
    bytes: int  # raw, of all files or of the part; what is not known before it is unpacked counts at the first part
    part: Part | None = None


def read_options(table: SourceTable, max_chars: int) -> ReadOptions:
    """How the files of one source are read."""
    return ReadOptions(
        text_key=str(table.text_key),
        metadata=None if table.metadata is None else tuple(table.metadata),
        separator=str(table.separator),
        encoding=str(table.encoding),
        extractor=str(table.extractor),
        gutenberg=bool(table.gutenberg),
        header=bool(table.header),
        max_chars=max_chars,
    )


class Planner:
    """Makes the units in source order; the cut depends on the files alone, a unit's key on all that decides it."""

    def __init__(self, tables: Sequence[SourceTable], max_chars: int, cleaning: Mapping[str, Any]) -> None:
        self._options = [read_options(table, max_chars) for table in tables]
        self._licenses = [table.license for table in tables]
        self._sources = [table.name for table in tables]
        self._numbers = {table.name: number for number, table in enumerate(tables)}
        self._cleaning = hashlib.sha256(canonical_json({**cleaning, **_made_with()})).hexdigest()
        self._made = 0

    def units(self, files: Sequence[SourceFile], recorded: Sequence[Source]) -> Iterator[Unit]:
        """Every file of every source, in order. Parts of a packed file are unpacked here, one ahead of their use."""
        known = {source.path: source for source in recorded}
        waiting: list[UnitFile] = []
        held, current = 0, -1
        for file in files:
            number = self._numbers[file.source]
            one = UnitFile(file.path, known[file.name])
            is_big = one.recorded.bytes >= PART_BYTES // 4
            if waiting and (number != current or is_big or held + one.recorded.bytes > UNIT_BYTES):
                yield self._unit(current, waiting, held)
                waiting, held = [], 0
            current = number
            if is_big:
                yield from self._parts(number, one)
                continue
            waiting.append(one)
            held += one.recorded.bytes
            if held >= UNIT_BYTES or len(waiting) >= UNIT_FILES or _is_early_end(one.name, held):
                yield self._unit(current, waiting, held)
                waiting, held = [], 0
        if waiting:
            yield self._unit(current, waiting, held)

    def _parts(self, source: int, file: UnitFile) -> Iterator[Unit]:
        left = file.recorded.bytes
        for part in parts_of(file.path, file.name, self._options[source], PART_BYTES):
            if part.data is None and part.end is not None and file.recorded.bytes >= part.end:
                size = min(part.end - part.start, left)
            else:
                size = left
            left -= size
            yield self._unit(source, [file], size, part)

    def _unit(self, source: int, files: Sequence[UnitFile], size: int, part: Part | None = None) -> Unit:
        told = {
            "cleaning": self._cleaning,
            "source": self._sources[source],
            "options": asdict(self._options[source]),
            "license": self._licenses[source],
            "files": [[file.name, file.recorded.sha256] for file in files],
            "part": None if part is None else [part.start, part.end],
        }
        key = hashlib.sha256(canonical_json(told)).hexdigest()[:32]
        self._made += 1
        number = self._made - 1
        return Unit(number, key, source, tuple(files), self._options[source], self._licenses[source], size, part)


def _made_with() -> dict[str, Any]:
    """The versions of everything that decides what a unit holds."""
    versions: dict[str, str | None] = {"gptcli": __version__, "unicode": unicodedata.unidata_version}
    for package in _DECIDING:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {"layout": LAYOUT, "versions": versions}


def _is_early_end(name: str, held: int) -> bool:
    """Ends that hang on the names alone: a file that comes or goes moves the cuts of its neighbourhood only."""
    return held * _EARLY >= UNIT_BYTES and zlib.crc32(name.encode()) % _EARLY == 0
