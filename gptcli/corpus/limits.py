"""Which thresholds judge a rule, told by watching the filter judge: so the answer can't fall behind the filter."""

from __future__ import annotations

import contextlib
from typing import Any

from gptcli.corpus.filters import Filter, Value


class _Watched:
    """A filter that notes which of its thresholds are read."""

    def __init__(self, one: Filter) -> None:
        self._one, self.read = one, dict[str, Any]()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._one, name)
        field = type(self._one).model_fields.get(name)
        if field is not None and isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("threshold"):
            self.read[name] = found
        return found


def limits(one: Filter, rule: str, value: Value = 0.0) -> dict[str, Any]:
    """The thresholds, by key, that decide whether a document with this value passes a rule; none: the rule has none."""
    watched = _Watched(one)
    with contextlib.suppress(ValueError, TypeError):  # a value of another kind: what was read until then counts
        type(one).passes(watched, rule, value)  # type: ignore[arg-type]
    return watched.read


def shown_limits(found: dict[str, Any]) -> str:
    """As a recipe has them: min_words = 50."""
    return ", ".join(f"{name} = {_toml(value)}" for name, value in found.items())


def _toml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)
