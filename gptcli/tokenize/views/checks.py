"""One token shard beside the corpus shard it was made of: the unit of work of `gptcli tokenize --verify`.

Where a text decodes by joining pieces, a compiled loop walks through a document's tokens and its text side by side.
What differs there (an escaped character, a damage) is decoded by the engine, which has the last word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gptcli.artifacts.durable import sha256_file
from gptcli.artifacts.manifest import FileEntry
from gptcli.artifacts.schemas import CORPUS_SCHEMA, TOKENS16_SCHEMA, TOKENS32_SCHEMA
from gptcli.artifacts.shards import open_shard
from gptcli.errors import ArtifactError
from gptcli.runtime.compiled import compiled
from gptcli.tokenize.encoding.chunks import Bytes, Offsets, text_bytes
from gptcli.tokenize.views.artifact import UNREADABLE
from gptcli.tokenize.views.parity import PARITY, Parity
from gptcli.tokenize.views.pieces import CONTROL, Pieces
from gptcli.tokenizer import Tokenizer

EVERY = 97  # documents of a shard of which one, its first among them, is encoded again
LONGEST_AGAIN = 1 << 20  # bytes of a document that is encoded again
LONGEST_DECODED = 1 << 22  # tokens of a document that the engine decodes as a whole

OUTSIDE, UNFRAMED, CONTROLLED, DIFFERENT = 1, 2, 4, 8  # flags of a document
_FAULTS = {
    OUTSIDE: ("vocabulary", "holds an id outside the vocabulary"),
    UNFRAMED: ("frame", "does not stand between bos and eos"),
    CONTROLLED: ("control", "holds a control id"),
}
_ESCAPE = re.compile(rb"\xee\x80\x80")


@dataclass
class Findings:
    """What is wrong, kind by kind: how often, and the first example; and how much was looked at."""

    faults: dict[str, tuple[int, str]] = field(default_factory=dict)
    documents: int = 0
    bytes: int = 0
    tokens: int = 0
    compared: int = 0  # documents whose tokens were decoded and compared with their text
    changed: int = 0  # of them those that a tokenizer which may rewrite text gives back otherwise
    again: int = 0  # documents encoded again

    def add(self, kind: str, example: str, count: int = 1) -> None:
        found, first = self.faults.get(kind, (0, example))
        self.faults[kind] = (found + count, first)

    def __iadd__(self, other: Findings) -> Findings:
        for kind, (count, example) in other.faults.items():
            self.add(kind, example, count)
        for name in ("documents", "bytes", "tokens", "compared", "changed", "again"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


@dataclass(frozen=True)
class Pair:
    """A token shard and the corpus shard behind it (None: not to be had), with what their manifests say of them."""

    tokens: Path
    entry: FileEntry
    corpus: Path | None
    corpus_entry: FileEntry | None


class ShardCheck:
    """Checks shards with one tokenizer; made once in each worker."""

    def __init__(self, directory: Path) -> None:
        self.tokenizer = Tokenizer.load(directory)
        self.pieces = Pieces.of(self.tokenizer)
        self.is_lossless = self.tokenizer.engine.is_lossless
        self.parity = Parity.of(self.tokenizer)
        self._is_control = self.pieces.kinds == CONTROL
        self._bos_id = -1 if self.tokenizer.bos_id is None else self.tokenizer.bos_id

    def check(self, pair: Pair) -> Findings:
        """Everything that is wrong with a shard; nothing is raised for damage."""
        found, name = Findings(), pair.tokens.name
        check_file(found, pair.tokens, pair.entry, "checksum")
        if pair.corpus is not None and pair.corpus_entry is not None:
            check_file(found, pair.corpus, pair.corpus_entry, "corpus")
        texts = None if pair.corpus is None or "corpus" in found.faults else _batches(pair.corpus, _CORPUS, "corpus")
        try:
            for row, documents, sources in _side_by_side(_batches(pair.tokens, _TOKENS, "shard"), texts or iter(())):
                if texts is not None:
                    _require_both(found, name, row, documents, sources)
                if documents is not None:
                    self._check_rows(found, name, row, documents, sources)
        except _BrokenError as error:
            found.add(error.kind, str(error))
        except (ValueError, pa.ArrowException) as error:  # nulls among the tokens, say
            found.add("shard", f"{name}: cannot be read: {error}")
        if pair.entry.rows is not None and found.documents != pair.entry.rows and "shard" not in found.faults:
            found.add("rows", f"{name}: {found.documents:,} rows where the manifest has {pair.entry.rows:,}")
        return found

    def _check_rows(
        self, found: Findings, name: str, row: int, documents: pa.RecordBatch, sources: pa.RecordBatch | None
    ) -> None:
        """Documents from `row` on, and the corpus's rows beside them (None: there are none)."""
        tokens, ids = documents.column("tokens"), documents.column("document")
        flat, offsets = tokens.flatten().to_numpy(), tokens.offsets.to_numpy()
        offsets = offsets - offsets[0]
        found.documents += documents.num_rows
        found.tokens += len(flat)
        found.bytes += int(documents.column("bytes").to_numpy().sum())
        if sources is None:
            data, text_offsets = np.empty(0, np.uint8), np.zeros(documents.num_rows + 1, np.int64)
        else:
            data, text_offsets = text_bytes(sources.column("text"))
        flags = np.zeros(documents.num_rows, np.uint8)
        _walk(
            flat,
            offsets,
            data,
            text_offsets,
            self.pieces.data,
            self.pieces.offsets,
            self._is_control,
            np.array([self._bos_id, self.tokenizer.eos_id]),
            flags,
        )
        for flag, (kind, told) in _FAULTS.items():
            rows = np.flatnonzero(flags & flag)
            if len(rows):
                found.add(kind, f"{name}: row {row + int(rows[0]):,}: document {ids[int(rows[0])]} {told}", len(rows))
        if sources is not None:
            same = _same_rows(found, name, row, documents, sources, np.diff(text_offsets))
            whole = same & (flags & (OUTSIDE | UNFRAMED) == 0)
            self._check_texts(found, f"{name}: row", row, (flat, offsets), sources, whole, flags)

    def _check_texts(
        self,
        found: Findings,
        where: str,
        row: int,
        tokens: tuple[Any, Offsets],
        sources: pa.RecordBatch,
        whole: npt.NDArray[np.bool_],
        flags: npt.NDArray[np.uint8],
    ) -> None:
        """Decode what the walk could not answer for, and encode a few documents again."""
        flat, offsets = tokens
        texts = sources.column("text")
        found.compared += int(whole.sum())
        doubtful = (flags & DIFFERENT) > 0
        if self.pieces.escapes:
            doubtful[_rows_with_escapes(texts)] = True
        for number in np.flatnonzero(whole & doubtful).tolist():
            is_same = self._decodes(flat[offsets[number] : offsets[number + 1]], texts[number])
            if is_same:
                continue
            if is_same is None:
                found.compared -= 1
            elif self.is_lossless:
                found.add("round_trip", f"{where} {row + number:,}: {_of(sources, number)} decodes to another text")
            else:
                found.changed += 1
        sizes = np.diff(text_bytes(texts)[1])
        for number in range(-row % EVERY, len(texts), EVERY):
            if not whole[number] or sizes[number] > LONGEST_AGAIN:
                continue
            text = texts[number].as_py()
            found.again += 1
            ids, head = self.tokenizer.encode(text), int(self._bos_id >= 0)
            if ids != flat[offsets[number] + head : offsets[number + 1] - 1].tolist():
                found.add("encoding", f"{where} {row + number:,}: {_of(sources, number)} encodes to other ids now")
            if told := self.parity.difference(text, ids):
                found.add(PARITY, f"{where} {row + number:,}: {_of(sources, number)}: {told}")

    def _decodes(self, ids: Any, text: Any) -> bool | None:
        """Whether a document's ids decode to its text; None: not told, where only the engine could and the document
        is so long that it would need many times its size."""
        if len(ids) <= LONGEST_DECODED:
            return bool(self.tokenizer.decode(ids.tolist()) == text.as_py())
        if not self.is_lossless:
            return None
        data, place = memoryview(text.as_buffer()).cast("B"), 0
        for part in self.pieces.stored_parts(ids):
            if data[place : place + len(part)] != part:
                return False
            place += len(part)
        return place == len(data)


