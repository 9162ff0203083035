"""Rows of evaluation files, whatever their form, each as a dict with its place: file:line, or file row N."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from gptcli.errors import SpecError
from gptcli.records.cells import metadata, text_type, texts, validate
from gptcli.records.chats import question_hash
from gptcli.records.compression import TRUNCATED
from gptcli.records.decoding import Characters
from gptcli.records.docstrings import docstrings
from gptcli.records.encodings import AUTO
from gptcli.records.headers import Shape, shaped
from gptcli.records.opening import CORRUPT, Blocks, sniff
from gptcli.records.pieces import EMPTY
from gptcli.records.rows import RowFile
from gptcli.records.sources import SourceFile
from gptcli.records.stdlib import DOCSTRINGS
from gptcli.records.tables import TableFile, TableRow

FORMS = ("rows", "list", "objects", "csv", "tsv", "parquet", "arrow", "text")
BATCH_ROWS = 256  # of a columnar file, decoded at once
TEXT = "text"  # the field that a line of a text file is
REPLACED = "invalid_bytes_replaced"  # fault of a file in which some row has U+FFFD for bytes of no character

TABLES = ("csv", "tsv")


@dataclass(frozen=True, slots=True)
class ItemRow:
    """One row: its fields, as JSON has values, and its place as a person finds it."""

    value: dict[str, Any]
    where: str


@dataclass
class LeftOut:
    """What was left out: how many by reason, and the place of the first of each."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def note(self, reason: str, where: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.first.setdefault(reason, where)


class ItemRows:
    """The rows of files, in order; each iteration reads them anew.

    jsonl, JSON lists and objects: an object a row, at file:line. csv, tsv: fields by name, or by number from 0 where
    there are no names (see `Shape`), at "file row N", N counting the header too. parquet, Arrow: values as JSON has
    them (dates ISO 8601; NaN and bytes that are no UTF-8 are null), N from 1. Text: a line an item, the field `text`;
    lines of no length are none. Compressed files as they are. `parallel`: fields whose values stand in text files of
    their own, line for line with the text files of `files`, of as many; there a line of no length is one.
    python:docstrings: name, package, question and answer of each docstring, see `_docstring_rows`; before all others.

    Rows that can't be read are counted in `left_out`; what is wrong with a file as a whole stands in `faults`, as
    (file, fault). Raises SpecError naming a file that can't be opened, is of another form, or holds no row, and for
    parallel files of different lengths, both told.
    """

    def __init__(
        self,
        files: Sequence[SourceFile],
        shape: Shape | None = None,
        parallel: Mapping[str, Sequence[SourceFile]] | None = None,
    ) -> None:
        self._files = files
        self._shape = shape or Shape()
        self._parallel = parallel or {}
        self.left_out = LeftOut()
        self.faults: list[tuple[str, str]] = []
        if TEXT in self._parallel:
            raise SpecError("parallel.text: the lines of data are the field text", "choose another name")
        for name, others in self._parallel.items():
            if len(others) != len(files):
                raise SpecError(
                    f"parallel.{name} names {len(others)} files for {len(files)} of data",
                    "one for each, in their order",
                )

    def __iter__(self) -> Iterator[ItemRow]:
        self.left_out, self.faults = LeftOut(), []
        if any(file.source == DOCSTRINGS for file in self._files):
            yield from _docstring_rows()
        for number, file in enumerate(self._files):
            if file.source == DOCSTRINGS:
                continue
            held = False
            for row in self._of_file(number, file):
                held = True
                yield row
            if not held:
                raise SpecError(f"{file.name} holds no items{self._why(file)}", "name files of items, one a row")

    def _why(self, file: SourceFile) -> str:
        found = [fault for name, fault in self.faults if name == file.name]
        places = (f"{file.name}:", f"{file.name} row ")
        found += [f"{reason} at {where}" for reason, where in self.left_out.first.items() if where.startswith(places)]
        return f" ({found[0]})" if found else ""

    def _of_file(self, number: int, file: SourceFile) -> Iterator[ItemRow]:
        form = sniff(file.path, file.name)
        if form not in FORMS:
            raise SpecError(
                f"{file.name} is {form}: no items are read from it",
                "items come from jsonl, json, csv, tsv, parquet, Arrow and text files",
            )
        if self._parallel:
            return self._side_by_side(number, file, form)
        if form == "text":
            return (ItemRow({TEXT: line}, f"{file.name}:{n}") for n, line in self._lines(file) if line)
        if form in TABLES:
            return self._table(file, form)
        return self._columnar(file, form) if form in ("parquet", "arrow") else self._objects(file, form)

    def _objects(self, file: SourceFile, form: str) -> Iterator[ItemRow]:
        rows = stored_rows(file, form)
        replaced = False
        for row in rows:
            assert not isinstance(row, TableRow)
            where = f"{file.name}:{row.line}"
            replaced |= bool(row.invalid_bytes)
            if row.problem:
                self._skip(row.problem, where)
            else:
                yield ItemRow(row.value, where)
        self._tell(file, rows.fault, replaced)

    def _table(self, file: SourceFile, form: str) -> Iterator[ItemRow]:
        table = stored_rows(file, form)
        replaced = False
        found = shaped((row for row in table if isinstance(row, TableRow)), self._shape)
        last: ItemRow | None = None  # of a file that is cut off it is not whole
        for number, row, value in found:
            where = f"{file.name} row {number}"
            replaced |= bool(row.invalid_bytes)
            if row.problem:
                self._skip(row.problem, where)
                continue
            if last is not None:
                yield last
            last = ItemRow(value, where)
        yield from self._last(last, table.fault)
        self._tell(file, table.fault, replaced)

    def _columnar(self, file: SourceFile, form: str) -> Iterator[ItemRow]:
        number = 0
        try:
            for batch in columnar_batches(file, form):
                for begin in range(0, batch.num_rows, BATCH_ROWS):
                    for value in _plain_rows(batch.slice(begin, BATCH_ROWS)):
                        number += 1
                        yield ItemRow(value, f"{file.name} row {number}")
        except (OSError, pa.ArrowException, ValueError, OverflowError):
            self._tell(file, CORRUPT, False)

    def _side_by_side(self, number: int, file: SourceFile, form: str) -> Iterator[ItemRow]:
        columns: dict[str, list[str]] = {}
        for name, of_name in ((TEXT, file), *((name, others[number]) for name, others in self._parallel.items())):
            of_form = form if of_name is file else sniff(of_name.path, of_name.name)
            if of_form != "text":
                raise SpecError(f"{of_name.name} is {of_form}: only text files go line by line", "leave out parallel")
            columns[name] = [line for _, line in self._lines(of_name)]
            if len(columns[name]) != len(columns[TEXT]):
                raise SpecError(
                    f"{file.name} has {len(columns[TEXT])} lines and {of_name.name} has {len(columns[name])}",
                    "a line of the one belongs to a line of the other",
                )
        for line, values in enumerate(zip(*columns.values(), strict=True), 1):
            yield ItemRow(dict(zip(columns, values, strict=True)), f"{file.name}:{line}")

    def _lines(self, file: SourceFile) -> Iterator[tuple[int, str]]:
        """The lines of a text file with their numbers; a newline at the end begins none."""
        characters = Characters(Blocks(file.path, file.name), AUTO)
        number, replaced, held = 0, False, ""
        for text in characters:
            *lines, held = (held + text).split("\n")
            for line in lines:
                number += 1
                cleaned, invalid = characters.decoder.clean(line)
                replaced |= bool(invalid)
                yield number, cleaned
        if held and characters.fault:
            self._skip(characters.fault, f"{file.name}:{number + 1}")
        elif held:
            cleaned, invalid = characters.decoder.clean(held)
            replaced |= bool(invalid)
            yield number + 1, cleaned
        self._tell(file, characters.fault, replaced)

    def _last(self, last: ItemRow | None, fault: str) -> Iterator[ItemRow]:
        if last is not None and fault == TRUNCATED:
            self._skip(fault, last.where)
        elif last is not None:
            yield last

    def _skip(self, reason: str, where: str) -> None:
        if reason != EMPTY:
            self.left_out.note(reason, where)

    def _tell(self, file: SourceFile, fault: str, replaced: bool) -> None:
        self.faults += [(file.name, fault)] if fault else []
        self.faults += [(file.name, REPLACED)] if replaced else []


