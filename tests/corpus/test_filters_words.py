"""Words and sentences as the filters split them."""

from __future__ import annotations

import pytest

from gptcli.corpus.filters.sentences import SENTENCE_ENDS, count_sentences
from gptcli.corpus.filters.view import View
from gptcli.corpus.filters.words import LETTER, SUBSTANCE, split, table_of_text, table_of_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \n\t\u00a0", []),
        ("one two", ["one", "two"]),
        ("Don't you'll", ["Don", "'t", "you", "'ll"]),
        ("'tis l’été", ["'", "tis", "l", "’été"]),
        ("3.5, 1,234.5 and 3:30 or 1/2.", ["3.5", ",", "1,234.5", "and", "3:30", "or", "1/2", "."]),
        ("some_name _so_ e.g. U.S.", ["some_name", "_", "so", "_", "e.g", ".", "U.S", "."]),
        ("well-known ---- end...", ["well", "-", "known", "----", "end", "..."]),
        ("(what?!) ##", ["(", "what", "?", "!", ")", "#", "#"]),
        ("हिन्दी 東京です。", ["हिन्दी", "東京です", "。"]),
        ("\U0001f600\U0001f600 \U000e0001x", ["\U0001f600\U0001f600", "\U000e0001", "x"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert View(text).words == words
    assert len(View(text).table) == len(words)


def test_a_table_is_the_same_from_the_text_and_from_its_words() -> None:
    text = "Don't say «3.5»: naïve 東京 ... some_name! 12 \U0001f600 (x) \n" * 3000  # more than one block
    one, other = table_of_text(text), table_of_words(split(text))
    assert one.lengths.tolist() == other.lengths.tolist() == list(map(len, split(text)))
    assert one.hashes.tolist() == other.hashes.tolist()
    letters = [any(map(str.isalpha, word)) for word in split(text)]
    for table in (one, other):
        assert (table.flags & LETTER > 0).tolist() == letters
        assert table.count(LETTER) == sum(letters)
    assert len(set(one.hashes.tolist())) == len(set(split(text)))


def test_words_of_punctuation_have_no_substance() -> None:
    flags = table_of_words(["...", "!?", "—", "\x07", "_", "€", "1", "n't", "\u0301"]).flags & SUBSTANCE
    assert flags.astype(bool).tolist() == [False] * 5 + [True] * 4


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("\n \n", 0),
        ("no end", 1),
        ("One. Two! Three? Four", 4),
        ("One.\nTwo.", 2),
        ('He said "Yes." Then (it ended.) And so on.', 3),
        ("Mr. Smith and J. R. Doe, e.g. in the U.S. army.", 1),
        ("I left... and came. 3.5 miles.", 2),
        ("あれ。これ。", 2),
        ("क्या। हाँ।", 2),
    ],
)
def test_sentences(text: str, count: int) -> None:
    assert count_sentences(text) == count
    assert View(text, sentences=["a", "b", "c"]).sentences == 3


def test_sentence_ends_hold_other_scripts() -> None:
    assert {".", "!", "?", "。", "।", "؟", "！"} <= SENTENCE_ENDS
    assert SENTENCE_ENDS.isdisjoint(",;:\"'…")
