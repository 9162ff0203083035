"""Reading one document's source again, and taking the document through every step of cleaning once more."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptcli.artifacts.durable import sha256_file
from gptcli.artifacts.manifest import Manifest, Source
from gptcli.artifacts.project import Project
from gptcli.corpus.cleaning import (
    DECONTAMINATION,
    Step,
    filter_steps,
    judge_length,
    normalized,
    reason_of,
    shown,
    text_hash,
    url_of,
)
from gptcli.corpus.decontamination import Items
from gptcli.corpus.limits import limits, shown_limits
from gptcli.corpus.lookup import Record
from gptcli.corpus.plan import read_options
from gptcli.corpus.rehearsal import STDIN, downloads_of, local_files, rehearse
from gptcli.corpus.spec import CorpusSpec, SourceTable
from gptcli.errors import GptcliError
from gptcli.records.documents import read
from gptcli.records.opening import sniff
from gptcli.records.parts import Part, parts_of
from gptcli.records.pieces import Notes, Piece, ReadOptions
from gptcli.records.sources import SourceFile

_COLUMNAR = ("parquet", "arrow")  # their parts count row groups, their documents rows


@dataclass
class Retraced:
    """What became of a document when its source was read again; `state` says why it may not have been."""

    state: str  # unchanged | changed | gone | …, in words
    typed: str = ""  # the source as it was typed
    piece: Piece | None = None
    normalized_chars: int = 0
    was_normalized: bool = False
    steps: list[dict[str, Any]] = field(default_factory=list)
    reason: str = ""  # for which cleaning would leave it out now
    id: str = ""  # of the text as it comes out of cleaning

    @property
    def is_read(self) -> bool:
        return self.piece is not None


def retrace(project: Project, manifest: Manifest, spec: CorpusSpec, record: Record) -> Retraced:
    """Nothing is raised for a source that is gone, changed or unreadable: `state` tells it."""
    files, missing = local_files(spec, project)
    recorded = next((one for one in manifest.sources() if one.path == record.path), None)
    path, table = _file_of(project, spec, files, recorded)
    if path is None or table is None or recorded is None:
        why = "; ".join(missing.values()) if record.path != STDIN else "standard input is no longer kept"
        return Retraced(f"gone: {why or 'no source of the corpus has this file any more'}")
    again = Retraced(_state(path, recorded), table.name)
    if again.state != "unchanged":
        return again
    try:
        again.piece = _piece(path, record, read_options(table, spec.max_chars))
        if again.piece is None:
            again.state = "unchanged, but no document is found at this place: another version of gptcli read it"
            return again
        with tempfile.TemporaryDirectory(prefix="gptcli-explain-") as folder:
            ready, items = rehearse(spec, project, [file for file, _ in files], Path(folder))
            _take_through(again, again.piece, ready, items)
    except GptcliError as error:
        again.state = f"cannot be taken through cleaning again: {error.message}"
        again.steps, again.id = [], ""
    return again


def _file_of(
    project: Project, spec: CorpusSpec, files: Sequence[tuple[SourceFile, SourceTable]], recorded: Source | None
) -> tuple[Path | None, SourceTable | None]:
    """Where a recorded source file stands, and the source it belongs to."""
    if recorded is None:
        return None, None
    if recorded.path == STDIN:  # it is read once; what it was is kept under its hash
        kept = sorted((downloads_of(project) / "stdin").glob(f"{recorded.sha256}*"))
        return next(iter(kept), None), next((table for table in spec.tables() if table.path == STDIN), None)
    return next(((file.path, table) for file, table in files if file.name == recorded.path), (None, None))


def _state(path: Path, recorded: Source) -> str:
    try:
        found = path.stat()
        if found.st_size != recorded.bytes:
            return f"changed: it has {found.st_size:,} bytes, and had {recorded.bytes:,}"
        if found.st_mtime_ns != recorded.mtime_ns and sha256_file(path) != recorded.sha256:
            return "changed since the corpus was made"
    except OSError as error:
        return f"gone: {error.strerror or error}"
    return "unchanged"


def _piece(path: Path, record: Record, options: ReadOptions) -> Piece | None:
    """The document at a recorded place. Of a big file only the part is read that holds it, where it has parts."""
    for part in _parts(path, record, options):
        for piece in read(path, record.path, options, Notes(), part):
            if (piece.offset, piece.member) == (record.offset, record.member):
                return piece
    return None


def _parts(path: Path, record: Record, options: ReadOptions) -> Iterator[Part | None]:
    if record.member is not None or sniff(path, record.path, options.encoding) in _COLUMNAR:
        yield None
        return
    for part in parts_of(path, record.path, options):
        if part.start <= record.offset and (part.end is None or record.offset < part.end):
            yield part
        if part.start > record.offset:
            return


def _take_through(again: Retraced, piece: Piece, spec: CorpusSpec, items: Items | None) -> None:
    again.reason = piece.reason or judge_length(piece.text, spec)
    if again.reason:
        return
    text = normalized(piece.text, spec)
    again.was_normalized, again.normalized_chars = text != piece.text, len(text)
    # Filters that have the same name come in the spec's order, as their steps do.
    filters = iter(spec.steps())
    for step, changed in filter_steps(text, url_of(piece), spec, items, every=True):
        text = changed
        one = None if step.name == DECONTAMINATION else next(filters)
        rules = [
            {
                "rule": rule,
                "value": value if isinstance(value, str) else float(shown(value)),
                "passed": one.passes(rule, value) if one else rule != step.failed,
                "threshold": shown_limits(limits(one, rule, value)) if one else "",
            }
            for rule, value in step.values.items()
        ]
        again.steps.append(_told(step, rules, len(text)))
        again.reason = again.reason or (reason_of(step) if step.failed else "")
    again.reason = again.reason or judge_length(text, spec)
    again.id = text_hash(text.encode()).hex()


def _told(step: Step, rules: list[dict[str, Any]], chars: int) -> dict[str, Any]:
    return {"step": step.name, "failed": step.failed, "changes": step.changes, "rules": rules, "chars_after": chars}
