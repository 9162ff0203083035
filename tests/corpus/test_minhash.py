"""Shingles are those of the folded words, and signatures agree as often as Jaccard says."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from gptcli.corpus.dedup import minhash
from gptcli.corpus.dedup.minhash import EMPTY, band_hashes, chance_of_sharing
from gptcli.corpus.dedup.shingles import shingle_hashes
from gptcli.corpus.dedup.verify import jaccard, similarities
from gptcli.errors import SpecError
from gptcli.records.ngrams import Hashes, word_hashes

PANGRAM = "Sphinx of black quartz, judge my vow: 12 naïve façades cost £30!"
GOLDEN = [8738211461052879190, 2556478989726184164, 12354882978147475090]  # its first shingle, its first two bands


def slow_words(text: str) -> list[str]:
    """Folded words by the rule as it is written, a character at a time; for scripts with spaces."""
    out = []
    for char in unicodedata.normalize("NFD", text.lower()):
        kind = unicodedata.category(char)
        if char.isspace():
            out.append(" ")
        elif kind == "Nd":
            out.append("0")
        elif kind not in ("Mn", "Me") and kind[0] not in "PSC":
            out.append(char)
    return "".join(out).split()


def slow_shingles(text: str) -> set[tuple[str, ...]]:
    words = slow_words(text)
    if len(words) < 5:
        return {tuple(words)} if words else set()
    return {tuple(words[place : place + 5]) for place in range(len(words) - 4)}


def test_as_many_shingles_as_a_slow_count_finds(data_dir: Path) -> None:
    rows = (data_dir / "c4-demo" / "c4_demo.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(row)["text"] for row in rows[:150]]
    for name in ("19942-8.txt", "22367-8.txt"):
        book = (data_dir / "multilingual-dev" / name).read_text(encoding="latin-1")
        texts += [book[begin : begin + 3000] for begin in range(0, 60_000, 3000)]
    for text in texts:
        assert len(word_hashes(text)) == len(slow_words(text))
        assert len(np.unique(word_hashes(text))) == len(set(slow_words(text)))
        assert len(shingle_hashes(text)) == len(slow_shingles(text))
        assert shingle_hashes("", word_hashes(text)).tolist() == shingle_hashes(text).tolist()
    for left, right in itertools.pairwise(texts):
        one, other = slow_shingles(left), slow_shingles(right)
        assert jaccard(shingle_hashes(left), shingle_hashes(right)) == len(one & other) / len(one | other)


def test_the_same_words_in_another_dress_have_the_same_shingles() -> None:
    dressed = "SPHINX — of\u00a0black\n\nquartz judge, my (vow) 34 naive facades cost 99"
    assert shingle_hashes(PANGRAM).tolist() == shingle_hashes(dressed).tolist()
    assert len(shingle_hashes(PANGRAM)) == 8
    assert (np.diff(shingle_hashes(PANGRAM).astype(object)) > 0).all()


def test_short_and_empty_texts() -> None:
    assert len(shingle_hashes("")) == len(shingle_hashes(" \n… -- !")) == 0
    assert len(shingle_hashes("one two three four")) == len(shingle_hashes("one two three four five")) == 1
    assert shingle_hashes("one two three").tolist() != shingle_hashes("one two three four").tolist()
    assert shingle_hashes("one two three").tolist() != shingle_hashes("three two one").tolist()


def test_scripts_without_spaces_have_a_word_a_character() -> None:
    japanese = "吾輩は猫である。名前はまだ無い。"
    assert len(shingle_hashes(japanese)) == 10
    assert jaccard(shingle_hashes(japanese), shingle_hashes(japanese + "どこ")) == 10 / 12
    assert len(shingle_hashes("I like 寿司 very much")) == 2


def test_hashes_are_those_of_any_machine_and_process() -> None:
    pytest.importorskip("rensa")
    code = (
        "from gptcli.corpus.dedup.shingles import *; from gptcli.corpus.dedup.minhash import *\n"
        f"s = shingle_hashes({PANGRAM!r}); print(s[0], *band_hashes([s])[0, :2])"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    shingles = shingle_hashes(PANGRAM)
    here = [shingles[0], *band_hashes([shingles])[0, :2]]
    assert [int(word) for word in other] == [int(value) for value in here] == GOLDEN


def planted(draw: np.random.Generator, union: int, shared: int) -> tuple[Hashes, Hashes]:
    """Two sets of hashes with `shared` of `union` in common."""
    hashes = draw.integers(0, 2**64, union, dtype=np.uint64)
    cut = shared + (union - shared) // 2
    return np.sort(hashes[:cut]), np.sort(np.concatenate([hashes[:shared], hashes[cut:]]))


@pytest.mark.parametrize("union", [10, 60, 400])
@pytest.mark.parametrize("similarity", [0.5, 0.8, 0.9])
def test_bands_are_shared_as_often_as_theory_says(union: int, similarity: float) -> None:
    pytest.importorskip("rensa")
    draw, trials = np.random.default_rng(17), 1500
    pairs = [planted(draw, union, round(union * similarity)) for _ in range(trials)]
    left, right = (band_hashes([pair[side] for pair in pairs]) for side in (0, 1))
    single = [band_hashes([pair[side] for pair in pairs], bands=112, rows=1) for side in (0, 1)]
    agreeing = (single[0] == single[1]).mean()
    assert abs(agreeing - similarity) < 4 * np.sqrt(similarity * (1 - similarity) / trials / 112)
    chance = chance_of_sharing(similarity)
    # rensa draws without replacement from small sets, so bands depend on each other a little
    assert abs((left == right).any(axis=1).mean() - chance) < 0.015 + 4 * np.sqrt(chance * (1 - chance) / trials)


def test_chance_of_sharing_a_band() -> None:
    assert chance_of_sharing(0.85) > 0.98
    assert chance_of_sharing(0.5, bands=20, rows=5) == pytest.approx(1 - (1 - 2**-5) ** 20)


def test_bands_depend_on_seed_and_shape_and_not_on_company() -> None:
    pytest.importorskip("rensa")
    draw = np.random.default_rng(5)
    sets = [np.unique(draw.integers(0, 2**64, size, dtype=np.uint64)) for size in (1, 50, 3000, 40_000)]
    together = band_hashes(sets)
    assert together.shape == (4, 14) and together.dtype == np.uint64
    assert (together == np.concatenate([band_hashes([one]) for one in sets])).all()
    assert not (together == band_hashes(sets, seed=2)).any()
    assert band_hashes(sets, bands=5, rows=3).shape == (4, 5)
    assert band_hashes([]).shape == (0, 14)


def test_a_document_without_shingles_has_empty_bands() -> None:
    pytest.importorskip("rensa")
    found = band_hashes([shingle_hashes(""), shingle_hashes(PANGRAM)])
    assert (found[0] == EMPTY).all() and (found[1] != EMPTY).all()


def test_similarities_with_several_sets() -> None:
    def of(*values: int) -> Hashes:
        return np.array(values, dtype=np.uint64)

    assert similarities(of(1, 2, 3, 4), [of(1, 2), of(9), of(1, 2, 3, 4), of(4, 2**63)]).tolist() == [0.5, 0, 1, 0.2]
    assert similarities(of(1), []).tolist() == []
    assert jaccard(of(), of(1)) == jaccard(of(1), of()) == jaccard(of(), of()) == 0


def test_without_rensa_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rensa", None)
    minhash._sketch.cache_clear()
    with pytest.raises(SpecError, match="near-duplicates need the package rensa") as caught:
        band_hashes([shingle_hashes(PANGRAM)])
    minhash._sketch.cache_clear()
    assert "pip install" in str(caught.value.hint)


def test_a_rensa_with_other_signatures_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    rensa = pytest.importorskip("rensa")

    class Other:
        ALGORITHM_VERSION = 3

    monkeypatch.setattr(rensa, "RMinHash", Other)
    minhash._sketch.cache_clear()
    with pytest.raises(SpecError, match="signatures of version 3, not 2"):
        band_hashes([shingle_hashes(PANGRAM)])
    minhash._sketch.cache_clear()
