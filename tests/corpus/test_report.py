"""report.html: it holds what the manifest tells, it is the same every time, and no document can make it do anything."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gptcli.corpus.filters import FILTERS, View
from gptcli.corpus.limits import limits, shown_limits
from gptcli.corpus.reasons import Thresholds, about
from gptcli.corpus.report import render_report, share
from gptcli.corpus.spec import CorpusSpec
from gptcli.page import safe

HOSTILE = (
    "<script>alert(1)</script>\"><img src=x onerror=alert(1)> ' & \u202eabc\u202c \0 \ufeff \x1b[31m </pre></style>"
)
SPEC = CorpusSpec.model_validate({"source": "a", "filters": [{"name": "length", "min_words": 7}]}).content()


def figures(read: int, kept: int, left_out: dict[str, int], **more: Any) -> dict[str, Any]:
    lengths = {"p5": 10, "p25": 100, "p50": 1_000, "p75": 2_000, "p95": 90_000} if kept else {}
    return {
        "documents_read": read,
        "documents": kept,
        "bytes": 5_000 * kept,
        "chars": 4_900 * kept,
        "left_out": left_out,
        "rewritten": {},
        "languages": {"en": read} if read else {},
        "length_chars": lengths,
        "invalid_bytes": 0,
        **more,
    }


def stats(source: str = "books/", **more: Any) -> dict[str, Any]:
    left_out = {"duplicate": 5, "filter:length:too_few_words": 12}
    first = figures(100, 83, left_out, source=source, license="MIT", weight=1.0)
    second = figures(3, 0, {"empty": 3}, source="b.txt", license=None, weight=0.5)
    splits = {split: {"documents": 20, "bytes": 9, "chars": 9, "shards": 1} for split in ("train", "val", "test")}
    whole = figures(103, 83, {**left_out, "empty": 3}, copies=2, splits=splits, faults=[], without_text=[])
    return {**whole, "sources": [first, second], **more}


def sample(**more: str) -> dict[str, str]:
    return {"id": "0" * 32, "path": "books/a.txt", "value": "3", "text": "Once upon a time.", **more}


class Checked(HTMLParser):
    """Every tag is closed in order, and none loads or runs anything."""

    VOID = ("meta", "wbr", "rect", "line")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on") and name not in ("src", "href", "style", "action"), (tag, name, value)
        assert tag not in ("script", "img", "link", "iframe", "object", "embed", "form", "base")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_figures_stand_in_it() -> None:
    page = render_report(stats(), {"kept": [sample()], "duplicate": [sample(value="1")]}, SPEC)
    text = Checked(page).text
    for told in ("Corpus", "103", "83", "81 %", "duplicate", "12 · 12 %", "min_words = 7", "licence MIT",
                 "licence unknown, weight 0.5", "Once upon a time.", "10 – 90,000", "measured 1"):  # fmt: skip
        assert told in text, told
    assert "<svg" in page and "prefers-color-scheme:dark" in page
    assert not re.search(r"https?://|@import|url\(", page)


def test_equal_arguments_give_equal_bytes() -> None:
    samples = {"kept": [sample()], "empty": [sample(text="")]}
    first = render_report(stats(), samples, SPEC)
    assert first == render_report(copy.deepcopy(stats()), copy.deepcopy(samples), copy.deepcopy(SPEC))
    assert not re.search(r"20\d\d-\d\d|\d\d:\d\d:\d\d", first)


def test_text_is_never_markup() -> None:
    reason = f"bad_row:{HOSTILE}"
    told = stats(
        HOSTILE,
        left_out={reason: 3, "duplicate": 17},
        languages={HOSTILE: 4},
        rewritten={HOSTILE: 1},
        faults=[{"path": HOSTILE, "fault": HOSTILE}],
        without_text=[{"path": HOSTILE, "columns": [HOSTILE]}],
    )
    told["sources"][0].update(license=HOSTILE, left_out={reason: 3}, languages={HOSTILE: 4})
    hostile = sample(id=HOSTILE, path=HOSTILE, value=HOSTILE, text=HOSTILE)
    page = render_report(told, {"kept": [hostile], reason: [hostile]}, {"license": HOSTILE})
    checked = Checked(page)
    assert checked.text.count("<script>alert(1)</script>") > 10, "shown as it is"
    assert not re.search("[\0\x1b\u202e\u202c\ufeff]", page) and "U+202E" in checked.text
    assert page.count("<style>") == page.count("</style>") == 1


@settings(max_examples=200)
@given(st.text())
def test_safe_text(text: str) -> None:
    found = safe(text)
    assert not re.search(r"""[\0-\x08\x0e-\x1f\u202a-\u202e\u2066-\u2069"']""", found)
    assert set(re.findall("<[^>]*>", found)) <= {"<s>", "</s>"}
    found.encode()  # no lone surrogate


