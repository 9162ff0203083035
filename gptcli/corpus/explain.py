"""`gptcli corpus --explain ID`: the path of one document from its source to its shard, or to where it was left out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from gptcli.artifacts.project import Project
from gptcli.console import Report
from gptcli.corpus.inspect import finished
from gptcli.corpus.lookup import Record, find, instead_of, scan, scan_left_out, text_of, with_prefix
from gptcli.corpus.reasons import Thresholds, about
from gptcli.corpus.retrace import Retraced, retrace
from gptcli.corpus.spec import FOLDER, CorpusSpec
from gptcli.errors import ArtifactError, GptcliError
from gptcli.spec import resolve

_TOLD = 5  # other documents, for a person
_LISTED = 100  # of them, for --json
_SHOWN_CHARS = 200
_LAST_PASS = ("duplicate", "near_duplicate", "repeated_paragraphs", "down_sampled")

Rows = list[tuple[str, str]]


def explain(project: Project, name: str, wanted: str) -> Report:
    """What became of one document of corpus/NAME, step by step, with every measured value.

    wanted: its id, 6 or more of the first digits, PATH:OFFSET or PATH!MEMBER:OFFSET. Its source is read again where it
    still is as it was; else the report says so and tells what the corpus knows. Raises SpecError for a name that is
    none or fits several documents, ArtifactError where there is no such document or no corpus.
    """
    place = project.place(FOLDER, name)
    manifest = finished(place)
    spec = _spec(manifest.spec, place)
    found = find(place, wanted)
    record = found[0]
    others = [one for one in found[1:] if one.place != record.place]
    again = retrace(project, manifest, spec, record)
    outcome, rows = _outcome(place, record, manifest.spec)
    copies = sum(1 for one in found if one.place == record.place and not one.reason)
    replaced = [] if record.reason else list(scan_left_out(place, instead_of(record.id)))
    stored = None if record.reason else text_of(place, record)
    table = [
        ("document", record.id),
        ("from", _from(record)),
        *_source_rows(again, record, stored),
        *_cleaning_rows(again, spec),
        *_agreement(again, record, spec),
        *_paragraphs(again, stored, spec),
        *rows,
        *_copies(copies),
        *_listed("stands for", replaced),
        *_listed("same text", [one for one in others if one not in replaced]),
        *_text_row(stored, again),
    ]
    figures = {
        "document": asdict(record),
        "source": {"state": again.state, "source": again.typed},
        "read": _piece_figures(again),
        "steps": again.steps,
        "reason_now": again.reason if again.is_read else None,
        "outcome": {**outcome, "copies": copies},
        "stands_for": [asdict(one) for one in replaced[:_LISTED]],
        "same_text": [asdict(one) for one in others[:_LISTED]],
        "text": stored[0] if stored else (again.piece.text if again.piece else None),
    }
    shown = [(label, _visible(value).rstrip()) for label, value in table]
    return Report(f"corpus {name}: {record.reason or 'kept'}", project.relative(place), figures, shown)


def _spec(content: dict[str, Any], place: Path) -> CorpusSpec:
    try:
        return resolve(CorpusSpec, [("manifest", content)])[0]
    except GptcliError as error:
        raise ArtifactError(
            f"the spec of {place} is not one of this gptcli: {error.message}", "gptcli corpus --update rebuilds it"
        ) from error


def _from(record: Record) -> str:
    member = f", member {record.member}" if record.member is not None else ""
    return f"{record.path}{member}, offset {record.offset:,}, {record.size:,} bytes"


def _source_rows(again: Retraced, record: Record, stored: tuple[str, str | None] | None) -> Rows:
    rows = [("source", f"{again.typed}: {again.state}" if again.typed else again.state)]
    if record.license:
        rows.append(("licence", record.license))
    piece = again.piece
    if piece is None:
        return [*rows, ("", "what follows is what the corpus itself knows")]
    invalid = f", {piece.invalid_bytes:,} invalid bytes became U+FFFD" if piece.invalid_bytes else ""
    rows.append(("read", f"{len(piece.text):,} characters{invalid}" if not piece.reason else piece.reason))
    meta = piece.meta if piece.meta is not None else stored and stored[1]
    return [*rows, ("metadata", _cut(meta))] if meta else rows


def _cleaning_rows(again: Retraced, spec: CorpusSpec) -> Rows:
    piece = again.piece
    if piece is None or piece.reason:
        return []
    most = f", max_chars = {spec.max_chars}" if spec.max_chars else ""
    failed = not again.steps and again.reason
    rows = [
        ("characters", f"{_verdict(not failed)}  {len(piece.text):,} characters  (min_chars = {spec.min_chars}{most})")
    ]
    if failed and not again.normalized_chars:
        return rows
    how = " and ".join([*(["repair"] if spec.repair else []), spec.normalize])
    changed = f"{len(piece.text):,} → {again.normalized_chars:,} characters" if again.was_normalized else "unchanged"
    rows.append(("normalised", f"{changed}  ({how})"))
    for step in again.steps:
        rows += _step_rows(step)
    return rows


def _step_rows(step: dict[str, Any]) -> Rows:
    changes = ", ".join(f"{count:,} {what}" for what, count in step["changes"].items())
    rewritten = f"  rewrote: {changes}; {step['chars_after']:,} characters left" if changes else ""
    rows = [(step["step"], f"{_verdict(not step['failed'])}{rewritten}")]
    measured = {rule["rule"] for rule in step["rules"]}
    if step["failed"] and step["failed"] not in measured:
        rows.append((f"  {step['failed']}", _verdict(False)))
    for rule in step["rules"]:
        value = (rule["value"] or "nothing") if isinstance(rule["value"], str) else f"{rule['value']:g}"
        limit = f"  ({rule['threshold']})" if rule["threshold"] else ""
        rows.append((f"  {rule['rule']}", f"{_verdict(rule['passed'])}  {value}{limit}"))
    return rows


def _verdict(passed: bool) -> str:
    return "ok    " if passed else "FAILED"


def _agreement(again: Retraced, record: Record, spec: CorpusSpec) -> Rows:
    """A row where cleaning the document again comes to another end than the corpus has."""
    if not again.is_read or not (again.id or again.reason):
        return []
    recorded = "" if record.reason in _LAST_PASS else record.reason
    may_be_cut = bool(spec.repeated_paragraphs) and not record.reason
    if again.reason == recorded and (again.reason or again.id == record.id or may_be_cut):
        return []
    now = again.reason or ("kept" if recorded else f"another text, with the id {again.id}")
    return [
        ("differs", f"cleaned again now: {now}; another version of gptcli, or of a filter's files, made the corpus")
    ]


def _paragraphs(again: Retraced, stored: tuple[str, str | None] | None, spec: CorpusSpec) -> Rows:
    """What the last pass cut out of a kept document, by the length it left."""
    if not spec.repeated_paragraphs or stored is None or not again.id:
        return []
    before = again.steps[-1]["chars_after"] if again.steps else again.normalized_chars
    cut = f"{before - len(stored[0]):,} characters that earlier documents have, taken out"
    return [("paragraphs", cut if before != len(stored[0]) else "none stands in an earlier document")]


def _outcome(place: Path, record: Record, spec: dict[str, Any]) -> tuple[dict[str, Any], Rows]:
    if not record.reason:
        split = record.file.partition("-")[0]
        told = {"kept": True, "split": split, "shard": record.file, "row": record.row}
        return told, [("kept", f"{split}: {record.file}, row {record.row:,}")]
    limit = Thresholds(spec).of(record.reason)
    measured = f"; measured {record.value}" if record.value else ""
    rows = [("left out", f"{record.reason}{measured}" + (f"  ({limit})" if limit else "")), ("", about(record.reason))]
    told = {"kept": False, "reason": record.reason, "value": record.value, "threshold": limit, "instead": None}
    if record.kept_id:
        alike = scan(place, with_prefix(record.kept_id))
        instead = next((one for one in alike if one.place != record.place), None)
        told["instead"] = asdict(instead) if instead else None
        where = f"  {instead.place}, {instead.reason or instead.file}" if instead else ""
        rows.append(("in its place", f"{record.kept_id}{where}"))
    return told, rows


def _copies(copies: int) -> Rows:
    return [("copies", f"written {copies} times, by its source's weight")] if copies > 1 else []


def _listed(label: str, found: list[Record]) -> Rows:
    rows = [
        (label if number == 0 else "", f"{one.reason} {one.value or ''}  {one.id}  {one.place}".replace("  ", " "))
        for number, one in enumerate(found[:_TOLD])
    ]
    return [*rows, ("", f"and {len(found) - _TOLD:,} more")] if len(found) > _TOLD else rows


def _text_row(stored: tuple[str, str | None] | None, again: Retraced) -> Rows:
    text = stored[0] if stored else again.piece.text if again.piece else ""
    return [("text", _cut(repr(text[:_SHOWN_CHARS])))] if text else []


def _visible(text: str) -> str:
    """Without characters that a terminal obeys: names of members and metadata are the sources' own."""
    return text if text.isprintable() else "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 1]}…"


def _piece_figures(again: Retraced) -> dict[str, Any] | None:
    if again.piece is None:
        return None
    piece = again.piece
    return {
        "chars": len(piece.text),
        "invalid_bytes": piece.invalid_bytes,
        "meta": piece.meta,
        "reason": piece.reason,
        "normalized_chars": again.normalized_chars,
        "was_normalized": again.was_normalized,
    }
