"""What a corpus will be and cost, told from a sample of its sources before anything is built."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gptcli.artifacts.project import Project
from gptcli.artifacts.shards import shard_paths
from gptcli.console import human_bytes, human_count, human_seconds
from gptcli.corpus.assembly import write_shards
from gptcli.corpus.catalogue import open_catalogue
from gptcli.corpus.deciding import decide
from gptcli.corpus.ngrams import write_ngrams
from gptcli.corpus.plan import PART_BYTES
from gptcli.corpus.probe import SECONDS, Probe, ProbedFile, probe
from gptcli.corpus.rehearsal import local_files, rehearse
from gptcli.corpus.report import share
from gptcli.corpus.spec import CorpusSpec
from gptcli.corpus.work import workers_of
from gptcli.errors import GptcliError
from gptcli.progress import Silent
from gptcli.records.opening import compression_at
from gptcli.runtime.device import peak_memory_bytes
from gptcli.runtime.executor import LOOK_AHEAD

_WORKER_START = 1.5  # seconds, until the processes have loaded what they need
# Held of every document while the last pass decides: index and decision (about 75 bytes), the hashes of one band with
# their order, and the clusters.
_BYTES_A_DOCUMENT = 150
_TOP_REASONS = 5

Rows = list[tuple[str, str]]


def forecast(spec: CorpusSpec, project: Project, seconds: float = SECONDS) -> Rows:
    """Documents, bytes, time, disk and memory of a corpus, as rows for a person; each label stands once.

    Cleans a sample of at most about `seconds` in a temporary folder outside the project, by the code that will do the
    work, and scales it by bytes, source by source. Uses no network: what isn't downloaded yet is told as unknown.
    Duplicates are found only within the sample, so that more of them will be left out.
    """
    found, missing = local_files(spec, project)
    numbers = {table.name: number for number, table in enumerate(spec.tables())}
    files = [ProbedFile(one.path, one.name, numbers[table.name], one.path.stat().st_size) for one, table in found]
    rows: Rows = []
    if any(file.bytes for file in files):
        with tempfile.TemporaryDirectory(prefix="gptcli-forecast-") as folder:
            began = time.monotonic()
            try:
                ready, items = rehearse(spec, project, [file for file, _ in found], Path(folder))
                ready = ready.model_copy(update={"workers": 1})
                probes = probe(files, ready, Path(folder), items, seconds)
                rows = _rows(spec, files, _measured(ready, files, probes, Path(folder)), time.monotonic() - began)
            except GptcliError as error:
                rows = [("cannot be told", error.message)]
    return rows + [(f"unknown {name}", why) for name, why in missing.items()]


@dataclass(frozen=True)
class Measured:
    """A sample, scaled to all of the sources."""

    sampled_bytes: float
    sampled_files: int
    read: float
    kept: float
    text_bytes: float
    left_out: dict[str, float]
    cleaning_seconds: float  # of one process
    last_seconds: float
    unit_bytes: float
    shard_bytes: float
    ngram_bytes: float
    columns: dict[str, list[str]]


def _measured(spec: CorpusSpec, files: Sequence[ProbedFile], probes: Sequence[Probe], folder: Path) -> Measured:
    units = [one.unit for one in probes]
    began = time.perf_counter()
    catalogue = open_catalogue(folder, units)
    decision, repeats = decide(spec, catalogue, Silent())
    deciding, began = time.perf_counter() - began, time.perf_counter()
    out = folder / "shards"
    out.mkdir()
    write_shards(units, catalogue, out, decision, spec.shard_bytes, lambda unit: None, repeats)
    shards = [path for split in ("train", "val", "test") for path in shard_paths(out, split)]
    shard_bytes = _size(shards)
    ngrams = [path.with_suffix(".ngrams") for path in shards] if spec.ngrams else []
    for shard, index in zip(shards, ngrams, strict=False):
        write_ngrams(shard, index)
    writing = time.perf_counter() - began
    scales = np.array(_scales(files, probes))
    by_probe = {one.unit.source: place for place, one in enumerate(probes)}
    of_document = scales[[by_probe[source] for source in catalogue.sources.tolist()]] if len(catalogue) else scales[:0]
    copies = of_document * decision.copies * decision.kept
    left_out: dict[str, float] = {}
    for one, scale in zip(probes, scales, strict=True):
        for reason, count in one.counts.left_out.items():
            left_out[reason] = left_out.get(reason, 0.0) + count * float(scale)
    for number, reason in enumerate(decision.names):
        if reason:
            left_out[reason] = left_out.get(reason, 0.0) + float(of_document[decision.reasons == number].sum())
    written = float((copies * catalogue.bytes).sum())
    growth = written / max(float((decision.kept * decision.copies * catalogue.bytes).sum()), 1.0)
    unit_bytes = [_size(folder.glob(f"{one.unit.key}.*")) for one in probes]
    return Measured(
        sampled_bytes=sum(one.bytes for one in probes),
        sampled_files=sum(one.files for one in probes),
        read=float(sum(one.counts.read * scale for one, scale in zip(probes, scales, strict=True))),
        kept=float((of_document * decision.kept).sum()),
        text_bytes=written,
        left_out={reason: count for reason, count in left_out.items() if count},
        cleaning_seconds=float(sum(one.seconds * scale for one, scale in zip(probes, scales, strict=True))),
        last_seconds=deciding * float(of_document.sum()) / max(len(catalogue), 1) + writing * growth,
        unit_bytes=float(sum(size * scale for size, scale in zip(unit_bytes, scales, strict=True))),
        shard_bytes=shard_bytes * growth,
        ngram_bytes=_size(ngrams) * growth,
        columns={
            name: keys
            for one in probes
            for found in [set(one.counts.with_text)]
            for name, keys in one.counts.columns.items()
            if name not in found
        },
    )


def _scales(files: Sequence[ProbedFile], probes: Sequence[Probe]) -> list[float]:
    """By what each probe is to be multiplied; the bytes of sources without a probe are spread over the others."""
    whole: Counter[int] = Counter()
    for file in files:
        whole[file.table] += file.bytes
    sampled = sum(whole[one.unit.source] for one in probes)
    spread = sum(whole.values()) / max(sampled, 1)
    return [spread * max(whole[one.unit.source] / one.bytes, 1.0) if one.bytes else spread for one in probes]


def _size(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def _rows(spec: CorpusSpec, files: Sequence[ProbedFile], found: Measured, took: float) -> Rows:
    total = sum(file.bytes for file in files)
    workers = workers_of(spec, total)
    part = share(int(min(found.sampled_bytes, total)), total)
    rows = [
        (
            "sample",
            f"{human_bytes(found.sampled_bytes)} of {human_bytes(total)} ({part}) at "
            f"{_counted(found.sampled_files, 'place')} in {_counted(len(files), 'file')}, in {human_seconds(took)}",
        ),
        (
            "documents",
            f"about {human_count(found.kept)} of {human_count(found.read)} kept "
            f"({share(round(found.kept), round(found.read))}); duplicates of far-off documents come off this",
        ),
        ("text", f"about {human_bytes(found.text_bytes)}"),
    ]
    reasons = sorted(found.left_out.items(), key=lambda one: (-one[1], one[0]))
    if reasons:
        told = ", ".join(f"{share(round(count), round(found.read))} {name}" for name, count in reasons[:_TOP_REASONS])
        rows.append(
            ("left out", told + (f", {len(reasons) - _TOP_REASONS} more reasons" if reasons[_TOP_REASONS:] else ""))
        )
    seconds = found.cleaning_seconds / workers + found.last_seconds + (_WORKER_START if workers > 1 else 0)
    rows += [
        ("time", f"about {human_seconds(seconds)} with {_counted(workers, 'process', 'es')}"),
        (
            "disk",
            f"about {human_bytes(found.unit_bytes + found.shard_bytes + found.ngram_bytes)}: units "
            f"{human_bytes(found.unit_bytes)}, shards {human_bytes(found.shard_bytes)}, "
            f"n-grams {human_bytes(found.ngram_bytes)}",
        ),
        ("memory", _memory(files, found, workers)),
    ]
    return rows + [
        (f"no text key in {name}", f"it has the columns {', '.join(keys[:20])}") for name, keys in found.columns.items()
    ]


def _memory(files: Sequence[ProbedFile], found: Measured, workers: int) -> str:
    """Of a worker and of the process that decides; a sample holds less of a part at once than the work will."""
    measured = peak_memory_bytes()
    worker = measured + 2 * PART_BYTES
    parts = (LOOK_AHEAD * workers + 2) * PART_BYTES if any(_is_packed(file) for file in files) else 0
    main = measured + round(found.read) * _BYTES_A_DOCUMENT + parts
    if workers == 1:
        return f"about {human_bytes(main)} at most"
    return f"about {human_bytes(main)} at most in the main process, {human_bytes(worker)} in each of {workers} workers"


def _is_packed(file: ProbedFile) -> bool:
    return file.bytes > PART_BYTES // 4 and bool(compression_at(file.path, file.name))


def _counted(count: int, what: str, plural: str = "s") -> str:
    return f"{count:,} {what}{'' if count == 1 else plural}"
