"""`gptcli tokenize --locate SPLIT:POSITION`: from one token back to its document, and to the byte it came from.

Shards are memory-mapped. Of every record batch before the position only its two outermost offsets are read, within a
batch the row is found by bisection; the tokens read are those of the document.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gptcli.artifacts.project import Project
from gptcli.artifacts.schemas import CORPUS_SCHEMA, SPLITS
from gptcli.artifacts.shards import open_shard
from gptcli.console import Report, print_rows
from gptcli.errors import ArtifactError, SpecError
from gptcli.tokenize.views.artifact import TOKENIZER, UNREADABLE, Behind, corpus_behind, finished, splits_of
from gptcli.tokenize.views.pieces import CONTROL, Pieces, spans
from gptcli.tokenize.views.visible import print_ascii, printable, visible_bytes
from gptcli.tokenizer import Tokenizer

_AROUND = 24  # tokens shown on either side
_BEGIN_TOKENS = 4096  # of a document whose tokenizer does more than to join pieces: read one by one
_SOURCE_COLUMNS = ("id", "path", "member", "source_offset", "source_bytes", "license")


@dataclass(frozen=True)
class Found:
    """Where a token stands: `row` of the shard, `number` of the token among the document's `ids` (bos and eos too)."""

    shard: Path
    batch: int
    row: int
    document: str
    text_bytes: int
    ids: Any
    number: int


def locate(project: Project, name: str | None, wanted: str) -> Report:
    """Where the token at a position of a split's stream comes from.

    wanted: SPLIT:POSITION, positions counted from 0 over all tokens of the split with bos and eos. Raises SpecError
    for what names no position, telling those there are; ArtifactError where tokens/NAME isn't there or can't be read.
    """
    place, manifest = finished(project, name)
    split, position = _parse(place, wanted)
    found = _find(splits_of(place)[split], split, position)
    tokenizer = Tokenizer.load(place / TOKENIZER)
    pieces = Pieces.of(tokenizer)
    if len(found.ids) and int(found.ids.max()) >= tokenizer.vocab_size:
        raise ArtifactError(
            f"{found.shard}: document {found.document} holds ids outside the vocabulary", "gptcli tokenize --verify"
        )
    token_id = int(found.ids[found.number])
    told = {
        "split": split,
        "position": position,
        "shard": found.shard.name,
        "batch": found.batch,
        "row": found.row,
        "document": found.document,
        "token": found.number,
        "tokens": len(found.ids),
        "id": token_id,
        "piece": tokenizer.piece(token_id),
        **_in_text(tokenizer, pieces, found),
        **_source(corpus_behind(project, manifest), found),
    }
    return Report(f"{project.relative(place)} {split}:{position}", project.relative(place), told)


def print_shown(report: Report, as_json: bool) -> None:
    """Print what `locate` found."""
    if as_json:
        print_ascii(report)
        return
    told = report.figures
    print(report.title)
    rows = [
        ("shard", f"{told['shard']}, batch {told['batch']:,}, row {told['row']:,}"),
        ("document", told["document"]),
        ("token", f"{told['token']:,} of {told['tokens']:,}: id {told['id']:,} {printable(told['piece'])}"),
        ("in the text", _place(told)),
    ]
    if source := told["source"]:
        member = f", member {source['member']}" if source["member"] is not None else ""
        where = f"{source['path']}{member}, offset {source['source_offset']:,}, {source['source_bytes']:,} bytes"
        rows.append(("from", printable(where)))
    rows += [("source", f"not told: {reason}") for reason in told["not_told"]]
    print_rows([*rows, ("around", _marked(told))])
    sys.stdout.flush()


def _parse(place: Path, wanted: str) -> tuple[str, int]:
    split, colon, number = wanted.partition(":")
    there = splits_of(place)
    if not colon or split not in SPLITS or not (number.isascii() and number.isdigit()) or len(number) > 18:
        raise SpecError(
            f"{wanted!r} names no token", "SPLIT:POSITION with a split and a whole number from 0: train:1000000"
        )
    if split not in there:
        raise SpecError(f"{place.name} has no {split} split", f"there are: {', '.join(there) or 'none'}")
    return split, int(number)


def _find(shards: list[Path], split: str, position: int) -> Found:
    """Raises SpecError behind the end, ArtifactError for a shard that can't be read."""
    begin = 0
    for path in shards:
        try:
            reader = open_shard(path)
        except UNREADABLE as error:
            raise _broken(path, error) from error
        row = 0
        for number in range(reader.num_record_batches):
            batch = _batch(reader, number, path)
            if batch.num_rows:
                offsets = batch.column("tokens").offsets.to_numpy()
                held = int(offsets[-1] - offsets[0])
                if position < begin + held:
                    inside = position - begin + int(offsets[0])
                    at = int(np.searchsorted(offsets, inside, side="right")) - 1
                    return _found(path, number, row + at, batch, at, inside - int(offsets[at]))
                begin += held
            row += batch.num_rows
    last = f"positions go from 0 to {begin - 1:,}" if begin else "it has no tokens"
    raise SpecError(f"{split}:{position} lies behind the end of the split: {last}", f"give one below {begin}")


