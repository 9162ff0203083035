"""The rule sets against datatrove's own, in an environment of its own: $GPTCLI_PEERS/datatrove, or .bench/datatrove."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from gptcli.corpus.filters.c4 import C4Filter
from gptcli.corpus.filters.fineweb import FineWebFilter
from gptcli.corpus.filters.gopher_quality import GopherQualityFilter
from gptcli.corpus.filters.gopher_repetition import GopherRepetitionFilter
from gptcli.corpus.filters.view import View

HOUSE = Path(__file__).parents[2]
PEER = Path(os.environ.get("GPTCLI_PEERS", HOUSE / ".bench")) / "datatrove" / "bin" / "python"
Judged = list[tuple[str, dict[str, Any]]]
ITS_WORDS = {  # datatrove's word for each of our rules
    "curly_bracket": "curly_bracket",
    "lorem_ipsum": "lorem_ipsum",
    "too_few_sentences": "too_few_sentences",
    "too_few_words": "gopher_short_doc",
    "too_many_words": "gopher_long_doc",
    "words_too_short": "gopher_below_avg_threshold",
    "words_too_long": "gopher_above_avg_threshold",
    "too_many_hashes": "gopher_too_many_hashes",
    "too_many_ellipses": "gopher_too_many_ellipsis",
    "too_many_bullet_lines": "gopher_too_many_bullets",
    "too_many_ellipsis_lines": "gopher_too_many_end_ellipsis",
    "too_few_words_with_letters": "gopher_below_alpha_threshold",
    "too_few_stop_words": "gopher_enough_stop_words",
    "duplicate_paragraphs": "dup_para_frac",
    "duplicate_paragraph_chars": "dup_para_char_frac",
    "duplicate_lines": "dup_line_frac",
    **{f"top_{size}_gram": f"top_{size}_gram" for size in (2, 3, 4)},
    **{f"duplicate_{size}_grams": f"duplicated_{size}_n_grams" for size in range(5, 11)},
    "too_few_punctuated_lines": "line_punct_ratio",
    "too_many_short_lines": "short_line_ratio",
    "too_many_newlines": "list_ratio",
}


def documents(data: Path) -> list[str]:
    """About 500 different real documents, good and bad, of all the kinds there are."""
    web = [json.loads(line)["text"] for line in (data / "c4-demo" / "c4_demo.jsonl").open(encoding="utf-8")]
    sums = [json.loads(line) for line in (data / "gsm8k-train" / "train.jsonl").open(encoding="utf-8")]
    books = [text for path in sorted((data / "gutenberg-dev").glob("*.txt")) for text in grouped(path)]
    articles = list(grouped(data / "wikitext2-valid" / "valid.txt", r"\n"))
    pages = [path.read_text(encoding="utf-8", errors="replace") for path in sorted(data.glob("html-dev/*/source.html"))]
    bare = [re.sub(r"\s*\n\s*", "\n", re.sub(r"<[^>]+>", " ", page)) for page in pages]
    chosen = [*web[:150], *(f"{row['question']}\n{row['answer']}" for row in sums[::75])]
    chosen += [*books[::11], *articles[::5], *(text[:8000] for text in [*pages, *bare])]
    return list(dict.fromkeys(text for text in chosen if text.strip()))


def grouped(path: Path, between: str = r"(?:\r?\n){2,}") -> Iterator[str]:
    """Neighbouring paragraphs together, up to changing lengths."""
    sizes = cycle([400, 1200, 3000])
    some: list[str] = []
    size = next(sizes)
    for paragraph in re.split(between, path.read_text(encoding="utf-8-sig")):
        some.append(paragraph.replace("\r\n", "\n"))
        if sum(map(len, some)) > size:
            yield "\n\n".join(some)
            some, size = [], next(sizes)


@pytest.fixture
def judged(data_dir: Path) -> Judged:
    if not PEER.is_file():
        pytest.skip(f"no datatrove at {PEER}")
    return judged_by_peer(data_dir)


@lru_cache(1)
def judged_by_peer(data: Path) -> Judged:
    """Each text, and what `tests/bench/filters_peer.py` says of it."""
    texts = documents(data)
    given = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    command = [str(PEER), str(HOUSE / "tests" / "bench" / "filters_peer.py")]
    done = subprocess.run(command, input=given, capture_output=True, text=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return list(zip(texts, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize(
    "one", [GopherQualityFilter(), GopherRepetitionFilter(), FineWebFilter()], ids=lambda one: one.name
)
def test_the_same_documents_are_dropped_for_the_same_rules(
    one: GopherQualityFilter | GopherRepetitionFilter | FineWebFilter, judged: Judged
) -> None:
    its_words = {
        **ITS_WORDS,
        "duplicate_line_chars": "char_dup_ratio" if one.name == "fineweb" else "dup_line_char_frac",
    }
    ours = [its_words.get(one.verdict(View(text, peer["words"])).reason, "") for text, peer in judged]
    its = [peer["verdicts"][one.name] for _, peer in judged]
    agreed(ours, its)


def test_c4_drops_the_same_documents_and_leaves_the_same_text(judged: Judged) -> None:
    one, ours = C4Filter(), []
    for text, peer in judged:
        left, _ = one.rewrite(View(text))
        if peer["verdicts"]["c4"] not in ("curly_bracket", "lorem_ipsum"):  # datatrove stops rewriting there
            assert left == peer["text"]
        view = View(left, sentences=peer["sentences"] if left else [])
        ours.append(ITS_WORDS.get(one.verdict(view).reason, ""))
    agreed(ours, [peer["verdicts"]["c4"] for _, peer in judged])


def agreed(ours: list[str], its: list[str]) -> None:
    """At least 99.5 % kept or dropped alike, some of both; and where both drop, for the same rule."""
    assert len(ours) >= 400
    assert 0 < its.count("") < len(its)
    alike = sum((not one) == (not other) for one, other in zip(ours, its, strict=True))
    differing = [(one, other) for one, other in zip(ours, its, strict=True) if one != other]
    assert alike >= 0.995 * len(its), differing
    assert len(differing) <= 0.005 * len(its), differing


@pytest.mark.parametrize(
    "one", [GopherQualityFilter(), GopherRepetitionFilter(), FineWebFilter()], ids=lambda one: one.name
)
def test_our_own_words_decide_nearly_alike(
    one: GopherQualityFilter | GopherRepetitionFilter | FineWebFilter, judged: Judged
) -> None:
    alike = sum(one.verdict(View(text)).keep == (not peer["verdicts"][one.name]) for text, peer in judged)
    assert alike >= 0.95 * len(judged)
