"""The fields of a table's rows: named by a header, by whoever reads it, or by their numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Literal

from gptcli.records.tables import TableRow, column_names, named

LOOKED_AT = 100  # rows behind the first that tell whether it is a header

_NAME_CHARS = 40
_NAME = re.compile(r"[^\W\d]\w*(?:[ _.\-/]\w+)*")


@dataclass(frozen=True)
class Shape:
    """How a table's rows get their names.

    `header`: True, the first row is one; False, it is none; "auto", see `is_header`. `columns`: the names, whatever the
    header has.
    """

    header: bool | Literal["auto"] = "auto"
    columns: tuple[str, ...] = ()

    @property
    def is_asked(self) -> bool:
        """Whether something is said that only a table has."""
        return self.header != "auto" or bool(self.columns)


def is_header(first: list[str], behind: list[list[str]], columns: tuple[str, ...] = ()) -> bool:
    """The rule of header = "auto".

    With `columns` the first row is a header if it holds just these. Without, if each of its fields reads as a name (at
    most 40 characters, a letter first; words of letters, digits and _ with one of blank _ . - / between them), no two
    are the same, and none stands again in its own column in the 100 rows behind it, as a label would.
    """
    if columns:
        return tuple(name.strip() for name in first) == columns
    names = [name.strip() for name in first]
    if len({name.casefold() for name in names}) < len(names):
        return False
    if not all(len(name) <= _NAME_CHARS and _NAME.fullmatch(name) for name in names):
        return False
    return not any(mine == other.strip() for row in behind for mine, other in zip(names, row, strict=False))


def shaped(rows: Iterable[TableRow], shape: Shape) -> Iterator[tuple[int, TableRow, dict[str, Any]]]:
    """The rows but the header, each with its number from 1 (the header is 1) and its fields by name.

    Without names they are called 0, 1, …; fields beyond the names stand as a list under "extra".
    """
    every = iter(rows)
    looked_at = list(islice(every, 1 + LOOKED_AT))
    whole = [row.fields for row in looked_at if not row.problem]
    first = whole[0] if looked_at and not looked_at[0].problem else []
    has_header = shape.header
    if has_header == "auto":
        has_header = bool(first) and is_header(first, whole[1:], shape.columns)
    names = column_names(list(shape.columns)) if shape.columns else column_names(first) if has_header else ()
    for number, row in enumerate(chain(looked_at, every), 1):
        if number == 1 and has_header:
            continue
        value = named(names, row.fields) if names else {str(k): text for k, text in enumerate(row.fields)}
        yield number, row, value
