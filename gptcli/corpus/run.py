"""corpus: units cleaned in parallel, then one pass that dedups, splits, mixes and writes shards."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gptcli.artifacts.build import Build, cache_path
from gptcli.artifacts.durable import PENDING, disk_errors, write_json, write_text
from gptcli.artifacts.manifest import Manifest
from gptcli.artifacts.ngrams import NGRAMS
from gptcli.corpus import assembly
from gptcli.corpus.catalogue import Catalogue, open_catalogue
from gptcli.corpus.deciding import decide
from gptcli.corpus.decisions import Decision
from gptcli.corpus.first_pass import clean
from gptcli.corpus.ngrams import write_ngrams
from gptcli.corpus.plan import Unit
from gptcli.corpus.remarks import require_some, require_text, tell
from gptcli.corpus.repeats import Repeats
from gptcli.corpus.report import render_report
from gptcli.corpus.samples import EACH, Samples
from gptcli.corpus.spec import KIND, CorpusSpec
from gptcli.corpus.stats import corpus_stats
from gptcli.corpus.work import SMALL, mapped, workers_of
from gptcli.job import Job

SAMPLES = "samples.json"
REPORT = "report.html"


def run(spec: CorpusSpec, job: Job) -> Manifest:
    """Build corpus/NAME. SpecError where a source can't be read or nothing is left; StoppedError between units."""
    build = Build.open(job.place, kind=KIND, spec=spec.content(), inputs=job.inputs, say=job.progress.say)
    cache = cache_path(job.place)
    with disk_errors(cache):
        cache.mkdir(parents=True, exist_ok=True)
    cleaned = clean(spec, job, cache)
    catalogue = open_catalogue(cache, cleaned.units)
    require_text(cleaned.units, catalogue.counts, cleaned.single)
    decision, repeats = decide(spec, catalogue, job.progress, job.stop.check)
    require_some(catalogue, decision, spec)
    samples = Samples()
    rows = _write(spec, job, build.directory, cleaned.units, catalogue, decision, repeats, samples)
    stats = corpus_stats(cleaned.units, catalogue, decision, spec.tables(), rows)
    if repeats is not None:
        stats["paragraphs_removed"] = repeats.removed
    if cleaned.quality:
        stats["quality"] = cleaned.quality
    tell(stats, samples.as_json(), spec, job.progress)
    _write_report(spec, build.directory, stats, samples.as_json())
    manifest = build.commit(stats, job.records(), rows)
    _let_go(cache, cleaned.units if spec.keep_units else [])
    return manifest


def _write(
    spec: CorpusSpec,
    job: Job,
    directory: Path,
    units: list[Unit],
    catalogue: Catalogue,
    decision: Decision,
    repeats: Repeats | None,
    samples: Samples,
) -> dict[str, int]:
    """The shards, what was left out, and the n-grams; rows by file name."""
    with job.progress.bar("corpus: writing", sum(unit.bytes for unit in units), "B") as bar:

        def between(unit: Unit) -> None:
            bar.advance(unit.bytes)
            job.stop.check()

        rows = assembly.write_shards(units, catalogue, directory, decision, spec.shard_bytes, between, repeats)
    ngrams = (
        _write_ngrams(spec, job, directory, sorted(rows), int(catalogue.bytes[decision.kept].sum()))
        if spec.ngrams
        else {}
    )
    dropped = assembly.write_dropped(units, catalogue, directory, decision, samples, spec)
    _offer_kept(catalogue, decision, repeats, samples)
    return rows | dropped | ngrams


def _write_ngrams(spec: CorpusSpec, job: Job, directory: Path, shards: list[str], size: int) -> dict[str, int]:
    """Rows by file name; size: bytes of text in all shards."""
    (directory / NGRAMS).mkdir()
    written: dict[str, int] = {}
    workers = min(workers_of(spec, size), len(shards), 1 + size // SMALL)
    with job.progress.bar("corpus: n-grams", len(shards), "shards") as bar:
        counts = mapped(spec, partial(_index_shard, directory=directory), shards, workers)
        for name, count in zip(shards, counts, strict=True):
            written[f"{NGRAMS}/{name}"] = count
            bar.advance()
            job.stop.check()
    return written


def _index_shard(name: str, directory: Path) -> int:
    return write_ngrams(directory / name, directory / NGRAMS / name)


def _offer_kept(catalogue: Catalogue, decision: Decision, repeats: Repeats | None, samples: Samples) -> None:
    numbers = np.flatnonzero(decision.kept)
    ids = catalogue.hashes[numbers].byteswap()  # as text, ids compare by their bytes from the first
    lowest = np.sort(numbers[np.lexsort((ids[:, 1], ids[:, 0]))[:EACH]])
    for number, row in zip(lowest, catalogue.texts.rows(lowest), strict=True):
        text = row["text"].decode()
        written = repeats.text(int(number), text) if repeats else text
        samples.offer("kept", assembly.id_of(catalogue, int(number)), row["path"], None, written)


def _write_report(
    spec: CorpusSpec, directory: Path, stats: dict[str, Any], samples: dict[str, list[dict[str, str]]]
) -> None:
    write_json(directory / SAMPLES, samples)
    write_text(directory / REPORT, render_report(stats, samples, spec.content()))


def _let_go(cache: Path, units: list[Unit]) -> None:
    """Delete what this corpus is not made of."""
    if not units:
        shutil.rmtree(cache)
        return
    wanted = {unit.key for unit in units}
    for path in cache.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name.partition(".")[0] not in wanted or path.name.endswith(PENDING):
            path.unlink()
