"""Hashes of words and word n-grams: what counts as the same, where n-grams stand, the same in every process."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from gptcli.artifacts.ngrams import NgramIndex
from gptcli.records.ngrams import (
    folded,
    ngram_hashes,
    ngram_hashes_of,
    ngram_spans,
    starts_within,
    word_hashes,
    word_spans,
    words_of,
)

SAME = {
    "case": ("Natalia SOLD Clips", "natalia sold clips"),
    "punctuation": ("don't, (really)!", "dont really"),
    "curly": ("don’t — “really”", "don't - really"),
    "digits": ("48 clips in 2024", "73 clips in 1999"),
    "other digits": ("٤٨ clips", "48 clips"),
    "accents": ("Café naïve Ångström", "cafe naive angstrom"),
    "decomposed": ("Café", unicodedata.normalize("NFD", "café")),
    "white space": ("a\u00a0b\u2003c\r\n\td", " a b c d "),
    "final sigma": ("ΛΌΓΟΣ", "λόγος"),
    "breathings": ("Ἀθῆναι", "αθηναι"),
    "dotted capital": ("İstanbul", "istanbul"),
    "other symbols": ("Ça coûte 3 €; où?", "ca coute 3 ou"),
    "soft hyphen and joiners": ("co\u00adop\u200der\ufeffate", "cooperate"),
    "nul": ("a\0b c", "ab c"),
    "emoji": ("good 😀 day", "good day"),
    "beyond the basic plane": ("𐐀𐐁", "𐐨𐐩"),
    "lone surrogate": ("a\ud800b", "ab"),
}
DIFFERENT = {
    "words": ("one two", "one too"),
    "order": ("one two", "two one"),
    "join": ("one two", "onetwo"),
    "eighth letter": ("abcdefgh", "abcdefgi"),
    "ninth letter": ("abcdefghi", "abcdefghj"),
    "length": ("abcdefgh", "abcdefghi"),
    "long": ("x" * 100, "x" * 101),
    "syllables": ("한국", "한글"),
    "number of digits": ("48", "480"),
}


@pytest.mark.parametrize("name", SAME)
def test_texts_that_count_as_the_same(name: str) -> None:
    left, right = SAME[name]
    left_words, right_words = (data.split() for data in folded([left, right]))
    assert left_words == right_words != []
    assert word_hashes(left).tolist() == word_hashes(right).tolist() != []


@pytest.mark.parametrize("name", DIFFERENT)
def test_texts_that_differ(name: str) -> None:
    left, right = DIFFERENT[name]
    assert word_hashes(left).tolist() != word_hashes(right).tolist()


def test_characters_of_scripts_without_spaces_are_words() -> None:
    text = "吾輩は猫である。Name はまだ nai。"
    spans = word_spans(text)
    assert [text[begin:end] for begin, end in spans] == [*"吾輩は猫である", "Name", *"はまだ", "nai"]
    assert len(word_hashes(text)) == len(spans)
    assert folded([text, "", "C\0’est"]) == [folded([text])[0], b"", b"cest"]
    assert len(folded([text])[0].split()) == len(spans) and folded([]) == []


@pytest.mark.parametrize("text", ["", " ", "...", "\0", "\u0301", "one two three"])
def test_texts_of_too_few_words_have_no_ngrams(text: str) -> None:
    hashes, spans = ngram_spans(text, 4)
    assert hashes.shape == (0,) and spans.shape == (0, 2)
    assert ngram_hashes_of([text, text], 4).shape == (0,)


def test_hashes_are_of_the_words_alone(data_dir: Path) -> None:
    """Equal where words, folded one by one, are equal; real text in several scripts, over block borders."""
    lines = (data_dir / "c4-demo" / "c4_demo.jsonl").read_text(encoding="utf-8").splitlines()
    web = "\n".join(json.loads(line)["text"] for line in lines)
    for text in (web, (data_dir / "multilingual-dev" / "22367-8.txt").read_text(encoding="latin-1")):
        hashes, spans = word_hashes(text), word_spans(text)
        words = [text[begin:end] for begin, end in spans.tolist()]
        alone, begins = words_of(words)
        assert len(begins) == len(words) + 1 and alone.tolist() == hashes.tolist()
        folded = ["".join(c for c in unicodedata.normalize("NFD", word.casefold()) if c.isalpha()) for word in words]
        ascii_letters = [i for i, word in enumerate(words) if word.isascii() and word.isalpha()]
        by_word = {(folded[i], int(hashes[i])) for i in ascii_letters}
        assert len(by_word) == len({word for word, _ in by_word}) == len({told for _, told in by_word})


@pytest.mark.parametrize("text", ["猫が mouse、", "ab・c ", "かé\u0301\n", "x\u3000\U0001f600y "])
def test_long_texts_are_hashed_in_blocks(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, spans = word_hashes(text * 50), word_spans(text * 50)
    monkeypatch.setattr("gptcli.records.ngrams._BLOCK", 7)
    assert word_hashes(text * 50).tolist() == whole.tolist() != []
    assert word_spans(text * 50).tolist() == spans.tolist()


def test_ngrams_and_their_places() -> None:
    text = "“One, two” — three; four\tfive!"
    hashes, spans = ngram_spans(text, 3)
    assert [text[begin:end] for begin, end in spans] == ["One, two” — three", "two” — three; four", "three; four\tfive"]
    assert hashes.tolist() == [int(ngram_hashes(text[begin:end], 3)[0]) for begin, end in spans]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 12, 13, 16, 31])
def test_an_ngrams_hash_does_not_depend_on_its_surroundings(count: int) -> None:
    draw = random.Random(count)
    words = [draw.choice(["un", "deux", "trois", "quatre", "cinq"]) for _ in range(60)]
    hashes = ngram_hashes(" ".join(words), count).tolist()
    assert hashes == [int(ngram_hashes(" ".join(words[at : at + count]), count)[0]) for at in range(60 - count + 1)]
    runs = [tuple(words[at : at + count]) for at in range(60 - count + 1)]
    assert len(set(hashes)) == len(set(runs)) == len(set(zip(runs, hashes, strict=True)))


def test_many_texts_are_hashed_as_one_by_one(data_dir: Path) -> None:
    lines = (data_dir / "c4-demo" / "c4_demo.jsonl").read_text(encoding="utf-8").splitlines()
    texts = ["", "too short", *(json.loads(line)["text"] for line in lines), "a \0 b " * 10, "", "吾輩は猫である" * 3]
    alone = [ngram_hashes(text) for text in texts]
    assert ngram_hashes_of(texts).tolist() == np.concatenate(alone).tolist()
    _, begins = words_of(texts)
    assert np.diff(begins).tolist() == [len(word_hashes(text)) for text in texts]
    assert int(starts_within(begins, 13).sum()) == sum(map(len, alone))
    assert words_of([])[1].tolist() == [0] and not len(ngram_hashes_of([]))


def test_hashes_are_fixed() -> None:
    """They stand in files: a change of the definition is a change of format."""
    text = "Hello, WORLD 42! Don’t extraordinarilylong" + "g" * 80 + " 猫 𐐀 한국"
    program = (
        "import sys; from gptcli.records.ngrams import ngram_hashes as h;"
        "print(h(sys.argv[1], 1).tolist(), h(sys.argv[1], 5).tolist())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program, text],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUTF8": "1"},
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{ngram_hashes(text, 1).tolist()} {ngram_hashes(text, 5).tolist()}\n"}
    assert word_hashes("hello world").tolist() == FIXED


FIXED = [14233008934727228516, 1340967343691058749]


def test_an_index_of_nothing_contains_nothing() -> None:
    assert NgramIndex([]).contains(word_hashes("one two")).tolist() == [False, False]
