from __future__ import annotations

import math

import numpy as np
import pytest

from gptcli.scoring.documents import (
    CORRECT,
    NATS,
    OTHERS,
    TOKENS,
    per_source,
    source_names,
    text_figures,
    text_intervals,
    total,
    word_perplexity,
)

DRAW = np.random.default_rng(3)
TOKEN_COUNTS = DRAW.integers(5, 200, 60).astype(np.float64)
SUMS = np.stack([TOKEN_COUNTS * DRAW.normal(3, 0.4, 60), TOKEN_COUNTS, TOKEN_COUNTS // 3, TOKEN_COUNTS // 2])
SIZES = (4 * TOKEN_COUNTS).astype(np.int64)
WORDS = (TOKEN_COUNTS // 2 + 1).astype(np.int64)


def test_intervals_are_of_ratios_of_sums_over_documents() -> None:
    found = text_intervals(SUMS, SIZES, WORDS)
    figures = text_figures(total(SUMS), int(SIZES.sum()))
    figures["word_perplexity"] = word_perplexity(total(SUMS).nats, int(WORDS.sum()))
    for name in ("loss", "perplexity", "bits_per_byte", "accuracy", "top5_accuracy", "word_perplexity"):
        assert found[name][0] < figures[name] < found[name][1], name
    draw = np.random.default_rng(9)
    ratios = [SUMS[NATS, chosen].sum() / SUMS[TOKENS, chosen].sum() for chosen in draw.integers(0, 60, (4000, 60))]
    assert found["loss"] == pytest.approx(np.quantile(ratios, [0.025, 0.975]), rel=0.01)
    assert found["perplexity"] == pytest.approx([math.exp(end) for end in found["loss"]])
    assert text_intervals(SUMS, SIZES, WORDS) == found


@pytest.mark.parametrize("count", [0, 1])
def test_one_document_has_no_interval(count: int) -> None:
    assert text_intervals(SUMS[:, :count], SIZES[:count]) == {}


def test_sources_add_up_and_the_smallest_are_one_row() -> None:
    names = [f"s{number % 7}" for number in range(60)]
    rows = per_source(SUMS, SIZES, names, at_most=4)
    assert len(rows) == 4 and rows[-1]["source"] == OTHERS and rows[-1]["sources"] == 4
    assert sum(row["documents"] for row in rows) == 60
    assert sum(row["tokens"] for row in rows) == TOKEN_COUNTS.sum()
    assert sum(row["text_bytes"] for row in rows) == SIZES.sum()
    first = int(rows[0]["source"][1])
    mine = SUMS[:, first::7]
    assert rows[0]["loss"] == pytest.approx(mine[NATS].sum() / mine[TOKENS].sum())
    assert rows[0]["accuracy"] == mine[CORRECT].sum() / mine[TOKENS].sum()
    assert rows[0]["bits_per_byte"] == pytest.approx(mine[NATS].sum() / math.log(2) / SIZES[first::7].sum())
    assert [row["tokens"] for row in rows[:-1]] == sorted((row["tokens"] for row in rows[:-1]), reverse=True)
    assert len(per_source(SUMS, SIZES, names, at_most=7)) == 7


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["texts/json/a.py", "notes/1.txt", "texts/email/b.py"], ["texts", "notes", "texts"]),
        (["python:stdlib/json/a.py", "python:stdlib/abc.py"], ["python:stdlib/json", "python:stdlib/abc.py"]),
        (["a/b/c.txt"] * 3, ["a/b/c.txt"] * 3),
        ([], []),
    ],
    ids=["folders", "one folder", "one file", "none"],
)
def test_sources_are_told_apart_as_high_up_as_can_be(paths: list[str], names: list[str]) -> None:
    assert source_names(paths) == names


def test_word_perplexity() -> None:
    assert word_perplexity(20 * math.log(2), 20) == pytest.approx(2)
    assert math.isnan(word_perplexity(1.0, 0)) and word_perplexity(1e6, 1) == math.inf
