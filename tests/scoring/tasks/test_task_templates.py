"""{field} templates: what they give, and what is said where they can't."""

from __future__ import annotations

from typing import Any

import pytest

from gptcli.scoring.tasks.task import Unposable
from gptcli.scoring.tasks.templates import field, field_or_text, parts, render

ROW: dict[str, Any] = {
    "q": "Why?",
    "n": 3,
    "share": 0.5,
    "yes": True,
    "list": ["é", 1],
    "a.b": "own name",
    "a": {"b": "inner", "c": {"d": "deep"}},
    "choices": [{"text": "p", "label": "A"}, {"text": "q", "label": "B"}],
    "none": None,
    "markup": "<s>{q}</s>",
    "lone": "\ud800!",
    "two words": "ok",
    "0": "first",
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{q} {n} {share} {yes}", "Why? 3 0.5 true"),
        ("{list}", '["é", 1]'),
        ("{a.b} {a.c.d} {a.c}", 'own name deep {"d": "deep"}'),
        ("{choices.text} {choices.1.label} {list.0}", '["p", "q"] B é'),
        ("{{q}} {{{q}}} }}{{", "{q} {Why?} }{"),
        ("{markup}", "<s>{q}</s>"),
        ("{lone}", "\ufffd!"),
        ("{two words}{ 0 }", "okfirst"),
        ("no field", "no field"),
        ("", ""),
    ],
)
def test_rendering(template: str, expected: str) -> None:
    assert render(template, ROW) == expected


@pytest.mark.parametrize("template", ["{", "a}b", "{}", "{ }", "{q", "{a{q}}", "{q}}"])
def test_broken_templates(template: str) -> None:
    with pytest.raises(ValueError, match="a brace that is text is doubled"):
        parts(template)


@pytest.mark.parametrize("way", ["missing", "a.x", "q.x", "list.2", "choices.score", "a.c.d.e"])
def test_a_way_that_leads_nowhere(way: str) -> None:
    with pytest.raises(Unposable, match=f"no_field:{way}") as caught:
        field(ROW, way)
    assert f"there is no field {way}; it has q, n, share" in caught.value.detail and "and 1 more" in caught.value.detail


def test_nulls_and_what_json_has_not() -> None:
    with pytest.raises(Unposable, match="null_field:none"):
        render("{none}", ROW)
    with pytest.raises(Unposable, match="unwritable:x"):
        render("{x}", {"x": float("inf")})
    with pytest.raises(Unposable) as caught:
        field({}, "x")
    assert caught.value.detail == "there is no field x; it has none"


def test_a_field_or_a_text() -> None:
    assert field_or_text("a.c.d", ROW) == "deep" and field_or_text("is {n}", ROW) == "is 3"
