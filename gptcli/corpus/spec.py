"""What goes into a corpus and how it is cleaned; also what the stage reads and needs, told without loading Arrow."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from gptcli.artifacts.manifest import Inputs, Manifest
from gptcli.artifacts.project import Project
from gptcli.console import human_bytes, human_count
from gptcli.corpus.filters import AnyFilter
from gptcli.errors import SpecError
from gptcli.records.sources import expand, fingerprint, source_inputs
from gptcli.records.stdlib import DOCSTRINGS, STDLIB
from gptcli.records.text import separator_pattern
from gptcli.spec import OneOrMore, Spec, run_field

STAGE = "corpus"
KIND = "corpus"
FOLDER = "corpus"
DEFAULT_NAME = "main"
TRAINED = False

_TEXT_PER_PACKED_BYTE = 6  # a guess for .gz and .zst text; what it is used for is only the check of free disk
_PACKED = (".gz", ".zst", ".gzip", ".zstd")


class CorpusSpec(Spec):
    """Read, clean, filter, deduplicate and split text. Lengths count characters after newlines became \\n."""

    source: OneOrMore = Field(min_length=1, description=f"files, folders, globs or {STDLIB}, in the order to read them")
    text_key: str = Field("text", min_length=1, description="the key of a JSON row that holds its text")
    separator: str = Field(
        "none",
        min_length=1,
        description="where a text file is cut into documents: none (a file is one), line, blank_lines, "
        "<|endoftext|>, or a regular expression (^ and $ at every line, matches up to 4,096 characters)",
    )
    encoding: Literal["utf-8", "latin-1"] = Field("utf-8", description="of files without a byte order mark")
    normalize: Literal["NFC", "none"] = Field("NFC", description="Unicode normalisation")
    min_chars: int = Field(1, ge=1, description="characters in the shortest document kept")
    max_chars: int = Field(
        20_000_000, ge=0, description="characters in the longest document kept (it is held in memory); 0: no limit"
    )
    filters: list[AnyFilter] = Field([], description='filters in order: "length" or {name = "length", min_words = 9}')
    dedup: Literal["exact", "none"] = Field("exact", description="exact: of equal texts the first is kept")
    val_share: float = Field(0.05, ge=0, lt=1, description="share of the documents held out for validation")
    test_share: float = Field(0.05, ge=0, lt=1, description="share of the documents held out for testing")
    split_seed: int = Field(0, ge=0, lt=1 << 63, description="which documents are held out")
    shard_bytes: int = Field(64_000_000, ge=1, description="bytes of text at which a shard is closed")
    license: str = Field("", description=f"SPDX licence of all sources; empty: unknown ({STDLIB}: PSF-2.0)")
    workers: int = run_field(0, "processes; 0: one a core where the sources are large", ge=0, le=1024)

    @field_validator("separator")
    @classmethod
    def _cuts(cls, separator: str) -> str:
        separator_pattern(separator)
        return separator

    @model_validator(mode="after")
    def _agree(self) -> CorpusSpec:
        if self.val_share + self.test_share >= 1:
            raise SpecError(
                f"val_share = {self.val_share} and test_share = {self.test_share} leave nothing to train on",
                "let them sum to less than 1",
            )
        if self.max_chars and self.max_chars < self.min_chars:
            raise SpecError(
                f"max_chars = {self.max_chars} is under min_chars = {self.min_chars}", "set max_chars = 0 for no limit"
            )
        if DOCSTRINGS in self.source:
            raise SpecError(f"{DOCSTRINGS} holds chats, not documents", f"use {STDLIB} here")
        return self


SPEC = CorpusSpec


def inputs(spec: CorpusSpec, project: Project, previous: Manifest | None) -> Inputs:
    """The sources' files, hashed where they changed. SpecError naming a source that can't be read."""
    files = expand(spec.source, project.root)
    sources = fingerprint(files, previous.sources() if previous else ())
    return Inputs(source_inputs(files, sources), sources)


def disk_needed(spec: CorpusSpec, project: Project, inputs: Inputs) -> int:
    """Bytes: the cleaned text once in units and, at worst, once more in shards."""
    text = sum(
        source.bytes * (_TEXT_PER_PACKED_BYTE if source.path.lower().endswith(_PACKED) else 1)
        for source in inputs.sources
    )
    return 2 * text


def summary(stats: dict[str, Any]) -> list[tuple[str, str]]:
    """The figures a person reads."""
    rows = [("read", f"{stats['documents_read']:,} documents")]
    rows += [("left out", f"{count:,} {reason}") for reason, count in stats["left_out"].items()]
    if stats["invalid_bytes"]:
        rows.append(("replaced", f"{stats['invalid_bytes']:,} invalid bytes by U+FFFD"))
    rows += [
        (
            split,
            f"{found['documents']:,} documents, {human_bytes(found['bytes'])}, "
            f"{human_count(found['chars'])} characters, {found['shards']} shards",
        )
        for split in ("train", "val", "test")
        for found in [stats["splits"][split]]
    ]
    return rows
