"""Answers in words and numbers: what counts as the same, and what does not."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptcli.scoring.answers import (
    Number,
    exact_match,
    extracted,
    number_in,
    numbers_in,
    plain,
    squad,
    token_f1,
    untouched,
)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("  The Cat\n sat. ", "the cat sat"),
        ('"**Spam**"', "spam"),
        ("card_arrival", "card_arrival"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("ﬁne", "fine"),
        ("-5", "-5"),
        ("...", "..."),
        ("", ""),
        ("c++", "c++"),
        ("「正面」。", "「正面」"),
    ],
    ids=str,
)
def test_plain(text: str, wanted: str) -> None:
    assert plain(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The Beatles!", "beatles"),
        ("an apple a day", "apple day"),
        ("theatre", "theatre"),
        ("U.S.A.", "usa"),
        ("+", "+"),
        ("A", "a"),
        ("", ""),
    ],
    ids=str,
)
def test_squad(text: str, wanted: str) -> None:
    assert squad(text) == wanted


def test_exact_match_takes_the_best_of_several_answers() -> None:
    assert exact_match("The Eiffel tower.", ["Big Ben", "eiffel tower"], squad)
    assert not exact_match("The Eiffel tower.", ["Big Ben", "eiffel tower"], plain)
    assert not exact_match("+", ["-"], squad) and not exact_match("a", ["A"], untouched)


def test_token_f1_counts_repeated_words() -> None:
    # Shared: to, be (once); 2 of 4 words, 2 of 2.
    assert token_f1("to be to be", "to be") == pytest.approx(2 * 2 / 6)
    assert token_f1("The cat.", "a cat") == 1.0
    assert token_f1("dog", "cat") == 0.0
    assert token_f1("", "") == token_f1("the", "a") == 1.0
    assert token_f1("", "cat") == token_f1("cat", "the") == 0.0


def test_extracted() -> None:
    text = "so 7\n#### 72 and #### 73"
    assert extracted(text, re.compile(r"#### (\d+)")) == "72"
    assert extracted(text, re.compile(r"\d+")) == "7"
    assert extracted(text, re.compile(r"(x)?so|(\d)")) == "so"
    assert extracted("answer: B", re.compile(r"\((\w)\)|: (\w)")) == "B"
    assert extracted(text, re.compile("none")) is None


NUMBERS = {
    "1,234,567.89 people": "123456789/100",
    "-5": "-5",
    "−5": "-5",
    "+5": "5",
    "10-5": "10 5",
    "(5)-3": "5 3",
    "2024-11-22": "2024 11 22",
    "x = -5": "-5",
    "- 5 apples": "5",
    "-$5.50": "-11/2",
    "$-5": "-5",
    "$1,000.": "1000",
    "3/4": "3/4",
    "-1 3/4 cups": "-7/4",
    "11/22/2026": "11 22 2026",
    "5/0": "5 0",
    "<<48/2=24>>24 clips.\n#### 72": "24 24 24 72",
    "3,14": "3 14",
    "1,2345": "1 2345",
    "1e-3 and 2E2": "1/1000 200",
    "is .5 right?": "1/2",
    "It is 5.": "5",
    "none": "",
}


@pytest.mark.parametrize("text", NUMBERS, ids=repr)
def test_numbers_in(text: str) -> None:
    assert [number.value for number in numbers_in(text)] == [Fraction(each) for each in NUMBERS[text].split()]


def test_first_and_last_number() -> None:
    assert number_in("3 and 4 make 7.", "first") == Number(Fraction(3))
    assert number_in("3 and 4 make 7.") == Number(Fraction(7))
    assert number_in("no number") is None
    assert number_in("9" * 5000) is not None  # longer than Python reads as a whole number


def test_numbers_are_compared_exactly() -> None:
    tenth, thirds = number_in("0.1"), number_in("1/3")
    assert tenth is not None and thirds is not None
    assert tenth.equals(Number(Fraction(1, 10))) and not tenth.equals(Number(Fraction(0.1)))
    assert not thirds.equals(Number(Fraction("0.3333"))) and thirds.equals(
        Number(Fraction("0.3333")), Fraction("0.001")
    )
    seventy_two = number_in("72.00")
    assert seventy_two is not None and seventy_two.equals(Number(Fraction(72)))


def test_percent_is_itself_and_its_share() -> None:
    half = number_in("50 %")
    assert half is not None and half.percent
    assert half.equals(Number(Fraction(50))) and half.equals(Number(Fraction(1, 2)))
    assert Number(Fraction(1, 2)).equals(half)
    assert not half.equals(Number(Fraction(1, 2), percent=True)) and not half.equals(Number(Fraction(5)))


@given(st.integers(-(10**12), 10**12), st.integers(0, 6))
def test_every_decimal_is_read_back(whole: int, places: int) -> None:
    value = Fraction(whole, 10**places)
    sign, digits = "-" if whole < 0 else "", f"{abs(whole):0{places + 1}d}"
    head, tail = (digits[:-places], "." + digits[-places:]) if places else (digits, "")
    for shown in (f"{sign}{head}{tail}", f"{sign}{int(head):,}{tail}"):
        assert [number.value for number in numbers_in(f"It is {shown}, I think.")] == [value], shown


@given(st.text())
def test_any_text_is_normalised_once_and_for_all(text: str) -> None:
    for normal in (squad, untouched):
        assert normal(normal(text)) == normal(text)
    assert isinstance(plain(text), str) and 0.0 <= token_f1(text, text) <= 1.0
    numbers_in(text)
