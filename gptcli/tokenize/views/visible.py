"""Text from anywhere, made fit for a terminal: nothing in it moves the cursor, colours, hides or reorders the rest."""

from __future__ import annotations

import json
import unicodedata

from gptcli.console import Report

_MARKS = {" ": "·", "\n": "↵", "\t": "→", "\r": "␍"}
_CARRIER = "\u25cc"  # a circle under a combining mark that has no letter of its own


def visible(text: str) -> str:
    """`text` with marks for blanks, and every other character that prints nothing by its code (`\\x1b`, `\\u202e`)."""
    shown = "".join(_shown(character) for character in text)
    if shown and unicodedata.combining(shown[0]):
        shown = _CARRIER + shown
    return shown


def visible_bytes(data: bytes) -> str:
    """The same of bytes: those that make no character are shown as `<E2>`."""
    shown: list[str] = []
    while data:
        try:
            return "".join([*shown, visible(data.decode())])
        except UnicodeDecodeError as error:
            shown.append(visible(data[: error.start].decode()))
            shown += [f"<{byte:02X}>" for byte in data[error.start : error.end]]
            data = data[error.end :]
    return "".join(shown)


def printable(text: str) -> str:
    """Names and paths of others: characters that a terminal obeys are written as Python writes them."""
    return text if text.isprintable() else "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def print_ascii(report: Report) -> None:
    """A report as one JSON object in ASCII: even a program's output may end on a terminal."""
    print(json.dumps({"title": report.title, "path": report.path, **report.figures}), flush=True)


def _shown(character: str) -> str:
    return _MARKS.get(character) or (character if character.isprintable() else repr(character)[1:-1])
