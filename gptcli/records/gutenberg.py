"""Project Gutenberg's header and footer, told by the lines that mark their ends."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain

from gptcli.records.text import Document

_HEADER_CHARS = 100_000  # the header is looked for in so much of a book
_TITLE_LINES = 3  # lines that a marker's title may run on over, to its closing stars

# "*** START OF THE/THIS PROJECT GUTENBERG EBOOK … ***" (since 2001), "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN
# ETEXTS*Ver.04.29.93*END*" and its kin (1993 to 2003). The stars and spaces vary.
_START = re.compile(
    r"^[ \t]*\*+[ \t]*(?:START OF (?:THE |THIS )?PROJECT GUTENBERG|END[ *]*THE SMALL PRINT).*$",
    re.IGNORECASE | re.MULTILINE,
)
_END = re.compile(
    r"^[ \t]*(?:\*+[ \t]*END OF (?:THE |THIS )?PROJECT GUTENBERG"
    r"|END OF (?:THE |THIS )?PROJECT GUTENBERG(?:['’]?S)?\b[^\n]*\bby\b"
    r"|END OF (?:THE |THIS )?PROJECT GUTENBERG(?:['’]?S)? E-?(?:BOOK|TEXT)\b"
    r"|END OF (?:THE |THIS )?PROJECT GUTENBERG['’]S\b).*$",
    re.IGNORECASE | re.MULTILINE,
)


def book_of(text: str) -> str:
    """A book without the header up to its last start marker and the footer from its end marker on.

    Where a marker is missing its end of the text stays; without any, the text is untouched.
    """
    begin, end = 0, len(text)
    for found in _START.finditer(text, 0, min(len(text), _HEADER_CHARS)):
        begin = _behind_title(text, found.end())
    if ending := _END.search(text, begin):
        end = ending.start()
    return text[begin:end].strip("\n") if (begin, end) != (0, len(text)) else text


def within_book(documents: Iterable[Document]) -> Iterator[Document]:
    """The same of a book that is cut into documents: those of its header and footer are left out or cut."""
    waiting: list[Document] = []
    held, coming = 0, iter(documents)
    for document in coming:
        waiting.append(document)
        held += len(document.text)
        if held >= _HEADER_CHARS:
            break
    for document in chain(_without_header(waiting), coming):
        ending = _END.search(document.text)
        if ending is None:
            yield document
            continue
        if text := document.text[: ending.start()].strip("\n"):
            yield replace(document, text=text)
        return


def _without_header(documents: list[Document]) -> Iterator[Document]:
    marks = [(place, found) for place, one in enumerate(documents) for found in _START.finditer(one.text)]
    if not marks:
        yield from documents
        return
    place, found = marks[-1]
    first = documents[place]
    if text := first.text[_behind_title(first.text, found.end()) :].strip("\n"):
        yield replace(first, text=text)
    yield from documents[place + 1 :]


def _behind_title(text: str, end: int) -> int:
    """Where a start marker ends, whose title may go on over the next lines to the stars that close it."""
    if text.rfind("*", max(0, end - 5), end) >= 0:
        return end
    for _ in range(_TITLE_LINES):
        following = text.find("\n", end + 1)
        if following < 0 or not text[end:following].strip():
            break
        if text[end:following].rstrip().endswith("***"):
            return following
        end = following
    return end