def _of(sources: pa.RecordBatch, number: int) -> str:
    return f"document {sources.column('id')[number]}"


def _same_rows(
    found: Findings, name: str, row: int, documents: pa.RecordBatch, sources: pa.RecordBatch, sizes: Offsets
) -> npt.NDArray[np.bool_]:
    """Where both sides name the same document; the others, and those of another length, are found faults."""
    ids, wanted = documents.column("document"), sources.column("id")
    same: npt.NDArray[np.bool_] = pc.equal(ids, wanted).to_numpy(zero_copy_only=False)
    other = np.flatnonzero(~same)
    if len(other):
        first = int(other[0])
        found.add(
            "rows",
            f"{name}: row {row + first:,}: document {ids[first]} where the corpus has {wanted[first]}",
            len(other),
        )
    lengths = documents.column("bytes").to_numpy()
    wrong = np.flatnonzero(same & (lengths != sizes))
    if len(wrong):
        first = int(wrong[0])
        found.add(
            "bytes",
            f"{name}: row {row + first:,}: {int(lengths[first]):,} bytes for a text of {int(sizes[first]):,}",
            len(wrong),
        )
    return same


def _rows_with_escapes(texts: Any) -> npt.NDArray[np.int64]:
    """Rows with a U+E000: joined pieces that look like it may mean another character."""
    data, offsets = text_bytes(texts)
    places = [match.start() for match in _ESCAPE.finditer(data.data)]
    return np.unique(np.searchsorted(offsets, places, side="right") - 1)