def _found(path: Path, number: int, row: int, batch: pa.RecordBatch, at: int, token: int) -> Found:
    one = batch.slice(at, 1)
    try:
        one.validate(full=True)
        ids = one.column("tokens").flatten().to_numpy()
        document, size = one.column("document")[0].as_py(), one.column("bytes")[0].as_py()
        if document is None or size is None or not 0 <= token < len(ids):
            raise pa.ArrowInvalid(f"row {row} makes no sense")
    except UNREADABLE as error:
        raise _broken(path, error) from error
    return Found(path, number, row, document, size, ids, token)


def _batch(reader: Any, number: int, path: Path) -> pa.RecordBatch:
    try:
        batch = reader.get_batch(number)
        batch.validate()
        batch.column("tokens").offsets  # noqa: B018 (a shard of something else has no such column)
    except UNREADABLE as error:
        raise _broken(path, error) from error
    return batch


def _broken(path: Path, error: Exception) -> ArtifactError:
    return ArtifactError(f"{path} cannot be read: {error}", "gptcli tokenize --force builds it again")


def _in_text(tokenizer: Tokenizer, pieces: Pieces, found: Found) -> dict[str, Any]:
    """The bytes of the stored text that the token stands for, and what is written on either side.

    `offset` is None where it can't be told: in a tokenizer that does more than to join pieces, far into a document.
    """
    ids, number = found.ids, found.number
    first, last = max(number - _AROUND, 0), min(number + 1 + _AROUND, len(ids))
    near, places = spans(tokenizer, pieces, ids[first:last].tolist())
    start, end = int(places[number - first]), int(places[number - first + 1])
    is_exact = tokenizer.engine.is_lossless
    offset: int | None
    if is_exact:
        offset = pieces.place(ids, number)
        # An escape that begins before the window is whole in the document alone.
        size = pieces.place(ids, number + 1) - offset
    elif number < _BEGIN_TOKENS:
        _, before = spans(tokenizer, pieces, ids[: number + 1].tolist())
        offset, size = int(before[number]), int(before[number + 1] - before[number])
    else:
        offset, size = None, end - start
    return {
        "offset": offset,
        "bytes": size,
        "text_bytes": found.text_bytes,
        "is_control": bool(pieces.kinds[ids[number]] == CONTROL),
        "exact": is_exact,
        "before": visible_bytes(near[:start]),
        "text": visible_bytes(near[start:end]),
        "after": visible_bytes(near[end:]),
    }


def _source(behind: Behind, found: Found) -> dict[str, Any]:
    """Where the document came from, by its row in the corpus's shard of the same name."""
    if behind.path is None:
        return {"source": None, "not_told": [behind.missing]}
    row = _corpus_row(behind.path / found.shard.name, found.row)
    if row is None or row.pop("id") != found.document:
        reason = "the corpus has another document in this row; gptcli tokenize --verify"
        return {"source": None, "not_told": [reason]}
    return {"source": row, "not_told": []}


def _corpus_row(path: Path, row: int) -> dict[str, Any] | None:
    """A row of a corpus shard without its text; None where there is no such row."""
    fields = [CORPUS_SCHEMA.get_field_index(name) for name in _SOURCE_COLUMNS]
    try:
        with pa.memory_map(str(path), "r") as file:
            reader = pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=fields))
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                if row < batch.num_rows:
                    return {name: batch.column(name)[row].as_py() for name in _SOURCE_COLUMNS}
                row -= batch.num_rows
    except UNREADABLE as error:
        raise ArtifactError(f"{path} cannot be read: {error}", "gptcli corpus --force builds it again") from error
    return None


def _place(told: dict[str, Any]) -> str:
    if told["is_control"]:
        return "nowhere: it marks where the document begins or ends"
    if told["offset"] is None:
        return "not told: this tokenizer does more than to join pieces, and the place is far into the document"
    kind = "byte" if told["exact"] else "about byte"
    return f"{kind} {told['offset']:,} of {told['text_bytes']:,}, {told['bytes']:,} long"


def _marked(told: dict[str, Any]) -> str:
    """The text around, the token reversed on a terminal and in brackets elsewhere."""
    text = told["text"] or told["piece"]
    if sys.stdout.isatty():
        return f"{told['before']}\x1b[7m{printable(text)}\x1b[27m{told['after']}"
    return f"{told['before']}⟦{printable(text)}⟧{told['after']}"
