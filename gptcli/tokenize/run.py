"""The tokenize run: a tokenizer, trained or taken, then every corpus shard encoded by a pool of processes.

What trains, encodes and packs is loaded only where it is used: mostly in other processes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptcli.artifacts.build import Build
from gptcli.artifacts.durable import link, replace
from gptcli.artifacts.manifest import Manifest
from gptcli.artifacts.packing import packing_path
from gptcli.artifacts.shards import open_shard
from gptcli.console import human_bytes
from gptcli.job import Job
from gptcli.runtime.executor import default_workers, map_where
from gptcli.tokenize.counts import ShardCounts
from gptcli.tokenize.importing import import_tokenizer
from gptcli.tokenize.learning.figures import training_figures, training_files
from gptcli.tokenize.shards import corpus_shards, encode_shard, finished, of_whole_shard
from gptcli.tokenize.spec import KIND, TokenizeSpec, tokenizer_source
from gptcli.tokenize.units import is_sealed, seal
from gptcli.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gptcli.training.packing import PackingFigures

TOKENIZER = "tokenizer"  # the folder in the artifact
WORTH_A_WORKER = 8 << 20  # bytes of compressed shards: a process takes as long to start as to encode some 20 MB


def run(spec: TokenizeSpec, job: Job) -> Manifest:
    """Build tokens/NAME. Raises SpecError when the text can't give vocab_size, ArtifactError for a broken corpus."""
    build = Build.open(job.place, kind=KIND, spec=spec.content(), inputs=job.inputs, say=job.progress.say)
    corpus = job.project.place("corpus", spec.corpus)
    shards = corpus_shards(corpus)
    sums = {path: wanted for paths in shards.values() for path, wanted in paths.items()}
    _make_tokenizer(spec, job, build.units, {path: sums[path] for path in shards["train"]})
    tokenizer = Tokenizer.load(build.units / TOKENIZER)
    counts = _encode(spec, job, build.units, tokenizer, sums)
    for path in counts:
        link(build.units / path.name, build.directory / path.name)
    tokenizer.copy_to(build.directory / TOKENIZER)
    packing, learnt = _pack(spec, job, build.directory), training_figures(build.units)
    by_split = {split: sum((counts[path] for path in paths), ShardCounts()) for split, paths in shards.items() if paths}
    total = sum(by_split.values(), ShardCounts())
    if total.changed_documents:
        job.progress.warn(
            f"this tokenizer rewrites text: {total.changed_documents} of {total.checked_documents} documents "
            "looked at don't decode to themselves"
        )
    stats = {
        "vocab_size": tokenizer.vocab_size,
        "trained": not spec.tokenizer,
        "tokenizer_sha256": tokenizer.fingerprint,
        "splits": {split: _figures(each) for split, each in by_split.items()},
        "checked_documents": total.checked_documents,
        "changed_documents": total.changed_documents,
        "whole_texts": total.whole_texts,
        **({"training": learnt["stats"]} if learnt else {}),
        "packing": {name: figures.stats() for name, figures in packing.items()},
    }
    rows = {path.name: each.documents for path, each in counts.items()}
    records = {**job.records(), **learnt.get("records", {})}
    return build.commit(stats, records, rows | {name: figures.rows for name, figures in packing.items()})


def _make_tokenizer(spec: TokenizeSpec, job: Job, units: Path, train_shards: dict[Path, str]) -> None:
    """Put the tokenizer into units/tokenizer, unless an interrupted run has done so."""
    directory = units / TOKENIZER
    if is_sealed(units, TOKENIZER):
        return
    # What is half-written lies elsewhere: the folder takes its name when it is whole.
    pending = units / f"{TOKENIZER}.making"
    for leftover in (directory, pending):
        shutil.rmtree(leftover, ignore_errors=True)
    if spec.tokenizer:
        import_tokenizer(tokenizer_source(spec, job.project), pending)
    else:
        from gptcli.tokenize.learning.learn import learn_tokenizer

        run_map = partial(_map, spec, train_shards)
        learn_tokenizer(spec, job, units, pending, list(train_shards), run_map)
        job.stop.check()
    replace(pending, directory)
    files = [f"{TOKENIZER}/{path.name}" for path in sorted(directory.iterdir())]
    seal(units, TOKENIZER, files + training_files(units))


def _map(spec: TokenizeSpec, sums: dict[Path, str], function: Callable[[Path], Any], shards: list[Path]) -> Any:
    """`function` of every shard, in their order, by as many processes as there is work for."""
    workers = spec.workers if spec.executor == "ray" else _workers(spec, shards)
    items = [(shard, sums[shard]) for shard in shards]
    return map_where(spec.executor, partial(of_whole_shard, function), items, workers)


def _encode(
    spec: TokenizeSpec, job: Job, units: Path, tokenizer: Tokenizer, sums: dict[Path, str]
) -> dict[Path, ShardCounts]:
    """Encode what no earlier process has; the counts of every shard, in the shards' order."""
    counts = {shard: finished(units, shard, tokenizer.fingerprint) for shard in sums}
    waiting = [shard for shard, done in counts.items() if done is None]
    with job.progress.bar("encoding", sum(map(_rows, sums)), "documents") as bar:
        bar.start_at(sum(done.documents for done in counts.values() if done is not None))
        text_bytes = 0
        work = partial(encode_shard, units / TOKENIZER, tokenizer.fingerprint, units)
        for shard, done in zip(waiting, _map(spec, sums, work, waiting), strict=True):
            counts[shard] = done
            if done.whole_texts and not text_bytes:
                job.progress.say(f"texts are encoded whole, a few MB a second: {_why_whole(tokenizer)}")
            text_bytes += done.bytes
            bar.show(text=human_bytes(text_bytes))
            bar.advance(done.documents)
            job.stop.check()
    return {shard: done for shard, done in counts.items() if done is not None}


def _why_whole(tokenizer: Tokenizer) -> str:
    from gptcli.tokenize.encoding.splitting import splitting_of

    return str(splitting_of(tokenizer))


def _rows(shard: Path) -> int:
    reader = open_shard(shard)
    return int(reader.count_rows())


def _pack(spec: TokenizeSpec, job: Job, directory: Path) -> dict[str, PackingFigures]:
    """Write the packing indexes beside the shards in `directory`; their figures by file name in the artifact."""
    found: dict[str, PackingFigures] = {}
    if not spec.packing:
        return found
    from gptcli.training.packing import write_packing

    for pack in spec.packing:
        for split in pack.splits:
            job.stop.check()
            place = packing_path(directory, split, pack.how, pack.seq_len, pack.seed)
            found[place.relative_to(directory).as_posix()] = write_packing(directory, split, pack, place)
    return found


def _workers(spec: TokenizeSpec, shards: list[Path]) -> int:
    """How many processes to use: as the spec says, else one a core where each has enough to do; never more than
    there are shards."""
    if spec.workers:
        return max(1, min(spec.workers, len(shards)))
    stored = sum(shard.stat().st_size for shard in shards)
    return max(1, min(default_workers(), len(shards), stored // WORTH_A_WORKER))


def _figures(counts: ShardCounts) -> dict[str, Any]:
    tokens = max(counts.tokens, 1)
    return {
        "documents": counts.documents,
        "bytes": counts.bytes,
        "tokens": counts.tokens,
        "bytes_per_token": round(counts.bytes / tokens, 4),
        "byte_share": round(counts.byte_tokens / tokens, 6),
        "unknown_share": round(counts.unknown_tokens / tokens, 6),
    }