def check_file(found: Findings, path: Path, entry: FileEntry, kind: str) -> None:
    """Find a file that is not what a manifest says of it."""
    try:
        size = path.stat().st_size
        if size != entry.bytes:
            found.add(kind, f"{entry.path}: {size:,} bytes where the manifest has {entry.bytes:,}")
        elif sha256_file(path) != entry.sha256:
            found.add(kind, f"{entry.path}: its bytes do not match their SHA-256")
    except OSError as error:
        found.add(kind, f"{entry.path}: {error.strerror or error}")


class _BrokenError(Exception):
    """A shard can't be read on; `kind` of the finding."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


_TOKENS = (TOKENS16_SCHEMA, TOKENS32_SCHEMA)
_CORPUS = (CORPUS_SCHEMA,)


def _batches(path: Path, schemas: tuple[pa.Schema, ...], kind: str) -> Iterator[pa.RecordBatch]:
    """The batches of a shard in one of the schemas, each validated in full and without nulls where none may be."""
    try:
        reader = open_shard(path)
        if not any(reader.schema.equals(schema) for schema in schemas):
            raise _BrokenError(kind, f"{path.name}: its columns are not those of such a shard")
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            batch.validate(full=True)
            for column, of in zip(batch.columns, batch.schema, strict=True):
                if column.null_count and not of.nullable:
                    raise _BrokenError(kind, f"{path.name}: batch {number}: column {of.name} holds nulls")
            yield batch
    except (*UNREADABLE, ArtifactError) as error:
        raise _BrokenError(kind, f"{path.name}: cannot be read: {error}") from error


def _side_by_side(
    left: Iterator[pa.RecordBatch], right: Iterator[pa.RecordBatch]
) -> Iterator[tuple[int, pa.RecordBatch | None, pa.RecordBatch | None]]:
    """The row that slices of both begin at, and the slices, equal in rows; None behind the end of one of them."""
    row = 0
    one, other = next(left, None), next(right, None)
    while one is not None or other is not None:
        size = min(batch.num_rows for batch in (one, other) if batch is not None)
        yield row, one and one.slice(0, size), other and other.slice(0, size)
        row += size
        one, other = _rest(one, size, left), _rest(other, size, right)


def _rest(batch: pa.RecordBatch | None, size: int, source: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
    if batch is None or batch.num_rows > size:
        return batch and batch.slice(size)
    return next(source, None)


def _require_both(
    found: Findings, name: str, row: int, documents: pa.RecordBatch | None, sources: pa.RecordBatch | None
) -> None:
    if sources is None and documents is not None:
        found.add("rows", f"{name}: row {row:,}: the corpus has no document for it", documents.num_rows)
    if documents is None and sources is not None:
        found.add("rows", f"{name}: row {row:,}: a document of the corpus is missing", sources.num_rows)


@compiled
def _walk(
    tokens: Any,
    offsets: Offsets,
    text: Bytes,
    text_offsets: Offsets,
    pieces: Bytes,
    piece_offsets: Offsets,
    is_control: Any,
    frame: Any,
    flags: Any,
) -> None:
    """Set the flags of every document: its tokens at offsets[d]:offsets[d+1], its text at text_offsets[d]:[d+1].

    frame: the ids of bos (-1: none) and eos.
    """
    vocab_size = len(is_control)
    for document in range(len(flags)):
        start, stop = offsets[document], offsets[document + 1]
        head, tail = 0 if frame[0] < 0 else 1, 1
        is_framed = stop - start > head and tokens[stop - 1] == frame[1] and (head == 0 or tokens[start] == frame[0])
        if not is_framed:
            flags[document] |= UNFRAMED
            head, tail = 0, 0
        place, end = text_offsets[document], text_offsets[document + 1]
        same = True
        for number in range(start + head, stop - tail):
            token = np.int64(tokens[number])
            if token >= vocab_size:
                flags[document] |= OUTSIDE
                same = False
                break
            if is_control[token] and is_framed:
                flags[document] |= CONTROLLED
            if same:
                first, last = piece_offsets[token], piece_offsets[token + 1]
                if place + last - first > end:
                    same = False
                else:
                    for byte in range(first, last):
                        if pieces[byte] != text[place]:
                            same = False
                            break
                        place += 1
        if not same or place != end:
            flags[document] |= DIFFERENT


_check: ShardCheck | None = None  # this worker's


def begin_worker(directory: Path) -> None:
    """Load the tokenizer once a process."""
    global _check
    _check = ShardCheck(directory)


def check_shard(pair: Pair) -> Findings:
    """`ShardCheck.check` in a worker that `begin_worker` has prepared."""
    assert _check is not None
    return _check.check(pair)
