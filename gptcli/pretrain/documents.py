"""Documents of a tokens artifact by their number in a split: their ids, and where the corpus says they came from."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from gptcli.artifacts.manifest import Manifest, manifest_of
from gptcli.artifacts.project import Project
from gptcli.artifacts.schemas import CORPUS_SCHEMA
from gptcli.artifacts.shards import open_shard, shard_paths
from gptcli.errors import ArtifactError, GptcliError

_UNREADABLE = (OSError, ValueError, KeyError, AttributeError, pa.ArrowException)  # what reading a damaged shard raises
_COLUMNS = ("id", "path", "member", "source_offset", "source_bytes")


@dataclass(frozen=True)
class Placed:
    """A document's row in its token shard and in the corpus's shard of the same name; its corpus id."""

    shard: str
    row: int
    document: str


def placed(tokens: Path, split: str, numbers: Iterable[int]) -> dict[int, Placed]:
    """Where the documents of these numbers stand; ArtifactError for a shard that can't be read."""
    found: dict[int, Placed] = {}
    begin = 0
    wanted = sorted(set(numbers))
    for path in shard_paths(tokens, split):
        shard_begin = begin
        for batch in _batches(path, "gptcli tokenize --force"):
            cut = bisect_left(wanted, begin + batch.num_rows)
            inside, wanted = wanted[:cut], wanted[cut:]
            for number in inside:
                name = batch.column("document")[number - begin].as_py()
                found[number] = Placed(path.name, number - shard_begin, str(name))
            begin += batch.num_rows
        if not wanted:
            break
    return found


def sources(
    project: Project, manifest: Manifest, documents: dict[int, Placed]
) -> tuple[dict[int, dict[str, Any]], list[str]]:
    """The corpus's row of each document (path, member, source_offset, source_bytes), and why rows are missing.

    manifest: that of the tokens. A corpus that is gone or has changed is a reason; a damaged one an ArtifactError.
    """
    corpus, missing = _corpus(project, manifest)
    if corpus is None:
        return {}, [missing]
    found: dict[int, dict[str, Any]] = {}
    for shard in sorted({one.shard for one in documents.values()}):
        by_row = {one.row: number for number, one in documents.items() if one.shard == shard}
        for row, told in _corpus_rows(corpus / shard, sorted(by_row)):
            number = by_row[row]
            if told.pop("id") == documents[number].document:
                found[number] = told
    others = len(documents) - len(found)
    reason = f"the corpus has another document in the rows of {others} of them; gptcli tokenize --verify"
    return found, [reason] if others else []


def _corpus(project: Project, manifest: Manifest) -> tuple[Path | None, str]:
    recorded = next((entry for entry in manifest.inputs if entry.role == "corpus"), None)
    if recorded is None:
        return None, "the tokens' manifest names no corpus"
    path = project.path(recorded.path)
    try:
        found = manifest_of(path)
    except GptcliError as error:
        return None, f"the corpus cannot be read: {error.message}"
    if found is None:
        return None, f"the corpus {recorded.path} is gone"
    if found.content_sha256 != recorded.content_sha256:
        return None, f"the corpus {recorded.path} has changed since it was tokenized"
    return path, ""


def _corpus_rows(path: Path, rows: list[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a corpus shard without their texts; those that aren't there are left out."""
    fields = [CORPUS_SCHEMA.get_field_index(name) for name in _COLUMNS]
    begin = 0
    for batch in _batches(path, "gptcli corpus --force", pa.ipc.IpcReadOptions(included_fields=fields)):
        cut = bisect_left(rows, begin + batch.num_rows)
        inside, rows = rows[:cut], rows[cut:]
        for row in inside:
            yield row, {name: batch.column(name)[row - begin].as_py() for name in _COLUMNS}
        if not rows:
            return
        begin += batch.num_rows


def _batches(path: Path, command: str, options: Any = None) -> Iterator[pa.RecordBatch]:
    try:
        if options is None:
            reader = open_shard(path)
        else:
            reader = pa.ipc.open_file(pa.memory_map(str(path), "r"), options=options)
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            batch.validate()
            yield batch
    except _UNREADABLE as error:
        raise ArtifactError(f"{path} cannot be read: {error}", f"{command} builds it again") from error
