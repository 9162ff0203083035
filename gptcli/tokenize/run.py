"""The tokenize run: a tokenizer, trained or taken, then every corpus shard encoded by a pool of processes."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gptcli.artifacts.build import Build
from gptcli.artifacts.durable import replace
from gptcli.artifacts.manifest import Manifest, read_manifest
from gptcli.artifacts.schemas import SPLITS
from gptcli.artifacts.shards import shard_paths
from gptcli.console import human_bytes
from gptcli.job import Job
from gptcli.runtime.executor import default_workers, map_ordered
from gptcli.tokenize.hf_files import write_tokenizer
from gptcli.tokenize.shards import ShardCounts, begin_worker, encode_shard, finished, read_texts
from gptcli.tokenize.spec import KIND, TokenizeSpec, tokenizer_directory
from gptcli.tokenize.train import count_words, train_model
from gptcli.tokenizer import MODEL_FILE, Tokenizer

TOKENIZER = "tokenizer"  # the folder in the artifact
WORTH_A_WORKER = 8 << 20  # bytes of compressed shards: a process takes as long to start as to encode some 20 MB


def run(spec: TokenizeSpec, job: Job) -> Manifest:
    """Build tokens/NAME. Raises SpecError when the text can't give vocab_size, ArtifactError for a broken corpus."""
    build = Build.open(job.place, kind=KIND, spec=spec.content(), inputs=job.inputs, say=job.progress.say)
    corpus = job.project.place("corpus", spec.corpus)
    shards = {split: shard_paths(corpus, split) for split in SPLITS}
    _make_tokenizer(spec, job, build.units, shards["train"])
    counts = _encode(spec, job, build.units, corpus, [path for paths in shards.values() for path in paths])
    for path in counts:
        replace(build.units / path.name, build.directory / path.name)
    tokenizer = Tokenizer.load(build.units / TOKENIZER)
    tokenizer.copy_to(build.directory / TOKENIZER)
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
    }
    return build.commit(stats, job.records(), {path.name: each.documents for path, each in counts.items()})


def _make_tokenizer(spec: TokenizeSpec, job: Job, units: Path, train_shards: list[Path]) -> None:
    """Put the tokenizer into units/tokenizer, unless an interrupted run has done so."""
    directory = units / TOKENIZER
    if (directory / MODEL_FILE).is_file():
        return
    # What lacks tokenizer.model is half-written: the folder takes its name when it is whole.
    pending = units / f"{TOKENIZER}.making"
    if spec.tokenizer:
        Tokenizer.load(tokenizer_directory(spec, job.project)).copy_to(pending)
    else:
        words = _count(spec, job, train_shards)
        job.progress.say(f"training {spec.vocab_size:,} pieces on {len(words):,} distinct words")
        write_tokenizer(
            pending,
            train_model(
                words,
                vocab_size=spec.vocab_size,
                split_digits=spec.split_digits,
                split_by_script=spec.split_by_script,
                max_piece_chars=spec.max_piece_chars,
                character_coverage=spec.character_coverage,
            ),
        )
        job.stop.check()
    replace(pending, directory)


def _count(spec: TokenizeSpec, job: Job, shards: list[Path]) -> dict[str, int]:
    workers = _workers(spec, shards)
    share = 1.0
    if spec.sample_bytes:
        sizes = map_ordered(_text_bytes, shards, workers)
        share = min(1.0, spec.sample_bytes / max(sum(sizes), 1))
    words: dict[str, int] = {}
    with job.progress.bar("counting words", len(shards), "shards") as bar:
        for counts in map_ordered(partial(count_shard, share=share, seed=spec.seed), shards, workers):
            job.stop.check()
            if not words:
                words = counts
            else:
                for word, count in counts.items():
                    words[word] = words.get(word, 0) + count
            bar.advance()
    return words


def count_shard(shard: Path, share: float, seed: int) -> dict[str, int]:
    """Words of a shard's documents, or of a `share` of them that only `seed` and their content choose."""
    limit = int(share * (1 << 64))
    key = seed.to_bytes(8, "little")

    def chosen(documents: Any, texts: Any) -> Any:
        if share >= 1:
            return texts
        hashes = (hashlib.blake2b(document.encode(), digest_size=8, key=key) for document in documents.to_pylist())
        return texts.filter(pa.array([int.from_bytes(each.digest(), "little") < limit for each in hashes]))

    return count_words(chosen(documents, texts) for documents, texts in read_texts(shard))


def _text_bytes(shard: Path) -> int:
    return sum(pc.sum(pc.binary_length(texts)).as_py() or 0 for _, texts in read_texts(shard))


def _encode(spec: TokenizeSpec, job: Job, units: Path, corpus: Path, shards: list[Path]) -> dict[Path, ShardCounts]:
    """Encode what no earlier process has; the counts of every shard, in the shards' order."""
    counts = {shard: finished(units, shard) for shard in shards}
    waiting = [shard for shard, done in counts.items() if done is None]
    rows = {entry.path: entry.rows or 0 for entry in read_manifest(corpus, "corpus").files}
    total = sum(rows.get(shard.name, 0) for shard in shards)
    workers = _workers(spec, waiting)
    with job.progress.bar("encoding", total, "documents") as bar:
        bar.start_at(sum(done.documents for done in counts.values() if done is not None))
        text_bytes = 0
        results = map_ordered(encode_shard, waiting, workers, begin_worker, (units / TOKENIZER, units))
        for shard, done in zip(waiting, results, strict=True):
            counts[shard] = done
            text_bytes += done.bytes
            bar.show(text=human_bytes(text_bytes))
            bar.advance(done.documents)
            job.stop.check()
    return {shard: done for shard, done in counts.items() if done is not None}


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
