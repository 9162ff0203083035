"""What reading gives, whatever the form of the file: pieces of text, and notes of what went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

# Why a piece is no document: `Piece.reason`. Rows that can't be used have `bad_row:…`, pages `bad_page:…`.
EMPTY = "empty"
TOO_LONG = "too_long"
NOT_TEXT = "not_text"  # a file or member of no form that holds text


@dataclass(frozen=True, slots=True)
class Piece:
    """A document as read; with a `reason` it is to be counted under that name, and has no text."""

    text: str
    offset: int  # bytes into the decompressed file or member; of a columnar file, the row
    size: int  # bytes there; of a columnar file, the UTF-8 bytes of the text
    member: str | None = None  # of an archive: its path; of a web archive: the record's URL
    invalid_bytes: int = 0  # replaced by U+FFFD
    meta: str | None = None  # compact JSON of the other columns
    reason: str = ""


@dataclass(frozen=True)
class ReadOptions:
    """How the files of one source are read; picklable."""

    text_key: str = "text"  # column of JSON rows, tables and columnar files; of a headless table, its number from 1
    metadata: tuple[str, ...] | None = None  # columns kept beside the text; None: all
    separator: str = "none"  # of text files: see text.separator_pattern
    encoding: str = "auto"  # auto: byte order mark, declared charset, detection
    extractor: str = "resiliparse"  # of HTML: resiliparse, trafilatura, or none (the page's source)
    gutenberg: bool = False  # cut off Project Gutenberg's header and footer
    header: bool = True  # the first row of csv and tsv files names the columns
    max_chars: int = 20_000_000  # a longer document is read past; 0: no limit


@dataclass
class Notes:
    """What reading found besides documents, by file (and member): to be shown, not to stop at."""

    faults: list[tuple[str, str]] = field(default_factory=list)  # (file or file!member, fault)
    columns: dict[str, list[str]] = field(default_factory=dict)  # files of rows without the text key: their keys
    with_text: set[str] = field(default_factory=set)  # files in which some row had the text key


class ByteStream(Protocol):
    """Decompressed bytes in blocks of at most `opening.BLOCK`; `fault` is known once the iteration has ended."""

    name: str
    fault: str

    def __iter__(self) -> Iterator[bytes]: ...
