"""Evaluation items out of the files that hold them, whatever their columns are called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from gptcli.errors import SpecError
from gptcli.records.encodings import AUTO
from gptcli.records.items import BATCH_ROWS, FORMS, columnar_batches, stored_rows
from gptcli.records.opening import CORRUPT, Blocks, sniff
from gptcli.records.pieces import EMPTY, Notes
from gptcli.records.sources import SourceFile
from gptcli.records.tables import TableRow
from gptcli.records.text import LINE, SEPARATORS, TextFile

Texts = tuple[str, ...]


def item_texts(files: Iterable[SourceFile], notes: Notes) -> Iterator[Texts]:
    """The texts of every item, in order: each string of a row, however deep, then all of them joined as they follow.

    Joined, because an item is posed as question and choices. Rows are those of jsonl, JSON lists, csv, tsv (the header
    too), parquet and Arrow files; a text file holds an item a paragraph or, without blank lines, a line. Damaged rows
    and files are told in `notes`. SpecError naming a file that can't be read, is of another form, or holds no text.
    """
    for file in files:
        held = False
        for texts in _of_file(file, notes):
            held = held or bool(texts)
            if texts:
                yield texts
        if not held:
            raise SpecError(
                f"{file.name} holds no evaluation items", "name files of items, one a row, in decontaminate"
            )


def _of_file(file: SourceFile, notes: Notes) -> Iterator[Texts]:
    form = sniff(file.path, file.name)
    if form not in FORMS:
        raise SpecError(
            f"{file.name} is {form}: no evaluation items are read from it",
            "decontaminate takes jsonl, json, csv, tsv, parquet, Arrow and text files",
        )
    if form in ("parquet", "arrow"):
        return (_texts(row) for row in _columnar(file, form, notes))
    if form == "text":
        return _paragraphs(file, notes)
    return (_texts(row) for row in _rows(file, form, notes))


def _texts(row: object) -> Texts:
    strings = [text for text in _strings(row) if text.strip()]
    return (*strings, " ".join(strings)) if len(strings) > 1 else tuple(strings)


def _strings(row: object) -> Iterator[str]:
    """The strings of a row in order, without the names of its columns; however deep, the stack does not grow."""
    waiting = [row]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting.extend(reversed(list(value.values())))
        elif isinstance(value, list | tuple):
            waiting.extend(reversed(value))


def _rows(file: SourceFile, form: str, notes: Notes) -> Iterator[object]:
    rows = stored_rows(file, form)
    problems: dict[str, int] = {}
    for row in rows:
        if row.problem:
            problems[row.problem] = problems.get(row.problem, 0) + 1
        else:
            yield row.fields if isinstance(row, TableRow) else row.value
    _tell(file, notes, rows.fault, problems)


def _paragraphs(file: SourceFile, notes: Notes) -> Iterator[Texts]:
    """The pieces between blank lines or, where there is but one, its lines."""
    paragraphs = TextFile(Blocks(file.path, file.name), SEPARATORS["blank_lines"], AUTO)
    problems: dict[str, int] = {}
    first: str | None = None
    count = 0
    for piece in paragraphs:
        if piece.problem:
            problems[piece.problem] = problems.get(piece.problem, 0) + 1
            continue
        count += 1
        if count == 1:
            first = piece.text
            continue
        if count == 2 and first is not None:
            yield (first,)
        yield (piece.text,)
    if count == 1 and first is not None:
        yield from ((line,) for line in LINE.split(first) if line.strip())
    _tell(file, notes, paragraphs.fault, problems)


def _tell(file: SourceFile, notes: Notes, fault: str, problems: dict[str, int]) -> None:
    problems.pop(EMPTY, None)
    faults = [fault] if fault else []
    notes.faults += [(file.name, told) for told in faults + [f"{count} rows {why}" for why, count in problems.items()]]


def _columnar(file: SourceFile, form: str, notes: Notes) -> Iterator[Any]:
    try:
        for batch in columnar_batches(file, form):
            texts = batch.select([field.name for field in batch.schema if "string" in str(field.type)])
            for begin in range(0, batch.num_rows, BATCH_ROWS):
                yield from texts.slice(begin, BATCH_ROWS).to_pylist()
    except (OSError, pa.ArrowException, ValueError, OverflowError):  # of damaged data, or dates Python has not
        notes.faults.append((file.name, CORRUPT))
