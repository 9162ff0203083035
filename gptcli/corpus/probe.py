"""A sample of the sources, taken through the real cleaning into a folder of its own; for the forecast of a dry run."""

from __future__ import annotations

import bisect
import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from gptcli.artifacts.manifest import Source
from gptcli.corpus.cleaning import Cleaner, filter_steps
from gptcli.corpus.decontamination import Items
from gptcli.corpus.dedup.minhash import band_hashes
from gptcli.corpus.dedup.shingles import shingle_hashes
from gptcli.corpus.plan import Unit, UnitFile, read_options
from gptcli.corpus.spec import CorpusSpec
from gptcli.corpus.units import Counts
from gptcli.records.compression import Decompressed, compression_of
from gptcli.records.documents import read
from gptcli.records.opening import sniff
from gptcli.records.parts import Part, parts_of
from gptcli.records.pieces import TOO_LONG, Piece, ReadOptions

SECONDS = 6.0  # a sample ends when one of these is reached
BYTES = 32 << 20  # raw
_EACH = 1 << 20  # bytes taken at one place of a big file
_FROM_BEGINNING = 8 << 20  # taken of a file that can only be read from its beginning
_PLACES, _MOST_PLACES = 64, 4096  # looked at, spread over all bytes: one a file within these bounds
_PARTS = 16  # of a big file, to begin at one of them
_HEAD = 1 << 20  # compressed bytes that tell how tight a file is packed
_WARMING = "The quick brown fox jumps over the lazy dog, and then it sleeps. " * 20
_COLUMNAR = ("parquet", "arrow")
_SEEKABLE = ("text", "rows", "tsv")


@dataclass(frozen=True)
class ProbedFile:
    path: Path
    name: str
    table: int  # number of the typed source
    bytes: int


@dataclass
class Probe:
    """What was sampled of one typed source; `bytes` are raw, as the files' sizes are."""

    unit: Unit
    counts: Counts
    bytes: float = 0.0
    files: int = 0
    seconds: float = 0.0
    columns: dict[str, list[str]] = field(default_factory=dict)  # files without the text key


class _Sampler(Cleaner):
    """Cleans some documents of some files of one source."""

    def take(self, file: UnitFile, pieces: Iterable[Piece], most: int, deadline: float) -> tuple[int, int, bool]:
        """Up to `most` bytes of documents; returns how many bytes and pieces, and whether that is all there are."""
        taken = count = 0
        for count, piece in enumerate(pieces, 1):
            self._piece(file, piece)
            taken += piece.size
            if taken >= most or time.monotonic() >= deadline:
                return taken, count, False
        return taken, count, True

    def pass_over(self) -> None:
        """Count a document that would be read only to be found too long."""
        self._counts.read += 1
        self._counts.left_out[TOO_LONG] = self._counts.left_out.get(TOO_LONG, 0) + 1

    def read(self, file: ProbedFile, part: Part | None) -> Iterator[Piece]:
        return read(file.path, file.name, self._unit.options, self._notes, part)

    def end(self) -> Counts:
        self._counts.columns = self._notes.columns
        self._counts.with_text = sorted(self._notes.with_text)
        self._writer.close(self._counts)
        return self._counts


def probe(
    files: Sequence[ProbedFile], spec: CorpusSpec, folder: Path, items: Items | None, seconds: float = SECONDS
) -> list[Probe]:
    """Clean documents from places spread over all the files' bytes into units in `folder`, one a typed source.

    Bounded by `seconds` and `BYTES`; where a source is small it is read whole. Sources without a sample have none.
    Raises SpecError for a file that can't be read.
    """
    _warm_up(spec, items)
    deadline = time.monotonic() + seconds
    tables = spec.tables()
    samplers: dict[int, _Sampler] = {}
    probes: dict[int, Probe] = {}
    seen: set[tuple[str, int]] = set()
    for file, place in _places(files):
        if probes and (time.monotonic() >= deadline or sum(one.bytes for one in probes.values()) >= BYTES):
            break
        number, options = file.table, read_options(tables[file.table], spec.max_chars)
        spot = _spot(file, place, options)
        key = (file.name, spot.part.start if spot.part else -1)
        if key in seen:
            continue
        seen.add(key)
        if number not in samplers:
            unit = Unit(number, f"{number:032x}", number, (), options, tables[number].license, 0)
            samplers[number], probes[number] = _Sampler(unit, spec, folder, items), Probe(unit, Counts())
        began = time.perf_counter()
        probes[number].bytes += _sample(samplers[number], file, spot, deadline)
        probes[number].files += 1
        probes[number].seconds += time.perf_counter() - began
    for number, sampler in samplers.items():
        began = time.perf_counter()
        probes[number].counts = sampler.end()
        probes[number].seconds += time.perf_counter() - began
    return [probes[number] for number in sorted(probes)]


