"""What is scored: text files, the documents of a split, held-out chats."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from gptcli.artifacts.manifest import manifest_of, read_manifest
from gptcli.artifacts.project import Project
from gptcli.artifacts.shards import open_shard, shard_paths
from gptcli.artifacts.tokens import TokenStream
from gptcli.errors import ArtifactError, SpecError
from gptcli.eval.spec import EvalSpec, held_out_share
from gptcli.job import Job
from gptcli.records.chats import Chats
from gptcli.records.opening import Blocks, sniff
from gptcli.records.sources import recorded_files, require_unchanged
from gptcli.records.text import TextFile, separator_pattern
from gptcli.scoring.chats import RenderedChat
from gptcli.scoring.documents import Origins
from gptcli.scoring.provenance import corpus_of_tokens, count_words, split_origins
from gptcli.scoring.rendering import render_chats
from gptcli.tokenizer import Tokenizer


@dataclass(frozen=True)
class Documents:
    """What is scored: a stream of documents, an id of each, and where they come from, with their words (None: not
    known); `missing`: what could not be told of them, in words."""

    stream: TokenStream
    ids: Sequence[str]
    origins: Origins | None
    missing: tuple[str, ...] = ()


def text_documents(spec: EvalSpec, job: Job) -> Iterator[tuple[str, str]]:
    """The first `limit` documents of the text sources, each with the name of its file.

    Raises SpecError for a source that can't be read as text, is gone, or is no longer the one that was hashed.
    """
    try:
        separator = separator_pattern(spec.separator)
    except ValueError as error:
        raise SpecError(
            f"separator = {spec.separator!r} {error}", "none, line, blank_lines or an expression"
        ) from error
    recorded = {source.path: source for source in job.inputs.sources}
    given = 0
    for file in recorded_files(spec.text, job.project.root, job.inputs, "text"):
        if sniff(file.path, file.name) in ("binary", "parquet", "arrow", "zip", "tar"):
            raise SpecError(f"{file.name} holds no text", "score text files")
        reader = TextFile(Blocks(file.path, file.name), separator)
        whole = (document.text for document in reader if not document.problem)
        for text in islice(whole, spec.limit - given if spec.limit else None):
            given += 1
            yield file.name, text
        require_unchanged(file.path, recorded[file.name])
        if reader.fault:
            job.progress.warn(f"{file.name}: {reader.fault}; what could be read of it is scored")
        if spec.limit and given == spec.limit:
            return


def text_stream(spec: EvalSpec, job: Job, tokenizer: Tokenizer) -> Documents:
    """The text sources as one stream, encoded by the model's own tokenizer; a document's id is its content hash."""
    ids, sizes, names, words, hashes = [], [], [], [], []
    for name, text in text_documents(spec, job):
        job.stop.check()
        ids.append(np.array(tokenizer.document(text), np.uint32))
        data = text.encode()
        sizes.append(len(data))
        names.append(name)
        words.append(count_words(text))
        hashes.append(hashlib.sha256(data).hexdigest()[:32])
    origins = Origins(names, np.array(words, np.int64))
    return Documents(TokenStream.of_documents(ids, sizes), hashes, origins)


def split_documents(project: Project, tokens: Path, split: str, limit: int) -> Documents:
    """The first `limit` documents of a split (0: all), with what the corpus they were made of tells of them."""
    stream = TokenStream.open(tokens, split, limit)
    ids = [document for path in shard_paths(tokens, split) for document in _column(path, "document")]
    behind = corpus_of_tokens(project, tokens)
    if not behind.corpora:
        return Documents(stream, ids[: stream.documents], None, (f"no figures by source: {behind.reason}",))
    return Documents(stream, ids[: stream.documents], split_origins(behind.corpora[0], split, limit))


def split_texts(project: Project, tokens: Path, split: str, limit: int) -> Iterator[str]:
    """The texts behind the first `limit` documents of a split (0: all), from the corpus the tokens were made of.

    Raises ArtifactError when that corpus is gone or has changed.
    """
    recorded = next((entry for entry in read_manifest(tokens, "tokens").inputs if entry.role == "corpus"), None)
    corpus = project.path(recorded.path) if recorded else None
    manifest = manifest_of(corpus) if corpus else None
    if recorded is None or corpus is None or manifest is None:
        raise ArtifactError(
            f"the corpus behind {project.relative(tokens)} is gone, so there is no text to compress",
            "make it again, or leave out --baselines",
        )
    if manifest.content_sha256 != recorded.content_sha256:
        raise ArtifactError(
            f"{recorded.path} has changed since {project.relative(tokens)} was made of it", "gptcli tokenize --update"
        )
    return islice((text for path in shard_paths(corpus, split) for text in _column(path, "text")), limit or None)


def _column(shard: Path, name: str) -> Iterator[str]:
    reader = open_shard(shard)
    for number in range(reader.num_record_batches):
        yield from reader.get_batch(number).column(name).to_pylist()


def held_out_chats(
    spec: EvalSpec, job: Job, tokenizer: Tokenizer, seq_len: int
) -> tuple[list[RenderedChat], dict[str, int]]:
    """The chats whose question falls into the held-out share, those fine-tuning on the same sources doesn't see; and
    how many rows and chats were left out, by reason.

    Raises SpecError when none is held out.
    """
    chats = Chats(spec.chats, job.project.root, job.inputs)
    share = held_out_share(spec, job.project)
    found = render_chats(chats, tokenizer, seq_len, share)
    for name, fault in chats.faults.items():
        job.progress.warn(f"{name}: {fault}; what could be read of it is scored")
    if not found.held_out:
        raise SpecError(
            f"no chat of {', '.join(spec.chats)} is held out with val_share = {share}",
            "raise val_share, or give more chats",
        )
    return found.held_out, {**chats.left_out, **found.left_out}
