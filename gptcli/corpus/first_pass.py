"""The first pass: every unit that no earlier process has finished is cleaned, in parallel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from gptcli.corpus.cleaning import Done, clean_unit, cleaning_content
from gptcli.corpus.decontamination import Items
from gptcli.corpus.evaluation_items import item_texts
from gptcli.corpus.plan import Planner, Unit
from gptcli.corpus.remarks import require_text
from gptcli.corpus.spec import CorpusSpec, item_files, located, source_files
from gptcli.corpus.training import with_weights
from gptcli.corpus.units import Counts, is_finished
from gptcli.corpus.work import mapped, workers_of
from gptcli.job import Job
from gptcli.progress import Bar
from gptcli.records.pieces import Notes
from gptcli.records.sources import SourceFile


@dataclass
class Cleaned:
    """All units, in source order, on disk; and what was told while they were made."""

    units: list[Unit] = field(default_factory=list)
    quality: list[dict[str, Any]] = field(default_factory=list)  # figures of the trained classifiers
    single: set[int] = field(default_factory=set)  # numbers of the sources that are one file


def clean(spec: CorpusSpec, job: Job, cache: Path) -> Cleaned:
    """Clean all sources into `cache`. SpecError where one can't be read; StoppedError between units."""
    files = source_files(spec, job.project, job.inputs)
    items = _items(spec, job, cache)
    ready, trained = with_weights(located(spec, job.project), spec.tables(), files, cache)
    others = [entry.content_sha256 for entry in job.inputs.entries if entry.role != "source"]
    told = {**cleaning_content(spec), "files": others, "weights": trained.sha256}
    cleaned = Cleaned(quality=trained.stats, single=_single(spec, files))
    size = _bytes(files, job)
    with job.progress.bar("corpus: cleaning", size, "B") as bar:
        units = Planner(spec.tables(), spec.max_chars, told).units(files, job.inputs.sources)
        waiting = _waiting(units, cache, cleaned, job, bar)
        work = partial(_clean_one, spec=ready, directory=cache, items=items)
        _follow(mapped(spec, work, waiting, workers_of(spec, size)), cleaned.single, job, bar)
    return cleaned


def _bytes(files: list[SourceFile], job: Job) -> int:
    """Of the sources, without the other files that are read."""
    sizes = {source.path: source.bytes for source in job.inputs.sources}
    return sum(sizes[file.name] for file in files)


def _waiting(units: Iterator[Unit], cache: Path, cleaned: Cleaned, job: Job, bar: Bar) -> Iterator[Unit]:
    """The units that are still to be made; all are put down in `cleaned`."""
    told = False
    for unit in units:
        cleaned.units.append(_light(unit))
        job.stop.check()
        if not is_finished(cache, unit):
            yield unit
            continue
        bar.skip(unit.bytes)
        if not told:
            told = True
            job.progress.say("what is cleaned already, and has not changed, is taken as it is")


def _clean_one(unit: Unit, spec: CorpusSpec, directory: Path, items: Path | None) -> tuple[Unit, Done]:
    done = clean_unit(unit, spec, directory, items)
    return _light(unit), done


def _light(unit: Unit) -> Unit:
    """The unit without the bytes of its part, which only the cleaning needs."""
    return unit if unit.part is None else replace(unit, part=replace(unit.part, data=None))


def _follow(results: Iterator[tuple[Unit, Done]], single: set[int], job: Job, bar: Bar) -> None:
    """Show how the work goes on, and end it where it makes no sense."""
    seconds: Counter[str] = Counter()
    read = kept = 0
    for unit, done in results:
        if unit.part is None or unit.part.is_whole:
            require_text([unit], [Counts(columns=done.columns, with_text=done.with_text)], single)
        seconds.update(done.seconds)
        read, kept = read + done.read, kept + done.kept
        bar.advance(unit.bytes)
        bar.show(kept=f"{100 * kept / max(read, 1):.0f} %", slowest=seconds.most_common(1)[0][0])
        job.stop.check()


def _single(spec: CorpusSpec, files: list[SourceFile]) -> set[int]:
    """The sources that are one file, named by itself."""
    files_of = Counter(file.source for file in files)
    return {number for number, table in enumerate(spec.tables()) if files_of[table.name] == 1}


def _items(spec: CorpusSpec, job: Job, cache: Path) -> Path | None:
    """The n-grams of the evaluation items, where every worker finds them."""
    files = item_files(spec, job.project, job.inputs)
    if not files:
        return None
    given, notes = spec.decontamination, Notes()
    items = Items.build(item_texts(files, notes), given.ngram, given.action, given.margin)
    job.progress.say(f"decontamination: {items.count:,} items, {items.too_short:,} of them too short to be found")
    for name, fault in notes.faults:
        job.progress.warn(f"{name} is damaged ({fault}); the items that could be read are looked for")
    path = cache / "items.safetensors"
    items.save(path)
    return path