def _warm_up(spec: CorpusSpec, items: Items | None) -> None:
    """Load what filters load when they first run: it costs seconds once, and is no part of what a byte costs."""
    for _ in filter_steps(_WARMING, "", spec, items, every=True):
        pass
    if spec.dedup == "near":
        band_hashes([shingle_hashes(_WARMING)])


def _places(files: Sequence[ProbedFile]) -> Iterator[tuple[ProbedFile, float]]:
    """Files to look at, and where in each (0 … 1): of each source the largest, then all bytes ever more densely."""
    first = {file.table: file for file in sorted(files, key=lambda file: file.bytes)}
    yield from ((file, 0.5) for _, file in sorted(first.items()))
    starts = [0, *accumulate(file.bytes for file in files)]
    total = starts.pop()
    for number in range(max(_PLACES, min(len(files), _MOST_PLACES))):
        wanted = _halves(number) * total
        at = bisect.bisect_right(starts, wanted) - 1
        yield files[at], (wanted - starts[at]) / max(files[at].bytes, 1)


def _halves(number: int) -> float:
    """The van der Corput sequence in base 2: 0, 1/2, 1/4, 3/4, 1/8, …"""
    place, share = 0.0, 0.5
    while number:
        place, number, share = place + share * (number & 1), number >> 1, share / 2
    return place


@dataclass(frozen=True)
class _Spot:
    """Where a sample begins: a part of a file (None: its beginning), of `bytes` raw bytes."""

    part: Part | None
    bytes: int
    most: int  # bytes of documents to take
    packing: float  # unpacked bytes for each of the file's
    rows: int = 0  # of columns, whose text is neither as long as the file nor packed evenly; 0: not known
    is_too_long: bool = False  # one document, longer than max_chars


def _spot(file: ProbedFile, place: float, options: ReadOptions) -> _Spot:
    form = sniff(file.path, file.name, options.encoding)
    packing = _packing(file, form)
    if form in _COLUMNAR and packing == 1:
        return _columnar_spot(file, place, options)
    if form == "text" and options.separator == "none" and 0 < 4 * options.max_chars < file.bytes:
        return _Spot(None, file.bytes, 0, packing, is_too_long=True)  # UTF-8 has up to 4 bytes a character
    if packing != 1 or form not in _SEEKABLE or file.bytes <= _EACH:
        return _Spot(None, file.bytes, _FROM_BEGINNING, packing)
    parts = list(parts_of(file.path, file.name, options, max(file.bytes // _PARTS, _EACH)))
    number = min(int(place * len(parts)), len(parts) - 1)
    end = parts[number].end
    size = (file.bytes if end is None else end) - parts[number].start
    return _Spot(parts[number], size, _EACH if len(parts) > 1 else _FROM_BEGINNING, packing)


def _columnar_spot(file: ProbedFile, place: float, options: ReadOptions) -> _Spot:
    """Some row groups of a file; for how many of its bytes they stand goes by their share of its rows."""
    from gptcli.records.columnar import rows_within, text_share

    parts = list(parts_of(file.path, file.name, options, max(file.bytes // _PARTS, _EACH)))
    part = parts[min(int(place * len(parts)), len(parts) - 1)]
    if len(parts) == 1:
        rows = rows_within(file.path)
        packing = 1.0 if rows else text_share(file.path, options.text_key, _HEAD)
        return _Spot(None, file.bytes, _FROM_BEGINNING, packing, rows)
    rows = rows_within(file.path, part.start, part.end)
    size = round(file.bytes * rows / max(rows_within(file.path), 1))
    return _Spot(part, size, _EACH, 1, rows)


def _sample(sampler: _Sampler, file: ProbedFile, spot: _Spot, deadline: float) -> float:
    """Clean some of a file; returns for how many of its raw bytes that stands."""
    if spot.is_too_long:
        sampler.pass_over()
        return float(file.bytes)
    told = UnitFile(file.path, Source(file.name, file.bytes, 0, ""))
    taken, count, is_whole = sampler.take(told, sampler.read(file, spot.part), spot.most, deadline)
    if is_whole:
        return float(spot.bytes)
    share = count / spot.rows if spot.rows else taken / spot.packing / max(spot.bytes, 1)
    return spot.bytes * min(share, 1.0)


def _packing(file: ProbedFile, form: str) -> float:
    """Unpacked bytes for each byte of the file."""
    with file.path.open("rb") as stream:
        head = stream.read(_HEAD)
    if kind := compression_of(head):
        unpacked = sum(map(len, Decompressed(iter([head]), kind, file.name)))
        return max(unpacked / max(len(head), 1), 1e-3)
    if form == "zip":
        try:
            with zipfile.ZipFile(file.path) as archive:
                return max(sum(member.file_size for member in archive.infolist()) / max(file.bytes, 1), 1e-3)
        except (zipfile.BadZipFile, OSError, ValueError):
            return 1
    return 1
