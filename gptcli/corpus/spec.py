"""What goes into a corpus and how it is cleaned; also what the stage reads and needs, told without loading Arrow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from gptcli.artifacts.manifest import Inputs, Manifest
from gptcli.artifacts.project import Project
from gptcli.console import human_bytes, human_count, tell
from gptcli.corpus.filters import AnyFilter, Filter, QualityFilter
from gptcli.errors import SpecError
from gptcli.records.downloads import without_password
from gptcli.records.encodings import require_known
from gptcli.records.sources import SourceFile, expand, fingerprint, recorded_files, source_inputs
from gptcli.records.stdlib import DOCSTRINGS, LICENSE, STDLIB
from gptcli.records.text import separator_pattern
from gptcli.spec import OneOrMore, Spec, run_field

STAGE = "corpus"
KIND = "corpus"
FOLDER = "corpus"
DEFAULT_NAME = "main"
TRAINED = False

Extractor = Literal["resiliparse", "trafilatura", "none"]

_TEXT_PER_PACKED_BYTE = 5  # a guess for packed text; what it is used for is only the check of free disk
_PACKED = (".gz", ".gzip", ".zst", ".zstd", ".bz2", ".xz", ".zip", ".tgz", ".parquet")


def _as_list(given: Any) -> Any:
    return [given] if isinstance(given, str | dict) else given


def _as_table(source: str | SourceTable) -> SourceTable:
    return SourceTable.model_validate({"path": source}) if isinstance(source, str) else source


def _separator(separator: str) -> str:
    separator_pattern(separator)
    return separator


def _encoding(encoding: str) -> str:
    require_known(encoding)
    return encoding


class SourceTable(Spec):
    """One source with options of its own, where a plain string does not do; what is not given is the stage's."""

    path: str = Field(min_length=1, description="file, folder, glob, URL, - or python:stdlib")
    text_key: str | None = Field(None, min_length=1, description="column that holds the text")
    metadata: list[str] | None = Field(None, description="columns kept beside the text")
    separator: str | None = Field(None, min_length=1, description="where a text file is cut into documents")
    encoding: str | None = Field(None, min_length=1, description="of files without a byte order mark")
    extractor: Extractor | None = Field(None, description="what takes the text out of HTML")
    gutenberg: bool | None = Field(None, description="cut off Project Gutenberg's header and footer")
    header: bool | None = Field(None, description="whether the first row of csv and tsv files names the columns")
    license: str | None = Field(None, description="SPDX licence")
    weight: float = Field(
        1.0,
        gt=0,
        le=100,
        description="how often each training document is written, on average; one that is kept for its equals and "
        "near-duplicates takes the highest weight among them",
    )

    @property
    def name(self) -> str:
        """The source as it may be written down: without a password."""
        return without_password(self.path)

    @field_validator("separator")
    @classmethod
    def _cuts(cls, separator: str | None) -> str | None:
        return None if separator is None else _separator(separator)

    @field_validator("encoding")
    @classmethod
    def _decodes(cls, encoding: str | None) -> str | None:
        return None if encoding is None else _encoding(encoding)


class NearSpec(Spec):
    """Near-duplicates: MinHash LSH (Broder 1997; Leskovec, Rajaraman and Ullman, ch. 3), verified by true Jaccard."""

    threshold: float = Field(
        0.8, gt=0, le=1, description="least Jaccard similarity of two duplicates' sets of 5-word shingles"
    )
    bands: int = Field(14, ge=1, le=256, description="bands of a signature")
    rows: int = Field(8, ge=1, le=64, description="MinHashes of a band")
    seed: int = Field(1, ge=0, lt=1 << 32, description="of the MinHashes")


class DecontaminationSpec(Spec):
    """How documents that hold evaluation items are found (word n-grams, Brown et al. 2020, C) and treated."""

    ngram: int = Field(13, ge=2, le=100, description="words of an n-gram")
    action: Literal["drop", "cut"] = Field("drop", description="drop the document, or cut the overlap out of it")
    margin: int = Field(200, ge=0, description="characters cut before and after an overlap")


