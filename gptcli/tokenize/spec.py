"""What to tokenize and how; also what the stage reads and needs, told without loading Arrow or the tokenizer engine."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from gptcli.artifacts.manifest import MANIFEST, Input, Inputs, Manifest, read_manifest
from gptcli.artifacts.project import Project
from gptcli.console import human_bytes, human_count
from gptcli.errors import ArtifactError, SpecError
from gptcli.spec import Spec, run_field
from gptcli.tokenize.importing import Source, find
from gptcli.tokenize.learning.user_tokens import check_user_tokens
from gptcli.training.pack import Packs

STAGE = "tokenize"
KIND = "tokens"
FOLDER = "tokens"
DEFAULT_NAME = "main"
TRAINED = False

_SPLITS = ("train", "val", "test")  # as artifacts/schemas.py has them, which loads Arrow

SMALLEST_VOCAB = 279  # four special ids, 18 control ids, 256 bytes and one character
_TEXT_PER_STORED_BYTE = 6  # no more than this, seen on text and code: corpus shards are compressed
_TOKENS_PER_TEXT_BYTE = 0.5


class TokenizeSpec(Spec):
    """Train a lossless sentencepiece tokenizer on the train split, or take one, and encode every split."""

    corpus: str = Field("main", min_length=1, description="the corpus to encode: corpus/NAME")
    tokenizer: str = Field(
        "", description="take this tokenizer instead of training one: a directory or file, or NAME for tokens/NAME's"
    )
    vocab_size: int = Field(8192, ge=SMALLEST_VOCAB, le=1 << 20, description="ids in the vocabulary, specials included")
    model_type: Literal["bpe", "unigram"] = Field(
        "bpe", description="byte-pair encoding, or a unigram language model of pieces"
    )
    user_tokens: list[str] = Field(
        [], description="strings that always are one token, with loss on them like any text; counted in vocab_size"
    )
    split_digits: bool = Field(True, description="every digit is a token of its own")
    split_by_script: bool = Field(True, description="no token spans two Unicode scripts (letters and signs, say)")
    max_piece_chars: int = Field(32, ge=1, le=512, description="characters in the longest token")
    character_coverage: float = Field(
        0.9995, ge=0.98, le=1, description="share of the text's characters with tokens of their own; the rest are bytes"
    )
    max_words: int = Field(
        0,
        ge=0,
        description="distinct words to learn from, the rarest left out; 0: 4 million for bpe, 500,000 for unigram",
    )
    sample_bytes: int = Field(0, ge=0, description="train on about this many bytes of documents; 0: on all")
    seed: int = Field(0, ge=0, lt=1 << 63, description="picks the documents that sample_bytes leaves")
    packing: Packs = Field(
        [],
        description="indexes that fill rows of seq_len tokens with documents, made beside the tokens; tables",
    )
    executor: Literal["local", "ray"] = run_field("local", "where the work runs: this machine, or a Ray cluster")
    workers: int = run_field(0, "processes; 0: one a core, for as many as have enough to do", ge=0, le=1024)

    @model_validator(mode="after")
    def _train_or_take(self) -> TokenizeSpec:
        unread = sorted(self.model_fields_set & _TRAINING_KEYS)
        if self.tokenizer and unread:
            raise SpecError(
                f"tokenizer = {self.tokenizer!r} takes a trained tokenizer, so {', '.join(unread)} would not be read",
                "leave out the one or the other",
            )
        check_user_tokens(self.user_tokens)
        if self.user_tokens and self.model_type == "unigram":
            raise SpecError(
                "user_tokens with model_type = unigram: a unigram model may prefer a path around them",
                "set model_type = bpe, or leave the user tokens out",
            )
        if self.vocab_size < SMALLEST_VOCAB + len(self.user_tokens):
            raise SpecError(
                f"vocab_size = {self.vocab_size} has no room for {len(self.user_tokens)} user tokens",
                f"gptcli tokenize --vocab-size {SMALLEST_VOCAB + len(self.user_tokens)}, or more",
            )
        return self

    def content(self) -> dict[str, Any]:
        """The keys that decide the content: those of training are none of them where a tokenizer is given."""
        content = super().content()
        if not self.packing:  # as it was before there was any
            del content["packing"]
        return {key: content[key] for key in content if not (self.tokenizer and key in _TRAINING_KEYS)}


_TRAINING_KEYS = frozenset(
    {
        "vocab_size",
        "model_type",
        "user_tokens",
        "max_words",
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
    corpus = corpus_manifest(place)
    entries = [Input("corpus", project.relative(place), corpus.content_sha256)]
    if spec.tokenizer:
        source = tokenizer_source(spec, project)
        entries.append(Input("tokenizer", project.relative(source.main), source.content_hash))
    return Inputs(tuple(entries))


def corpus_manifest(place: Path) -> Manifest:
    """The manifest of corpus/NAME, read once: with a row for each of many sources it takes long. Raises as
    `read_manifest` does."""
    found = (place / MANIFEST).stat()
    return _corpus_manifest(place, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=1)
def _corpus_manifest(place: Path, mtime_ns: int, size: int) -> Manifest:
    return read_manifest(place, "corpus")


def tokenizer_source(spec: TokenizeSpec, project: Project) -> Source:
    """The files of the tokenizer that the key `tokenizer` names. ArtifactError when there is none, or half of one."""
    if "/" in spec.tokenizer or spec.tokenizer.startswith("."):
        return find(project.path(spec.tokenizer))
    place = project.place(FOLDER, spec.tokenizer)
    if not place.is_dir():
        raise ArtifactError(
            f"tokenizer = {spec.tokenizer!r}: there are no tokens {spec.tokenizer} ({project.relative(place)})",
            f"name tokens (main), or a path with a slash in it (./{spec.tokenizer})",
        )
    return find(place / "tokenizer")


def disk_needed(spec: TokenizeSpec, project: Project, inputs: Inputs) -> int:
    """An estimate in bytes, generous: token ids of every document, and a few MB for the tokenizer."""
    stored = sum(shard.stat().st_size for shard in project.place("corpus", spec.corpus).glob("*.arrow"))
    bytes_per_token = 4 if spec.tokenizer or spec.vocab_size > 1 << 16 else 2
    return int(stored * _TEXT_PER_STORED_BYTE * _TOKENS_PER_TEXT_BYTE) * bytes_per_token + (16 << 20)


def summary(stats: dict[str, Any]) -> list[tuple[str, str]]:
    """The rows a person reads."""
    rows = [("vocabulary", f"{stats['vocab_size']:,} ids ({'trained' if stats['trained'] else 'taken as it is'})")]
    for split in filter(stats["splits"].__contains__, _SPLITS):
        figures = stats["splits"][split]
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
    for name, figures in stats.get("packing", {}).items():
        rows.append(("packing", f"{name}: {figures['rows']:,} rows, {100 * figures['padding_share']:.3f} % padding"))
    return rows
