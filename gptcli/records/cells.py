"""Columns of an Arrow batch as Python values: texts with their problems, metadata as JSON can hold it."""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Sequence
from typing import Any

NO_TEXT = "bad_row:no_text"  # the text column is missing, or null here
NOT_STRING = "bad_row:text_not_string"

_ESCAPED = re.compile("[\udc80-\udcff]")  # a byte that was no UTF-8
_MOST_DEPTH = 64  # of nested metadata


def text_type(kind: Any) -> bool:
    """Whether a column of this Arrow type can hold text: strings, binary (where it is UTF-8), dictionaries of both."""
    import pyarrow.types as types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_null(kind)) or _is_string(kind) or _is_binary(kind)


def texts(column: Any) -> list[tuple[str, int, int, str]]:
    """(text, its bytes, invalid bytes replaced by U+FFFD, reason) for every row of a column of a `text_type`.

    Strings are not trusted to be UTF-8, which Parquet promises and nobody checks. A binary value that isn't UTF-8
    is no text: NOT_STRING. null: NO_TEXT.
    """
    values, is_string = _bytes(column)
    return [_text(value, is_string) for value in values]


def validate(column: Any) -> None:
    """Raise ArrowInvalid where a column of untrusted bytes would be read outside of its buffers. UTF-8 isn't looked at:
    `texts` does."""
    import pyarrow as pa
    import pyarrow.types as types

    column.validate()
    if types.is_string_view(column.type):
        column = column.cast(pa.binary_view())
    elif _is_string(column.type):
        column = column.cast(pa.large_binary() if types.is_large_string(column.type) else pa.binary())
    column.validate(full=True)


def _bytes(column: Any) -> tuple[list[bytes | None], bool]:
    import pyarrow as pa
    import pyarrow.types as types

    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    is_string = _is_string(column.type)
    if types.is_null(column.type):
        return [None] * len(column), True
    if types.is_string_view(column.type):
        column = column.cast(pa.binary_view())
    elif is_string:
        column = column.cast(pa.large_binary() if types.is_large_string(column.type) else pa.binary())
    return column.to_pylist(), is_string


def _text(value: bytes | None, is_string: bool) -> tuple[str, int, int, str]:
    if value is None:
        return "", 0, 0, NO_TEXT
    try:
        return value.decode(), len(value), 0, ""
    except UnicodeDecodeError:
        if not is_string:
            return "", len(value), 0, NOT_STRING
    invalid = len(_ESCAPED.findall(value.decode("utf-8", "surrogateescape")))
    return value.decode("utf-8", "replace"), len(value), invalid, ""


def metadata_type(kind: Any) -> bool:
    """Whether a column is kept as metadata: binary ones (pictures, sounds) are left out."""
    return not _is_binary(kind)


def metadata(names: Sequence[str], columns: Sequence[Any]) -> list[str | None]:
    """The rows of some columns as compact JSON objects in the order of `names`; None for all where there are none.

    Dates and times are ISO 8601, decimals and durations their digits as a string; NaN and infinities are null, and so
    are bytes inside lists or structs and a value that Python can't hold (year 20,000). A column that can't be read at
    all is null in every row.
    """
    if not names:
        return []
    rows = zip(*(_plain_column(column) for column in columns), strict=True)
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
    return [encode(dict(zip(names, row, strict=True))) for row in rows]


def _plain_column(column: Any) -> list[Any]:
    import pyarrow as pa
    import pyarrow.types as types

    kind = column.type
    try:
        if text_type(kind) and not _is_binary(kind):
            return [value if value is None else value.decode("utf-8", "replace") for value in _bytes(column)[0]]
        if types.is_timestamp(kind):
            return [value and value.replace(" ", "T", 1) for value in column.cast(pa.string()).to_pylist()]
        if types.is_temporal(kind) or types.is_decimal(kind):
            return list(column.cast(pa.string()).to_pylist())
        values = column.to_pylist()
        if types.is_integer(kind) or types.is_boolean(kind):
            return list(values)
        return [_plain(value) for value in values]
    except (pa.ArrowException, ValueError, OverflowError, TypeError, KeyError, AttributeError):
        return [None] * len(column)


def _plain(value: Any, depth: int = 0) -> Any:
    """A value as JSON can hold it."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth > _MOST_DEPTH or isinstance(value, bytes):
        return None
    if isinstance(value, dict):
        return {str(key): _plain(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, depth + 1) for inner in value]
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    return str(value)


def _is_string(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_binary(kind: Any) -> bool:
    import pyarrow.types as types

    checks = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)
    return any(check(kind) for check in checks)