class CorpusSpec(Spec):
    """Read, clean, filter, deduplicate and split text. Lengths count characters after newlines became \\n."""

    source: Annotated[list[str | SourceTable], BeforeValidator(_as_list)] = Field(
        min_length=1,
        description=f"files, folders, globs, URLs, - or {STDLIB}, in the order to read them; or tables with options",
    )
    text_key: str = Field("text", min_length=1, description="the column that holds a row's text; a.b: nested")
    metadata: list[str] | None = Field(None, description="columns kept beside the text (default: all)")
    separator: str = Field(
        "none",
        min_length=1,
        description="where a text file is cut into documents: none (a file is one), line, blank_lines, "
        "<|endoftext|>, or a regular expression (^ and $ at every line, matches up to 4,096 characters)",
    )
    encoding: str = Field(
        "auto", min_length=1, description="of files without a byte order mark: auto (declared, detected) or a codec"
    )
    extractor: Extractor = Field(
        "resiliparse", description="what takes the text out of HTML: fast, precise, or none (keep the markup)"
    )
    gutenberg: bool = Field(False, description="cut off Project Gutenberg's header and footer")
    header: bool = Field(True, description="the first row of csv and tsv files names the columns")
    repair: bool = Field(False, description="mend broken encodings (ftfy)")
    normalize: Literal["NFC", "none"] = Field("NFC", description="Unicode normalisation")
    min_chars: int = Field(1, ge=1, description="characters in the shortest document kept")
    max_chars: int = Field(
        20_000_000, ge=0, description="characters in the longest document kept (it is held in memory); 0: no limit"
    )
    filters: Annotated[list[AnyFilter], BeforeValidator(_as_list)] = Field(
        [], description='filters in order: "gopher_quality" or {name = "length", …}'
    )
    quality: QualityFilter | None = Field(
        None, description='a last filter: "quality.like=good.jsonl" keeps what is like the documents of that file'
    )
    keep_scores: bool = Field(
        False, description="measure every rule and keep the values, so that thresholds change without reading again"
    )
    dedup: Literal["near", "exact", "none"] = Field(
        "near", description="exact: of equal texts the first is kept; near: and of near-duplicates the longest"
    )
    near: NearSpec = Field(
        default_factory=lambda: NearSpec.model_validate({}), description="how near-duplicates are found"
    )
    repeated_paragraphs: int = Field(
        0,
        ge=0,
        description="remove paragraphs of this many characters that an earlier document has; 0: keep them. Of "
        "documents that this makes equal one is kept; those that it only makes alike are not compared again",
    )
    decontaminate: OneOrMore = Field([], description="files of evaluation items that no document may hold")
    decontamination: DecontaminationSpec = Field(
        default_factory=lambda: DecontaminationSpec.model_validate({}), description="how such documents are found"
    )
    val_share: float = Field(0.05, ge=0, lt=1, description="share of the documents held out for validation")
    test_share: float = Field(0.05, ge=0, lt=1, description="share of the documents held out for testing")
    split_seed: int = Field(0, ge=0, lt=1 << 63, description="which documents are held out")
    shard_bytes: int = Field(64_000_000, ge=1, description="bytes of text at which a shard is closed")
    ngrams: bool = Field(True, description="write the sorted hashes of every shard's 13-grams, to look texts up in")
    license: str = Field("", description=f"SPDX licence of all sources; empty: unknown ({STDLIB}: PSF-2.0)")
    workers: int = run_field(0, "processes; 0: one a core where the sources are large", ge=0, le=1024)
    executor: Literal["local", "ray"] = run_field("local", "where the work runs: this machine, or a Ray cluster")
    keep_units: bool = run_field(True, "keep the cleaned parts, so that --update re-does only what changed")
    offline: bool = run_field(False, "use no network: URLs come from what was downloaded before")

    @field_validator("separator")
    @classmethod
    def _cuts(cls, separator: str) -> str:
        return _separator(separator)

    @field_validator("encoding")
    @classmethod
    def _decodes(cls, encoding: str) -> str:
        return _encoding(encoding)

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
        tables: dict[str, SourceTable] = {}
        for table in map(_as_table, self.source):
            if tables.setdefault(table.name, table) != table:  # by name: what is written down has no password
                raise SpecError(
                    f"{table.name} stands twice among the sources, with other options or another password",
                    "name it once",
                )
        if DOCSTRINGS in tables:
            raise SpecError(f"{DOCSTRINGS} holds chats, not documents", f"use {STDLIB} here")
        return self

    def content(self) -> dict[str, Any]:
        """What decides the corpus; passwords in addresses don't, and are never written down."""
        content = super().content()
        for place, source in enumerate(content["source"]):
            if isinstance(source, dict):
                source["path"] = without_password(source["path"])
            else:
                content["source"][place] = without_password(source)
        return content

    def steps(self) -> list[Filter]:
        """All filters, in the order in which they see a document."""
        return [*self.filters, *([self.quality] if self.quality else [])]

    def tables(self) -> list[SourceTable]:
        """The sources in order, each once, with the stage's options where they have none of their own."""
        return [self._filled(table) for table in {table.path: table for table in map(_as_table, self.source)}.values()]

    def _filled(self, table: SourceTable) -> SourceTable:
        own = {name: value for name, value in table if value is not None}
        given = {name: getattr(self, name) for name in SourceTable.model_fields if name in CorpusSpec.model_fields}
        license = self.license or (LICENSE if table.path == STDLIB else None)
        return SourceTable.model_construct(**{**given, "license": license, **own})


