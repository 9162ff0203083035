"""One unit: read its files, normalise, judge and hash every document. Runs in a worker; the result is on disk."""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptcli.corpus.spec import CorpusSpec
from gptcli.corpus.units import Counts, Kept, Unit, UnitFile, UnitWriter
from gptcli.errors import SpecError
from gptcli.records.decoding import without_surrogates
from gptcli.records.opening import CORRUPT, TRUNCATED, sniff
from gptcli.records.rows import NOT_JSON, Row, RowFile
from gptcli.records.sources import require_unchanged
from gptcli.records.text import EMPTY, TOO_LONG, TextFile, separator_pattern

# Reasons a document is left out, beside EMPTY, TOO_LONG, CORRUPT, TRUNCATED, `bad_row:…` and `filter:NAME:…`.
TOO_SHORT = "too_short"
NOT_TEXT = "not_text"  # a binary file
DUPLICATE = "duplicate"


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True, slots=True)
class Piece:
    """A document as read, with its byte range in the decompressed file; with a `reason` it has no text."""

    text: str
    offset: int
    size: int
    invalid_bytes: int = 0
    meta: str | None = None
    reason: str = ""


def clean_unit(unit: Unit, spec: CorpusSpec, directory: Path) -> None:
    """Clean the unit's files into `directory`.

    Raises SpecError naming a file that can't be read, has no text, or is no longer the one that was hashed.
    """
    writer, counts = UnitWriter(directory, unit), Counts()
    for file in unit.files:
        for piece in read_pieces(file, spec, counts):
            counts.document(file.source, piece.invalid_bytes)
            reason = piece.reason or _judge_length(piece.text, spec)
            text = piece.text
            if not reason:
                text = normalized(text, spec.normalize)
                reason = _judge(text, spec)
            if reason:
                counts.leave_out(file.source, reason)
                continue
            data = text.encode()
            digest = hashlib.blake2b(data, digest_size=16).digest()
            writer.write(
                Kept(
                    digest,
                    data,
                    len(text),
                    file.name,
                    file.source,
                    piece.offset,
                    piece.size,
                    file.license,
                    piece.meta,
                )
            )
        require_unchanged(file.path, file.recorded)
    writer.close(counts)


def normalized(text: str, form: str) -> str:
    """Text in Unicode form NFC, or as it stands."""
    if form == "none" or text.isascii() or unicodedata.is_normalized("NFC", text):
        return text
    return unicodedata.normalize("NFC", text)


def _judge_length(text: str, spec: CorpusSpec) -> str:
    if not text or text.isspace():
        return EMPTY
    if len(text) < spec.min_chars:
        return TOO_SHORT
    return TOO_LONG if spec.max_chars and len(text) > spec.max_chars else ""


def _judge(text: str, spec: CorpusSpec) -> str:
    for one in spec.filters:
        verdict = one.verdict(text)
        if not verdict.keep:
            return f"filter:{one.name}:{verdict.reason}"
    return ""


def read_pieces(file: UnitFile, spec: CorpusSpec, counts: Counts) -> Iterator[Piece]:
    """The documents of one file, whatever its form; a file that is damaged is put down in `counts.faults`."""
    content = sniff(file.path, file.name)
    if content == "binary":
        yield Piece("", 0, file.path.stat().st_size, reason=NOT_TEXT)
        return
    if content == "text":
        texts = TextFile(file.path, file.name, separator_pattern(spec.separator), spec.encoding, spec.max_chars)
        for document in texts:
            yield Piece(document.text, document.offset, document.size, document.invalid_bytes, reason=document.problem)
        fault = texts.fault
    else:
        rows = RowFile(file.path, file.name, spec.encoding, is_list=content == "list")
        yield from _pieces_of_rows(rows, file.name, spec)
        fault = rows.fault
    if fault:
        counts.faults.append((file.name, fault))


def _pieces_of_rows(rows: RowFile, name: str, spec: CorpusSpec) -> Iterator[Piece]:
    keys: dict[str, int] = {}  # key → the line it was first met on
    found, line, problem = False, 0, ""
    for row in rows:
        if spec.text_key in row.value:
            found = True
        elif not found:
            keys.update((key, row.line) for key in row.value if key not in keys and len(keys) < 50)
            line, problem = line or row.line, problem or row.problem
        yield _piece_of_row(row, spec.text_key)
    if found or rows.fault or not line:
        return
    if keys:
        where = f"{name}:{next(iter(keys.values()))}"
        raise SpecError(
            f"no row of {name} has the text key {spec.text_key}; the keys there are ({where}): {', '.join(keys)}",
            "name one of them with --set text_key=KEY",
        )
    raise SpecError(f"no row of {name} is a JSON object; {name}:{line} is {problem}", "check the file's form")


def _piece_of_row(row: Row, text_key: str) -> Piece:
    if row.problem in (CORRUPT, TRUNCATED):
        return Piece("", row.offset, row.size, row.invalid_bytes, reason=row.problem)
    text = row.value.get(text_key)
    problem = row.problem or (
        "" if isinstance(text, str) else "text_not_string" if text_key in row.value else "no_text"
    )
    if problem or not isinstance(text, str):
        return Piece("", row.offset, row.size, row.invalid_bytes, reason=f"bad_row:{problem}")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    text, surrogates = without_surrogates(text)
    rest = {key: value for key, value in row.value.items() if key != text_key}
    try:
        meta = _json(rest) if rest else None
    except RecursionError:
        return Piece("", row.offset, row.size, row.invalid_bytes, reason=f"bad_row:{NOT_JSON}")
    return Piece(text, row.offset, row.size, row.invalid_bytes + surrogates, meta)


def _json(value: dict[str, Any]) -> str:
    """Compact JSON that UTF-8 can hold; a number too large for a double (1e999) becomes null."""
    try:
        text = _ENCODER.encode(value)
    except ValueError:
        text = _ENCODER.encode(_finite(value))
    return without_surrogates(text)[0]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
