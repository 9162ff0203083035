"""The corpus behind tokens or a model, and what it tells of a split's documents."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gptcli.artifacts.locations import resolve_model
from gptcli.artifacts.manifest import Input, Manifest, manifest_of
from gptcli.artifacts.ngrams import NGRAMS, NgramIndex
from gptcli.artifacts.project import Project
from gptcli.artifacts.shards import open_shard, shard_paths
from gptcli.errors import ArtifactError
from gptcli.scoring.documents import Origins

_WHITE_SPACE = re.compile(r"\s+")
_TOKENS_ROLE, _CORPUS_ROLE = "tokens", "corpus"
_MODEL_ROLES = ("base", "adapter", "model")  # of what a model was made of; a version has its checkpoint's inputs itself


class Behind(NamedTuple):
    """The corpora (corpus/NAME) that could be found, and in words what could not, and why."""

    corpora: tuple[Path, ...]
    missing: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """`missing` as one line."""
        return "; ".join(self.missing)


def corpus_of_tokens(project: Project, tokens: Path) -> Behind:
    """The corpus that tokens/NAME was made of, as it was then: one or none."""
    name = project.relative(tokens)
    found, reason = _manifest(tokens, name)
    return Behind((), (reason,)) if found is None else _corpus(project, found, name)


def corpora_of_model(project: Project, ref: str) -> Behind:
    """The corpora that a model has learnt from: those of its own tokens, and of the models that it began from or was
    made of (the base of an adapter or of a longer training, the parts of an average).

    Raises ArtifactError when there is no such model.
    """
    directory = resolve_model(project, ref).directory
    found, reason = _manifest(directory, ref)
    if found is None:
        return Behind((), (reason,))
    corpora: dict[Path, None] = {}
    missing: dict[str, None] = {}
    _gather(project, found, ref, corpora, missing, set())
    return Behind(tuple(corpora), tuple(missing))


def _gather(
    project: Project, model: Manifest, name: str, corpora: dict[Path, None], missing: dict[str, None], seen: set[str]
) -> None:
    """Add what is behind a model; each artifact is opened once."""
    told = False
    for entry in model.inputs:
        if entry.role not in (_TOKENS_ROLE, *_MODEL_ROLES):
            continue
        told = True
        if entry.path in seen:
            continue
        seen.add(entry.path)
        made, reason = _unchanged(project, entry)
        if made is None:
            missing[reason] = None
        elif entry.role == _TOKENS_ROLE:
            found = _corpus(project, made, entry.path)
            corpora.update(dict.fromkeys(found.corpora))
            missing.update(dict.fromkeys(found.missing))
        else:
            _gather(project, made, entry.path, corpora, missing, seen)
    if not told:
        missing[f"{name} was not trained on tokens of this project"] = None


def _corpus(project: Project, tokens: Manifest, name: str) -> Behind:
    entry = _entry(tokens, _CORPUS_ROLE)
    if entry is None:
        return Behind((), (f"{name} names no corpus",))
    made, reason = _unchanged(project, entry)
    return Behind((), (reason,)) if made is None else Behind((project.path(entry.path),))


def _entry(manifest: Manifest, role: str) -> Input | None:
    return next((entry for entry in manifest.inputs if entry.role == role), None)


def _unchanged(project: Project, entry: Input) -> tuple[Manifest | None, str]:
    """The manifest of an input, or None and why: it is gone, damaged, or another than was used."""
    found, reason = _manifest(project.path(entry.path), entry.path)
    if found is not None and found.content_sha256 != entry.content_sha256:
        return None, f"{entry.path} has changed since"
    return found, reason


def _manifest(directory: Path, name: str) -> tuple[Manifest | None, str]:
    try:
        found = manifest_of(directory)
    except ArtifactError as error:
        return None, error.message
    if found is None:
        return None, f"{name} is gone" if not directory.exists() else f"{name} does not say what it was made of"
    return found, ""


def train_ngrams(behind: Behind) -> tuple[list[NgramIndex], tuple[str, ...]]:
    """The 13-grams of the corpora's train splits, memory-mapped, and what is missing, in words: what was already, and
    corpora that were built without n-grams."""
    found, missing = [], list(behind.missing)
    for corpus in behind.corpora:
        try:
            found.append(NgramIndex.open(corpus / NGRAMS, "train"))
        except ArtifactError as error:
            missing.append(error.message)
    return found, tuple(missing)


def count_words(text: str) -> int:
    """The pieces that runs of white space part a text into, one at least: lm-eval's words of word_perplexity."""
    return len(_WHITE_SPACE.split(text))


def split_origins(corpus: Path, split: str, limit: int = 0) -> Origins:
    """Path and words of the first `limit` documents (0: all) of a split, in order.

    Raises ArtifactError for a shard that is broken.
    """
    paths, words = [], []
    for path, text in islice(_documents(corpus, split), limit or None):
        paths.append(path)
        words.append(count_words(text))
    return Origins(paths, np.array(words, np.int64))


def _documents(corpus: Path, split: str) -> Iterator[tuple[str, str]]:
    for path in shard_paths(corpus, split):
        reader: Any = open_shard(path)
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            yield from zip(batch.column("path").to_pylist(), batch.column("text").to_pylist(), strict=True)
