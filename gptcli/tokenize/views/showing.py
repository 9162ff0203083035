"""`gptcli tokenize --show TEXT`: a text's pieces with their ids, coloured on a terminal, in columns elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from gptcli.artifacts.project import Project
from gptcli.console import Report, print_columns, print_rows
from gptcli.errors import SpecError
from gptcli.tokenize.views.compare import Named, open_named
from gptcli.tokenize.views.pieces import Pieces, spans
from gptcli.tokenize.views.visible import print_ascii, printable, visible_bytes

STDIN = "-"
MOST_BYTES = 1 << 20  # of a text to show

_COLOURS = ("black on bright_cyan", "black on bright_yellow", "black on bright_green", "black on bright_magenta")
_HEADER = ("at", "id", "text", "bytes", "piece")
_HEX_BYTES = 12  # of a piece, for a person


def show(project: Project, name: str | None, text: str, others: Sequence[str]) -> Report:
    """How the tokenizer of tokens/NAME, and `others` (named as the key `tokenizer` names one), cut a text.

    text: "-" reads standard input. Raises SpecError for a text that is no UTF-8 or longer than a megabyte,
    ArtifactError for a tokenizer that isn't there.
    """
    text = _given(text)
    named = open_named(project, name, others)
    shown = [_cut(one, text) for one in named]
    first, *rest = shown
    title = f"{first['tokenizer']}: {_count(first['tokens'], 'token')} of {_count(first['bytes'], 'byte')}"
    return Report(title, named[0].path, {**first, "others": rest})


def print_shown(report: Report, as_json: bool) -> None:
    """Print what `show` found."""
    if as_json:
        print_ascii(report)
        return
    for number, found in enumerate([report.figures, *report.figures["others"]]):
        if number:
            print()
        _print_one(found)
    sys.stdout.flush()


def _given(text: str) -> str:
    if text != STDIN:
        try:
            data = text.encode("utf-8", "surrogateescape")  # as the shell handed it over
        except UnicodeEncodeError:
            data = text.encode("utf-8", "surrogatepass")
    elif sys.stdin is None:
        raise SpecError("there is no standard input to read the text from", "gptcli tokenize --show TEXT")
    else:
        data = sys.stdin.buffer.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise SpecError(f"the text to show has more than {MOST_BYTES:,} bytes", "show a part of it: head -c 1000000")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise SpecError(
            f"the text to show is no UTF-8: byte 0x{data[error.start]:02X} at {error.start}",
            "text must be valid Unicode: iconv -t UTF-8 turns other encodings into it",
        ) from None


def _cut(named: Named, text: str) -> dict[str, Any]:
    """Everything told about one tokenizer's cut of a text, as --json prints it."""
    tokenizer = named.tokenizer
    ids = tokenizer.encode(text)
    decoded, places = spans(tokenizer, Pieces.of(tokenizer), ids)
    size = len(text.encode())
    pieces = []
    for number, token_id in enumerate(ids):
        start, end = int(places[number]), int(places[number + 1])
        data = decoded[start:end]
        pieces.append(
            {
                "id": token_id,
                "piece": tokenizer.piece(token_id),
                "bytes": data.hex(),
                "text": _text(data),
                "start": start,
                "end": end,
            }
        )
    return {
        "tokenizer": named.name,
        "vocab_size": tokenizer.vocab_size,
        "tokens": len(ids),
        "bytes": size,
        "chars": len(text),
        "bytes_per_token": round(size / len(ids), 4) if ids else None,
        "decodes_to_itself": decoded == text.encode(),
        "pieces": pieces,
    }


def _text(data: bytes) -> str | None:
    """What the bytes of a piece say by themselves; None for parts of a character."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _print_one(found: dict[str, Any]) -> None:
    print(f"{printable(found['tokenizer'])}, {found['vocab_size']:,} ids")
    size = "" if found["bytes_per_token"] is None else f", {found['bytes_per_token']:.2f} bytes a token"
    itself = "to itself" if found["decodes_to_itself"] else "to another text: offsets are of that one"
    print_rows(
        [
            ("text", f"{_count(found['chars'], 'character')}, {_count(found['bytes'], 'byte')}"),
            ("tokens", f"{found['tokens']:,}{size}"),
            ("decodes", itself),
        ]
    )
    if not found["pieces"]:
        return
    rows = [_row(piece) for piece in found["pieces"]]
    print()
    if _has_colours():
        _print_coloured(rows)
    else:
        print_columns(_HEADER, rows)


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _row(piece: dict[str, Any]) -> tuple[str, ...]:
    data = bytes.fromhex(piece["bytes"])
    told = data[:_HEX_BYTES].hex(" ") + (f" … {len(data)} bytes" if len(data) > _HEX_BYTES else "")
    return (str(piece["start"]), str(piece["id"]), visible_bytes(data), told, printable(piece["piece"]))


def _has_colours() -> bool:
    """Colours are all that parts one piece from the next in running text."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")


def _print_coloured(rows: Sequence[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, markup=False)
    running = Text()  # built piece by piece: nothing in it is read as markup
    for number, (_, _, shown, _, _) in enumerate(rows):
        running.append(shown, _COLOURS[number % len(_COLOURS)])
        if shown.endswith("↵"):
            running.append("\n")
    console.print(running, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for name in _HEADER:
        table.add_column(name, justify="right" if name in ("at", "id") else "left", overflow="fold")
    for number, (at, token_id, shown, data, piece) in enumerate(rows):
        colour = _COLOURS[number % len(_COLOURS)]
        table.add_row(at, token_id, Text(shown, colour), Text(data), Text(piece))
    console.print(table)
