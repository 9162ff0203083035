"""The text a tokenizer is measured on: documents spread over a split, with the source and language of each."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from gptcli.artifacts.manifest import Manifest
from gptcli.artifacts.shards import shard_paths
from gptcli.errors import ArtifactError
from gptcli.records.stdlib import DOCSTRINGS, STDLIB
from gptcli.tokenize.views.artifact import UNREADABLE

SAMPLE_BYTES = 8_000_000  # of text, about
SAMPLE_DOCUMENTS = 20_000
MOST_OF_ONE = 1_000_000  # bytes of one document; the rest of it is cut off

_STRIDE_IN_BATCH = 16  # beyond it whole record batches are passed over, unread
_LANGUAGE_KEYS = ("language", "lang")  # of a document's metadata
_OTHER = "(other)"


@dataclass
class Sample:
    """Documents in the split's order: `texts`, and for each the number of its source in `sources` and its language
    ("" where unknown); `every`: one document in so many was taken; `cut`: how many were cut at MOST_OF_ONE bytes."""

    split: str
    every: int
    sources: tuple[str, ...]
    texts: list[str] = field(default_factory=list)
    source_numbers: list[int] = field(default_factory=list)
    languages: list[str] = field(default_factory=list)
    cut: int = 0

    @property
    def bytes(self) -> int:
        return sum(len(text.encode()) for text in self.texts)


def take_sample(corpus: Path, manifest: Manifest, split: str, documents: int, text_bytes: int) -> Sample:
    """About SAMPLE_BYTES of a split of `documents` documents and `text_bytes` bytes, the same ones every time.

    Raises ArtifactError for a shard that can't be read.
    """
    every = max(1, math.ceil(text_bytes / SAMPLE_BYTES), math.ceil(documents / SAMPLE_DOCUMENTS))
    sources = Sources(manifest.spec.get("source"))
    sample = Sample(split, every, (*sources.names, _OTHER))
    size = 0
    for path in shard_paths(corpus, split):
        for row in _rows(path, every):
            text = row["text"]
            if len(text) > MOST_OF_ONE // 4 and len(text.encode()) > MOST_OF_ONE:
                text = text.encode()[:MOST_OF_ONE].decode("utf-8", "ignore")
                sample.cut += 1
            if size + len(text) > 2 * SAMPLE_BYTES:  # a few long documents at the places that are taken
                return sample
            size += len(text)
            sample.texts.append(text)
            sample.source_numbers.append(sources.number(row["path"]))
            sample.languages.append(_language(row["meta"]))
    return sample


def _rows(path: Path, every: int) -> Iterator[dict[str, Any]]:
    """One row in `every`, a fixed number a batch at most."""
    stride = min(every, _STRIDE_IN_BATCH)
    batches = max(1, round(every / stride))
    try:
        with pa.memory_map(str(path), "r") as file:
            names = ("text", "path", "meta")
            reader = pa.ipc.open_file(file)
            fields = [reader.schema.get_field_index(name) for name in names]
            reader = pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=fields))
            for number in range(0, reader.num_record_batches, batches):
                batch = reader.get_batch(number)
                batch.validate(full=True)
                for start in range(0, batch.num_rows, stride):
                    yield {name: batch.column(name)[start].as_py() for name in names}
    except UNREADABLE as error:
        raise ArtifactError(f"{path} cannot be read: {error}", "gptcli corpus --force builds it again") from error


class Sources:
    """The sources a corpus's spec names, and which of them a document's path belongs to."""

    def __init__(self, typed: Any) -> None:
        entries = [typed] if isinstance(typed, str) else typed if isinstance(typed, Sequence) else []
        paths = [entry["path"] if isinstance(entry, dict) else entry for entry in entries]
        self.names = tuple(dict.fromkeys(path for path in paths if isinstance(path, str)))
        self._patterns = [re.compile(_pattern(name), re.DOTALL) for name in self.names]

    def number(self, path: str) -> int:
        """The number of the source with the longest name that fits; len(names) where none does."""
        if path in self.names:
            return self.names.index(path)
        fits = [number for number, pattern in enumerate(self._patterns) if pattern.fullmatch(path)]
        return max(fits, key=lambda number: len(self.names[number]), default=len(self.names))


def _pattern(typed: str) -> str:
    """An expression for the paths that `records/sources.py` gives the files of a typed source."""
    if typed in (STDLIB, DOCSTRINGS):
        return re.escape(STDLIB) + "/.*"
    bare = re.sub(r"#sha256=[0-9a-fA-F]{64}$", "", re.sub(r"^([a-z0-9+.]+://)[^/@]*@", r"\1", typed)).rstrip("/")
    if not _is_glob(typed):
        return re.escape(bare) + "(?:/.*)?"
    parts = re.split(r"(\*\*/?|\*|\?|\[[^]]+\])", bare)
    return "".join(_piece(part) for part in parts) + "(?:/.*)?"


def _piece(part: str) -> str:
    if part.startswith("**"):
        return ".*"
    if part.startswith("[") and part.endswith("]"):
        return f"[^{part[2:]}" if part[1] == "!" else part
    return {"*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part))


def _is_glob(typed: str) -> bool:
    return any(sign in typed for sign in "*?[") and not typed.startswith(("http://", "https://"))


def _language(meta: str | None) -> str:
    """What a document's metadata gives as its language; "" where it gives none."""
    if not meta or '"lang' not in meta:
        return ""
    try:
        told = json.loads(meta)
    except ValueError:
        return ""
    found = next((told[key] for key in _LANGUAGE_KEYS if told.get(key)), "") if isinstance(told, dict) else ""
    return found if isinstance(found, str) else ""