def test_nothing_read_and_nothing_kept() -> None:
    empty = figures(0, 0, {}, source="a", license=None, weight=1.0)
    Checked(render_report({**stats(), **figures(0, 0, {}), "sources": [empty]}, {}, {}))


def test_many_sources_and_reasons() -> None:
    many = {f"bad_row:kind_{number:03d}": 1 for number in range(60)}
    sources = [figures(60, 0, many, source=f"s{number}", license=None, weight=1.0) for number in range(50)]
    text = Checked(render_report(stats(sources=sources, left_out=many), {}, SPEC)).text
    assert "20 more reasons" in text and "and 10 more sources" in text and "s49" in text


def test_shares_are_never_rounded_to_all_or_nothing() -> None:
    pairs = ((0, 5), (1, 10_000), (1, 30), (1, 3), (9_999, 10_000), (995, 1000), (5, 5), (0, 0))
    told = ["0.0 %", "< 0.1 %", "3.3 %", "33 %", "> 99.9 %", "99.5 %", "100 %", "–"]
    assert [share(*pair) for pair in pairs] == told


def test_every_threshold_is_named_by_the_rule_it_judges() -> None:
    """Whatever a filter measures, its thresholds are found by watching it; together they are all it has."""
    checked = 0
    for kind in FILTERS:
        wanted = {name for name, field in kind.model_fields.items() if "threshold" in (field.json_schema_extra or {})}
        try:
            one = kind()
        except ValidationError:  # it needs the user's files
            continue
        text = "It was the best of times, and it was the worst of times.\n" * 5
        found = {rule: limits(one, rule, value) for rule, value in one.measures(View(text))}
        assert set().union(*found.values()) <= wanted
        checked += bool(wanted)
        if kind.__name__ == "LengthFilter":
            assert found == {"too_few_words": {"min_words": 50}, "too_many_words": {"max_words": 100_000}}
    assert checked
    assert (
        shown_limits({"keep": ["en", "de"], "min_probability": 0.65}) == 'keep = ["en", "de"], min_probability = 0.65'
    )


@pytest.mark.parametrize(
    ("reason", "told", "limit"),
    [
        ("too_short", "fewer characters than min_chars", "min_chars = 1"),
        ("near_duplicate", "Jaccard", "near.threshold = 0.8"),
        ("filter:length:too_few_words", "the filter length: too few words", "min_words = 7"),
        ("filter:gone:rule", "the filter gone: rule", ""),
        ("bad_row:not_json", "a row that can't be used: not json", ""),
        ("something_new", "something new", ""),
    ],
)
def test_reasons_in_words(reason: str, told: str, limit: str) -> None:
    assert told in about(reason) and Thresholds(SPEC).of(reason) == limit


def test_a_spec_of_another_version_has_no_thresholds() -> None:
    assert Thresholds({"filters": [{"name": "length", "gone": 1}]}).of("filter:length:too_few_words") == ""
