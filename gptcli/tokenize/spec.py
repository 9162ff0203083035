"""What to tokenize and how; also what the stage reads and needs, told without loading Arrow or the tokenizer engine."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from gptcli.artifacts.durable import canonical_json, sha256_file
from gptcli.artifacts.manifest import MANIFEST, Input, Inputs, Manifest, read_manifest
from gptcli.artifacts.project import Project
from gptcli.console import human_bytes, human_count
from gptcli.errors import ArtifactError, SpecError
from gptcli.spec import Spec, run_field

STAGE = "tokenize"
KIND = "tokens"
FOLDER = "tokens"
DEFAULT_NAME = "main"
TRAINED = False

SMALLEST_VOCAB = 279  # four special ids, 18 control ids, 256 bytes and one character
_TEXT_PER_STORED_BYTE = 6  # no more than this, seen on text and code: corpus shards are compressed
_TOKENS_PER_TEXT_BYTE = 0.5


class TokenizeSpec(Spec):
    """Train a lossless sentencepiece BPE tokenizer on the train split, or take one, and encode every split."""

    corpus: str = Field("main", min_length=1, description="the corpus to encode: corpus/NAME")
    tokenizer: str = Field(
        "", description="take this tokenizer instead of training one: a directory, or NAME for tokens/NAME's"
    )
    vocab_size: int = Field(8192, ge=SMALLEST_VOCAB, le=1 << 20, description="ids in the vocabulary, specials included")
    split_digits: bool = Field(True, description="every digit is a token of its own")
    split_by_script: bool = Field(True, description="no token spans two Unicode scripts (letters and signs, say)")
    max_piece_chars: int = Field(32, ge=1, le=512, description="characters in the longest token")
    character_coverage: float = Field(
        0.9995, gt=0.5, le=1, description="share of the text's characters with tokens of their own; the rest are bytes"
    )
    sample_bytes: int = Field(0, ge=0, description="train on about this many bytes of documents; 0: on all")
    seed: int = Field(0, ge=0, lt=1 << 63, description="picks the documents that sample_bytes leaves")
    workers: int = run_field(0, "processes; 0: one a core, for as many as have enough to do", ge=0, le=1024)

    @model_validator(mode="after")
    def _train_or_take(self) -> TokenizeSpec:
        unread = sorted(self.model_fields_set & _TRAINING_KEYS)
        if self.tokenizer and unread:
            raise SpecError(
                f"tokenizer = {self.tokenizer!r} takes a trained tokenizer, so {', '.join(unread)} would not be read",
                "leave out the one or the other",
            )
        return self

    def content(self) -> dict[str, Any]:
        """The keys that decide the content: those of training are none of them where a tokenizer is given."""
        content = super().content()
        return {key: content[key] for key in content if not (self.tokenizer and key in _TRAINING_KEYS)}


_TRAINING_KEYS = frozenset(
    {
        "vocab_size",
        "split_digits",
        "split_by_script",
        "max_piece_chars",
        "character_coverage",
        "sample_bytes",
        "seed",
    }
)
SPEC = TokenizeSpec


def inputs(spec: TokenizeSpec, project: Project, previous: Manifest | None) -> Inputs:
    """The corpus, and the tokenizer when one is given. ArtifactError when one of them isn't there."""
    place = project.place("corpus", spec.corpus)
    if not (place / MANIFEST).is_file():
        raise ArtifactError(
            f"there is no corpus {spec.corpus} ({project.relative(place)})",
            f"gptcli corpus SOURCE --name {spec.corpus}",
        )
    corpus = read_manifest(place, "corpus")
    entries = [Input("corpus", project.relative(place), corpus.content_sha256)]
    if spec.tokenizer:
        directory = tokenizer_directory(spec, project)
        entries.append(Input("tokenizer", project.relative(directory), _hash_of_files(directory)))
    return Inputs(tuple(entries))


def tokenizer_directory(spec: TokenizeSpec, project: Project) -> Path:
    """The folder the key `tokenizer` names. ArtifactError when it holds no tokenizer.model."""
    if "/" in spec.tokenizer or spec.tokenizer.startswith("."):
        directory = project.path(spec.tokenizer)
        if (directory / "tokenizer" / "tokenizer.model").is_file():
            directory = directory / "tokenizer"
    else:
        directory = project.place(FOLDER, spec.tokenizer) / "tokenizer"
    if not (directory / "tokenizer.model").is_file():
        raise ArtifactError(
            f"tokenizer = {spec.tokenizer!r}: there is no {directory / 'tokenizer.model'}",
            "name a directory that holds a tokenizer.model (./some/dir), or a tokens artifact (main)",
        )
    return directory


def disk_needed(spec: TokenizeSpec, project: Project, inputs: Inputs) -> int:
    """An estimate in bytes, generous: token ids of every document, and a few MB for the tokenizer."""
    stored = read_manifest(project.place("corpus", spec.corpus), "corpus").total_bytes()
    bytes_per_token = 4 if not spec.tokenizer and spec.vocab_size > 1 << 16 else 2
    return int(stored * _TEXT_PER_STORED_BYTE * _TOKENS_PER_TEXT_BYTE) * bytes_per_token + (16 << 20)


def summary(stats: dict[str, Any]) -> list[tuple[str, str]]:
    """The rows a person reads."""
    rows = [("vocabulary", f"{stats['vocab_size']:,} ids ({'trained' if stats['trained'] else 'taken as it is'})")]
    for split, figures in stats["splits"].items():
        rows.append(
            (
                split,
                f"{figures['documents']:,} documents, {human_bytes(figures['bytes'])}, "
                f"{human_count(figures['tokens'])} tokens, {figures['bytes_per_token']:.2f} bytes a token, "
                f"{100 * figures['byte_share']:.2f} % single bytes",
            )
        )
    checked = f"{stats['checked_documents']:,} documents decoded back"
    changed = stats["changed_documents"]
    rows.append(("checked", checked + (f", {changed:,} not to the same text" if changed else ", each to itself")))
    return rows


def _hash_of_files(directory: Path) -> str:
    from gptcli.tokenizer import CARRIED_FILES

    listing = [[name, sha256_file(directory / name)] for name in CARRIED_FILES if (directory / name).is_file()]
    return hashlib.sha256(canonical_json(listing)).hexdigest()
