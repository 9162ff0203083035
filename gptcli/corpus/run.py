"""corpus: units cleaned in parallel, then one pass that dedups, splits and cuts shards."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import numpy as np

from gptcli.artifacts.build import Build
from gptcli.artifacts.manifest import Manifest
from gptcli.artifacts.schemas import SPLITS
from gptcli.corpus.assembly import LEFT_OUT, Decision, decide, write_shards
from gptcli.corpus.cleaning import DUPLICATE, clean_unit
from gptcli.corpus.spec import KIND, CorpusSpec
from gptcli.corpus.units import Counts, Index, Unit, is_finished, plan_units, read_index, total_bytes
from gptcli.errors import SpecError
from gptcli.job import Job
from gptcli.records.sources import recorded_files
from gptcli.records.stdlib import LICENSE, STDLIB
from gptcli.runtime.executor import default_workers, map_ordered

_SMALL = 32_000_000  # raw bytes; starting worker processes costs more than it saves below
_MOST_TOLD = 5  # warnings of one kind


def run(spec: CorpusSpec, job: Job) -> Manifest:
    """Build corpus/NAME. SpecError where a source can't be read or nothing is left; StoppedError between units."""
    build = Build.open(job.place, kind=KIND, spec=spec.content(), inputs=job.inputs, say=job.progress.say)
    typed = list(dict.fromkeys(spec.source))
    licenses = [spec.license or (LICENSE if source == STDLIB else None) for source in typed]
    files = recorded_files(spec.source, job.project.root, job.inputs, "source")
    units = plan_units(files, job.inputs.sources, licenses)
    _clean(units, spec, job, build)
    indexes = [read_index(build.units, unit) for unit in units]
    decision = decide(indexes, spec)
    stats = _stats(indexes, decision, typed, licenses)
    _tell(stats, spec, job)
    with job.progress.bar("corpus: writing", total_bytes(units), "B") as bar:

        def between(unit: Unit) -> None:
            bar.advance(unit.bytes)
            job.stop.check()

        rows = write_shards(units, build.units, build.directory, decision, between)
    return build.commit(stats, job.records(), rows)


def _clean(units: list[Unit], spec: CorpusSpec, job: Job, build: Build) -> None:
    """Every unit that an earlier process has not finished."""
    waiting = [unit for unit in units if not (build.resumed and is_finished(build.units, unit))]
    if len(waiting) < len(units):
        job.progress.say(f"going on: {len(units) - len(waiting)} of {len(units)} units are finished")
    many = spec.workers or (default_workers() if total_bytes(waiting) >= _SMALL else 1)
    clean = partial(clean_unit, spec=spec, directory=build.units)
    with job.progress.bar("corpus: cleaning", total_bytes(units), "B") as bar:
        bar.start_at(total_bytes(units) - total_bytes(waiting))
        results = map_ordered(clean, waiting, min(many, max(len(waiting), 1)))
        for unit, _ in zip(waiting, results, strict=True):
            bar.advance(unit.bytes)
            job.stop.check()


def _stats(indexes: list[Index], decision: Decision, typed: list[str], licenses: list[str | None]) -> dict[str, Any]:
    """What the manifest tells: everything read is kept in a split or counted under a reason."""
    counts = Counts()
    for index in indexes:
        counts.add(index.counts)
    sources = np.concatenate([index.sources for index in indexes])
    lengths = np.concatenate([index.bytes for index in indexes])
    chars = np.concatenate([index.chars for index in indexes])
    kept = decision.splits != LEFT_OUT
    for source, count in enumerate(np.bincount(sources[~kept], minlength=len(typed))):
        if count:
            counts.leave_out(source, DUPLICATE, int(count))
    left_out: Counter[str] = Counter()
    for reasons in counts.left_out.values():
        left_out.update(reasons)
    splits = {}
    for number, split in enumerate(SPLITS):
        chosen = decision.splits == number
        splits[split] = {
            "documents": int(chosen.sum()),
            "bytes": int(lengths[chosen].sum()),
            "chars": int(chars[chosen].sum()),
            "shards": int(decision.shards[chosen].max()) + 1 if chosen.any() else 0,
        }
    return {
        "documents_read": sum(counts.read.values()),
        "documents": int(kept.sum()),
        "bytes": int(lengths[kept].sum()),
        "left_out": dict(sorted(left_out.items())),
        "invalid_bytes": sum(counts.invalid.values()),
        "splits": splits,
        "sources": [
            {
                "source": source,
                "license": licenses[number],
                "documents_read": counts.read.get(str(number), 0),
                "documents": int((kept & (sources == number)).sum()),
                "bytes": int(lengths[kept & (sources == number)].sum()),
                "left_out": dict(sorted(counts.left_out.get(str(number), {}).items())),
                "invalid_bytes": counts.invalid.get(str(number), 0),
            }
            for number, source in enumerate(typed)
        ],
        "faults": [{"path": name, "fault": fault} for name, fault in counts.faults],
    }


def _tell(stats: dict[str, Any], spec: CorpusSpec, job: Job) -> None:
    """Warn of what a person would want to know now. SpecError where nothing is left."""
    for found in stats["faults"][:_MOST_TOLD]:
        job.progress.warn(f"{found['path']} is damaged ({found['fault']}); what could be read of it is kept")
    if len(stats["faults"]) > _MOST_TOLD:
        job.progress.warn(f"{len(stats['faults']) - _MOST_TOLD} more files are damaged; the manifest names them")
    for found in [found for found in stats["sources"] if found["invalid_bytes"]][:_MOST_TOLD]:
        job.progress.warn(
            f"{found['source']}: {found['invalid_bytes']:,} bytes are not valid {spec.encoding} and became U+FFFD"
            + ("; --set encoding=latin-1 reads Western European text" if spec.encoding == "utf-8" else "")
        )
    if not stats["documents"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in stats["left_out"].items())
        raise SpecError(
            f"no document is left of {stats['documents_read']} read: {reasons}",
            'a file of many documents wants separator = "blank_lines", "line" or a regular expression'
            if "too_long" in stats["left_out"]
            else "check the sources and the filters",
        )
    for split, share in (("val", spec.val_share), ("test", spec.test_share), ("train", 1)):
        if share and not stats["splits"][split]["documents"]:
            job.progress.warn(
                f"the {split} split is empty: {stats['documents']} documents are few; "
                'a separator ("blank_lines", "line") or a larger share gives it some'
            )
