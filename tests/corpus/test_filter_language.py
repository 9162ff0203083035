from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gptcli.corpus.filters.language import LanguageFilter, sample
from gptcli.corpus.filters.verdict import Verdict
from gptcli.corpus.filters.view import View
from gptcli.errors import SpecError
from gptcli.spec import resolve

langid = pytest.importorskip("gptcli.corpus.filters.langid")
pytest.importorskip("py3langid")

ENGLISH = "The house stands at the end of a long road, and nobody has lived there since the winter before last."
GERMAN = "Das Haus steht am Ende einer langen Straße, und seit dem vorletzten Winter hat niemand darin gewohnt."


def paragraphs(path: Path, encoding: str, separator: str) -> list[str]:
    text = path.read_bytes().decode(encoding).replace("\r\n", "\n")
    body = re.search(r"\*\*\* ?START.*?\n(.*)\n.*\*\*\* ?END", text, re.DOTALL)
    return [part for part in re.split(separator, body[1] if body else text) if len(part) >= 100]


def test_keeps_the_languages_asked_for() -> None:
    german = LanguageFilter(keep="de")
    assert german.verdict(View(GERMAN)).keep
    assert german.verdict(View(ENGLISH)) == Verdict("language", "en")
    assert LanguageFilter(keep=["de", "en"]).verdict(View(ENGLISH)).keep
    assert LanguageFilter().verdict(View(ENGLISH)).keep, "without keep it measures only"


def test_an_uncertain_language_is_told_with_its_probability() -> None:
    measured = dict(LanguageFilter(keep="en").measures(View("hello")))
    found = measured["language"]
    assert isinstance(found, str)
    least = LanguageFilter(keep=found, min_probability=1.0)
    assert least.verdict(View("hello")).reason == "language_probability"
    assert LanguageFilter(keep=found, min_probability=0.0).verdict(View("hello")).keep


@pytest.mark.parametrize("text", ["", "\x00\x01\x02"])
def test_a_text_that_tells_nothing_has_no_language(text: str) -> None:
    assert list(LanguageFilter(keep="en").measures(View(text))) == [("language", "und")]
    assert LanguageFilter(keep=["en", "und"]).verdict(View(text)).keep


@pytest.mark.parametrize("code", ["EN", "english", "e", "d€"])
def test_what_is_no_code_is_refused(code: str) -> None:
    with pytest.raises(SpecError, match="ISO 639-1"):
        resolve(LanguageFilter, [("test", {"keep": code})])


def test_the_lanes_find_what_py3langid_finds(data_dir: Path) -> None:
    """The same label, and the same probability as far as float32 sums agree, on texts of every length and script."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    peer = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    model = langid.language_model()
    lines = (data_dir / "c4-demo" / "c4_demo.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"][:2400] for line in lines[:40]]
    texts += paragraphs(data_dir / "multilingual-dev" / "wagahaiwa_nekodearu.txt", "utf-8", r"\n")[:40]
    texts += [GERMAN[:length] for length in range(1, 60)] + [
        GERMAN.upper(),
        "Ćao, kako si danas?",
        "Здраво, како си данас?",
    ]
    for text in texts:
        code, probability = model.classify(text)
        wanted, likely = peer.classify(text)
        if code != langid.UNKNOWN:
            assert (code, probability) == (wanted, pytest.approx(likely, abs=1e-3)), text[:80]


@pytest.mark.parametrize(
    ("name", "encoding", "separator", "language", "share"),
    [
        ("22367-8.txt", "latin-1", r"\n\s*\n", "de", 0.98),
        ("wagahaiwa_nekodearu.txt", "utf-8", r"\n", "ja", 0.99),
    ],
)
def test_books_by_paragraph(
    data_dir: Path, name: str, encoding: str, separator: str, language: str, share: float
) -> None:
    parts = paragraphs(data_dir / "multilingual-dev" / name, encoding, separator)[:150]
    kept = sum(LanguageFilter(keep=language).verdict(View(part)).keep for part in parts)
    assert kept >= share * len(parts)


def test_web_pages_in_english_and_danish_posts(data_dir: Path) -> None:
    from pyarrow import parquet

    pages = [json.loads(line)["text"] for line in (data_dir / "c4-demo" / "c4_demo.jsonl").open(encoding="utf-8")]
    english = LanguageFilter(keep="en")
    assert sum(english.verdict(View(page)).keep for page in pages) >= 0.97 * len(pages)
    table = parquet.read_table(data_dir / "parquet-angry-tweets" / "test-00000-of-00001.parquet")
    posts = [post for post in table["text"].to_pylist() if len(post) >= 100]
    danish = LanguageFilter(keep="da", min_probability=0)
    assert sum(danish.verdict(View(post)).keep for post in posts) >= 0.95 * len(posts)


def test_a_long_text_is_read_at_three_places() -> None:
    text = "a" * 5000 + "b" * 5000 + "c" * 5001
    assert sample(text) == "a" * 800 + "\n" + "b" * 800 + "\n" + "c" * 800
    assert sample("d" * 2400) == "d" * 2400
