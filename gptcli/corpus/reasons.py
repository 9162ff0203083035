"""What the reasons mean for which documents are left out, in words and with their thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gptcli.corpus.filters import AnyFilter, Filter
from gptcli.corpus.limits import limits, shown_limits

_MEANINGS = {
    "empty": "nothing but white space is in it",
    "too_long": "more characters than max_chars",
    "too_short": "fewer characters than min_chars",
    "not_text": "a file or member of no form that holds text",
    "contaminated": "it holds an evaluation item",
    "duplicate": "its text equals that of a document that is kept",
    "near_duplicate": "it is nearly that of a longer document that is kept; the value is their Jaccard similarity",
    "repeated_paragraphs": "all its paragraphs stand in earlier documents",
    "down_sampled": "its source has a weight under 1",
    "truncated": "its file ends before it does",
    "corrupt": "its file is damaged here",
}
_KINDS = {
    "bad_row": "a row that can't be used",
    "bad_page": "a page without usable text",
    "warc": "a record of a web archive that is no page",
}


def about(reason: str) -> str:
    """One line on a reason; for one that is not known here, its own words."""
    if reason in _MEANINGS:
        return _MEANINGS[reason]
    kind, _, rest = reason.partition(":")
    if kind == "filter":
        name, _, rule = rest.partition(":")
        return f"the filter {name}: {_words(rule)}"
    return f"{_KINDS[kind]}: {_words(rest)}" if kind in _KINDS and rest else _words(reason)


def _words(rule: str) -> str:
    return rule.replace("_", " ").replace(":", ": ")


class Thresholds:
    """The thresholds of a resolved spec, by the reason that they decide."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self._filters = filters_of(spec)
        steps = {"too_long": "max_chars", "too_short": "min_chars"}
        self._known = {reason: shown_limits({key: spec[key]}) for reason, key in steps.items() if key in spec}
        if "threshold" in (spec.get("near") or {}):
            self._known["near_duplicate"] = f"near.threshold = {spec['near']['threshold']}"

    def of(self, reason: str) -> str:
        """As a recipe has them, or "" where no number decides."""
        kind, _, rest = reason.partition(":")
        if kind != "filter":
            return self._known.get(reason, "")
        name, _, rule = rest.partition(":")
        told = [shown_limits(limits(one, rule)) for one in self._filters if one.name == name]
        return " or ".join(dict.fromkeys(filter(None, told)))


def filters_of(spec: Mapping[str, Any]) -> list[Filter]:
    """A resolved spec's filters; none where a newer or older gptcli wrote options that this one doesn't know."""
    try:
        quality = [spec["quality"]] if spec.get("quality") else []
        found: list[Filter] = TypeAdapter(list[AnyFilter]).validate_python([*spec.get("filters", []), *quality])
    except ValidationError:
        return []
    return found
