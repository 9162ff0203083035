"""HTML pages: text against a reference, charsets, and input that is meant to hurt."""

from __future__ import annotations

import html
import json
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

from gptcli.errors import SpecError
from gptcli.records.pages import (
    MAX_PAGE,
    PAGE_TOO_LONG,
    TOO_DEEP,
    TOO_MANY_TAGS,
    decode,
    read_page,
)
from gptcli.records.pieces import EMPTY, TOO_LONG, ReadOptions

PAGE = """<!doctype html><html lang="de-AT"><head><title> Ein
 Titel </title><link rel="canonical" href="https://example.org/a"></head><body><nav><a href="/x">Menü</a></nav>
<article><h1>Kopf</h1><p>Der erste <b>Absatz</b> ist lang genug, um einer zu sein.</p><p>Der zweite &amp; letzte.</p>
<img src="x" alt="Bildtext"><form><input value="Feld"></form></article><script>var code = 1;</script></body></html>"""


def tokens(text: str) -> Counter[str]:
    words = re.findall(r"\w+", text.lower())
    return Counter(token for word in words for token in (word if re.search("[\u3000-\u9fff]", word) else [word]))


def token_f1(text: str, wanted: str) -> float:
    found, expected = tokens(text), tokens(wanted)
    return 2 * sum((found & expected).values()) / (found.total() + expected.total())


@pytest.mark.parametrize(
    ("extractor", "mean", "worst"),
    [("resiliparse", 0.92, 0.55), ("trafilatura", 0.95, 0.9)],
    ids=["resiliparse", "trafilatura"],
)
def test_the_text_is_the_article(data_dir: Path, extractor: str, mean: float, worst: float) -> None:
    if extractor == "trafilatura":
        pytest.importorskip("trafilatura")
    scores = {}
    for source in sorted((data_dir / "html-dev").glob("*/source.html")):
        text, _, reason = read_page(source.read_bytes(), ReadOptions(extractor=extractor))
        assert reason == ""
        expected = (source.parent / "expected.html").read_text(encoding="utf-8")
        scores[source.parent.name] = token_f1(text, html.unescape(re.sub(r"<[^>]*>", " ", expected)))
    assert len(scores) == 9
    assert sum(scores.values()) / len(scores) >= mean, scores
    assert min(scores.values()) >= worst, scores


def test_paragraphs_stay_and_what_is_no_text_goes() -> None:
    text, meta, reason = read_page(PAGE.encode(), ReadOptions())
    assert reason == ""
    assert text == "Kopf\n\nDer erste Absatz ist lang genug, um einer zu sein.\n\nDer zweite & letzte."
    assert json.loads(meta or "") == {"title": "Ein Titel", "lang": "de-AT", "canonical": "https://example.org/a"}


def test_metadata_is_what_is_asked_for() -> None:
    assert read_page(PAGE.encode(), ReadOptions(metadata=("lang",)))[1] == '{"lang":"de-AT"}'
    assert read_page(PAGE.encode(), ReadOptions(metadata=()))[1] is None


def test_a_page_without_main_content_gives_all_of_its_text() -> None:
    assert read_page(b"<nav>Only a menu</nav>", ReadOptions())[0] == "Only a menu"


def test_the_source_itself() -> None:
    assert read_page(PAGE.encode(), ReadOptions(extractor="none")) == (PAGE, None, "")


@pytest.mark.parametrize(
    ("data", "charset", "wanted"),
    [
        ("\ufeffgrün".encode("utf-16-le"), "", "grün"),
        ("\ufeffgrün".encode(), "latin-1", "grün"),
        ("grün".encode(), "iso-8859-1", "grün"),  # the bytes are UTF-8, whatever is said
        ("grün „x“".encode("cp1252"), "iso-8859-1", "grün „x“"),
        ("<meta charset='shift_jis'>日本語".encode("shift_jis"), "", "<meta charset='shift_jis'>日本語"),
        ("<meta charset='utf-8'>привет".encode("koi8-r"), "koi8-r", "<meta charset='utf-8'>привет"),
        ("日本語".encode("iso2022_jp"), "iso-2022-jp", "日本語"),
        ("<p>grün".encode("utf-16-le"), "", "<p>grün"),
        ("Съешь же ещё этих мягких французских булок. ".encode("cp1251") * 9, "", "Съешь же"),
        (b"plain", "no-such-charset", "plain"),
        (b"\xff\xfe\x00\xd8a\x00", "", "\ufffda"),
        (b"gr\xfcn", "utf-8", "gr\ufffdn"),
    ],
    ids=[
        "bom-16",
        "bom-8",
        "utf-8-wins",
        "latin-1",
        "meta",
        "http",
        "2022",
        "utf-16",
        "detected",
        "none",
        "bad",
        "bad8",
    ],
)
def test_charsets(data: bytes, charset: str, wanted: str) -> None:
    assert decode(data, "auto", charset, declared=True).startswith(wanted)


def test_the_encoding_asked_for_wins_over_what_the_page_says() -> None:
    assert decode("<meta charset=utf-8>ñ".encode("cp1252"), "cp1252", "utf-8", declared=True).endswith("ñ")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<div>" * 100_000, TOO_DEEP),
        (b"<ul>" * 200_000 + b"<li>x" * 200_000, TOO_DEEP),
        (b"<" * 10_000_000, TOO_MANY_TAGS),
        (b"<" * (MAX_PAGE + 1), PAGE_TOO_LONG),
        (b'<p x"y ' + b" ".join(b"a%d" % k for k in range(100_000)) + b">", TOO_MANY_TAGS),
        (b"<p/" + b"/".join(b"a%d='>'" % k for k in range(50_000)) + b">", TOO_MANY_TAGS),
        (b"\0" * 100_000, EMPTY),
        (b"", EMPTY),
        (b"<script>x</script>", EMPTY),
        (b"\xff\xfe\0\xd8\0" * 1000, ""),
        (b"<b>" * 50_000 + b"x", ""),
        (b'<a href="x"">y z</a>' * 10_000, ""),
    ],
    ids=["depth", "lists", "tags", "length", "attributes", "slashes", "nul", "none", "code", "16", "inline", "quotes"],
)
def test_hostile_pages_are_text_or_counted(data: bytes, reason: str) -> None:
    text, _, found = read_page(data, ReadOptions())
    assert found == reason
    assert bool(text) == (reason == "")
    text.encode()


def test_a_long_text_is_counted() -> None:
    assert read_page(PAGE.encode(), ReadOptions(max_chars=50))[2] == TOO_LONG


def test_an_extractor_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trafilatura", None)
    with pytest.raises(SpecError) as told:
        read_page(b"<p>x", ReadOptions(extractor="trafilatura"))
    assert "gptcli[trafilatura]" in told.value.hint
    with pytest.raises(SpecError):
        read_page(b"<p>x", ReadOptions(extractor="readability"))
