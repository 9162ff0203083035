"""stdout: the result and nothing else, a short table for a person or one JSON object for a program."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from typing import Any, TextIO


@dataclass(frozen=True)
class Report:
    """What a command has to say at its end: `figures` is what --json prints, `table` the rows a person reads."""

    title: str
    path: str
    figures: dict[str, Any]
    table: list[tuple[str, str]] = field(default_factory=list)


def print_report(report: Report, as_json: bool) -> None:
    if as_json:
        print_json({"title": report.title, "path": report.path, **report.figures})
        return
    print(report.title)
    print_rows(report.table)
    if report.path:
        print(f"  → {report.path}")
    sys.stdout.flush()


def print_json(value: Any) -> None:
    """One line of JSON; escaped where stdout can't hold every character."""
    is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    print(json.dumps(value, ensure_ascii=not is_unicode), flush=True)


def print_rows(rows: list[tuple[str, str]]) -> None:
    """Label and value, the values aligned."""
    width = max((len(label) for label, _ in rows), default=0)
    for label, value in rows:
        print(f"  {label:<{width}}  {value}")


def print_columns(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """A table in aligned columns, the header above a rule."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, tuple("─" * width for width in widths), *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_error(message: str, hint: str) -> None:
    """An error as every command shows it: what and where, then the command or change that mends it."""
    tell(f"error: {message}")
    if hint:
        tell(f"  hint: {hint}")


def tell(line: str) -> None:
    """A line on stderr; where nobody reads it any more, the work goes on without."""
    if sys.stderr is None:
        return
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:  # a pipe without a reader, a terminal that hung up, a full disk behind 2>file
        forsake(sys.stderr)


def forsake(stream: TextIO) -> None:
    """Let a stream whose reader has gone lead nowhere: what waits in its buffer would fail again at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def human_bytes(count: float) -> str:
    """12_345_678 as "12.3 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def human_count(count: float) -> str:
    """5_123_456 as "5.12M"."""
    for unit in ("", "k", "M", "G"):
        if count < 1000:
            return f"{count:.0f}" if not unit else f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g}T"


def human_seconds(seconds: float) -> str:
    """192.4 as "3:12", 7.26 as "7.3 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