def _docstring_rows() -> Iterator[ItemRow]:
    """The standard library's docstrings by the content hash of their questions: those first that tuning on the same
    docstrings as chats holds out, however large that share."""
    for found in sorted(docstrings(), key=lambda each: question_hash(each.question)):
        package = found.name.partition(".")[0]
        value = {"name": found.name, "package": package, "question": found.question, "answer": found.answer}
        yield ItemRow(value, found.where)


def stored_rows(file: SourceFile, form: str) -> RowFile | TableFile:
    """The rows of a file of the form "rows", "list", "objects", "csv" or "tsv", its encoding detected."""
    blocks = Blocks(file.path, file.name)
    return TableFile(blocks, form, AUTO) if form in TABLES else RowFile(blocks, AUTO, form)


def columnar_batches(file: SourceFile, form: str) -> Iterator[Any]:
    """The record batches of a "parquet" or "arrow" file, in order. Raises what Arrow does where it is damaged."""
    if form == "parquet":
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(file.path) as table:
            yield from table.iter_batches(BATCH_ROWS, use_threads=False)
        return
    import pyarrow.ipc

    with pa.memory_map(str(file.path)) as data:
        is_file = data.read(6) == b"ARROW1"
        data.seek(0)
        reader = pyarrow.ipc.open_file(data) if is_file else pyarrow.ipc.open_stream(data)
        if is_file:
            yield from map(reader.get_batch, range(reader.num_record_batches))
        else:
            yield from reader


def _plain_rows(batch: Any) -> Iterator[dict[str, Any]]:
    """The rows of a batch as JSON has values; binary columns are text where they are UTF-8."""
    names = batch.schema.names
    columns = []
    for column in batch.columns:
        validate(column)
        if text_type(column.type):
            found = [None if reason else text for text, _, _, reason in texts(column)]
            column = pa.array(found, pa.large_string())
        columns.append(column)
    for row in metadata(names, columns):
        yield json.loads(row or "{}")