SPEC = CorpusSpec


def inputs(spec: CorpusSpec, project: Project, previous: Manifest | None) -> Inputs:
    """The sources' files, hashed where they changed; what is far away is fetched. SpecError naming what can't be."""
    located(spec, project)  # raises where a filter takes one file and several are named
    items = expand(spec.decontaminate, project.root) if spec.decontaminate else []
    read = [file for one in spec.steps() for path in one.files() for file in expand([path], project.root)]
    files = expand(_paths(spec), project.root, _downloads(project), spec.offline, tell)  # last: it may download
    sources = fingerprint([*files, *items, *read], previous.sources() if previous else ())
    entries = source_inputs(files, sources)
    entries += source_inputs(items, sources, "decontaminate") + source_inputs(read, sources, "filter")
    return Inputs(entries, sources)


def source_files(spec: CorpusSpec, project: Project, inputs: Inputs) -> list[SourceFile]:
    """The sources' files as they were recorded. SpecError when one is gone."""
    return recorded_files(_paths(spec), project.root, inputs, "source", _downloads(project))


def item_files(spec: CorpusSpec, project: Project, inputs: Inputs) -> list[SourceFile]:
    """The files of evaluation items as they were recorded. SpecError when one is gone."""
    if not spec.decontaminate:
        return []
    return recorded_files(spec.decontaminate, project.root, inputs, "decontaminate")


def located(spec: CorpusSpec, project: Project) -> CorpusSpec:
    """The spec as workers need it: its filters' files as absolute paths."""
    return spec.model_copy(
        update={
            "filters": [one.located(project.root) for one in spec.filters],
            "quality": spec.quality and spec.quality.located(project.root),
        }
    )


def _paths(spec: CorpusSpec) -> list[str]:
    return [table.path for table in spec.tables()]


def _downloads(project: Project) -> Path:
    return project.root / ".gptcli" / "downloads"


def disk_needed(spec: CorpusSpec, project: Project, inputs: Inputs) -> int:
    """Bytes: the cleaned text once in units, at worst once more in shards, and 8 bytes a word of n-grams."""
    text = sum(
        source.bytes * (_TEXT_PER_PACKED_BYTE if source.path.lower().endswith(_PACKED) else 1)
        for source in inputs.sources
    )
    return int(text * (3.5 if spec.ngrams else 2))


def summary(stats: dict[str, Any]) -> list[tuple[str, str]]:
    """The figures a person reads."""
    rows = [("read", f"{stats['documents_read']:,} documents")]
    rows += [("left out", f"{count:,} {reason}") for reason, count in stats["left_out"].items()]
    if stats["invalid_bytes"]:
        rows.append(("replaced", f"{stats['invalid_bytes']:,} invalid bytes by U+FFFD"))
    rows += [("rewritten", f"{count:,} {what}") for what, count in stats.get("rewritten", {}).items()]
    if stats.get("paragraphs_removed"):
        rows.append(("rewritten", f"{stats['paragraphs_removed']:,} repeated paragraphs removed"))
    if stats.get("copies"):
        rows.append(("mixed", f"{stats['copies']:,} further copies of training documents"))
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
