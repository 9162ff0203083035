"""Reading the values of a config.json that every family has."""

from __future__ import annotations

from typing import Any


def table(raw: dict[str, Any], key: str) -> dict[str, Any]:
    """The object under a key, empty where there is none. Raises TypeError for anything else."""
    value = raw.get(key) or {}
    if not isinstance(value, dict):
        raise TypeError(f"{key} is {value!r}, not an object")
    return value


def token_ids(raw: dict[str, Any], key: str) -> list[int]:
    """The token ids under a key: none, one or several. Raises TypeError for what is no id."""
    value = raw.get(key)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for each in ids:
        if not isinstance(each, int) or isinstance(each, bool):
            raise TypeError(f"{key} is {value!r}, not a token id")
    return ids


def one_or_more(raw: dict[str, Any], key: str) -> int | tuple[int, ...] | None:
    """The token ids under a key in the form they have there: a list stays several. Raises TypeError."""
    ids = token_ids(raw, key)
    return tuple(ids) if isinstance(raw.get(key), list) else next(iter(ids), None)


def as_ids(value: int | tuple[int, ...] | None) -> tuple[int, ...]:
    """None, one id or several as several."""
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)
