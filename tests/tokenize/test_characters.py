from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex
from tokenizers.normalizers import NFC
from tokenizers.pre_tokenizers import Digits, Split

from gptcli.tokenize.encoding.characters import (
    ALONE,
    BLANK,
    CASELESS,
    LOWER,
    MARK,
    NEWLINE,
    NUMBER,
    OTHER,
    UPPER,
    character_classes,
    classes_with_digits_alone,
    maybe_not_composed,
)

ASSIGNED = [*range(0x40000), *range(0xE0000, 0xF0000)]  # the planes that Unicode gives characters to


def text_of(points: list[int]) -> str:
    return "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)


def matching(pattern: str, text: str) -> set[int]:
    """Code points of `text`'s characters that the package's regular expression matches."""
    left = Split(Regex(pattern), "removed").pre_tokenize_str(text)
    return set(map(ord, text)) - set(map(ord, "".join(part for part, _ in left)))


@pytest.mark.parametrize(
    ("kinds", "pattern"),
    [
        ((BLANK, NEWLINE), r"\s+"),
        ((NEWLINE,), r"[\r\n]+"),
        ((NUMBER,), r"\p{N}+"),
        ((UPPER, LOWER, CASELESS), r"\p{L}+"),
        ((UPPER,), r"[\p{Lu}\p{Lt}]+"),
        ((LOWER,), r"\p{Ll}+"),
        ((MARK,), r"\p{M}+"),
        ((OTHER,), r"[^\s\p{L}\p{N}\p{M}]+"),
    ],
)
def test_classes_are_those_of_the_packages_regular_expressions(kinds: tuple[int, ...], pattern: str) -> None:
    text = text_of(ASSIGNED)
    ours = np.flatnonzero(np.isin(character_classes(), kinds))
    assert set(ours.tolist()) & set(map(ord, text)) == matching(pattern, text)


def test_no_character_stands_in_the_planes_not_asked_for() -> None:
    rest = text_of([*range(0x40000, 0xE0000), *range(0xF0000, 0x110000)])
    assert not matching(r"[\s\p{L}\p{N}\p{M}]+", rest)
    assert (character_classes()[0x40000:0xE0000] == OTHER).all()


def test_digits_alone_are_those_that_the_digits_step_sets_apart() -> None:
    classes = classes_with_digits_alone()
    numbers = np.flatnonzero((character_classes() == NUMBER) | (classes == ALONE)).tolist()
    near = sorted({point + step for point in numbers for step in (-1, 0, 1)} - set(range(0xD800, 0xE000)))
    split = Digits(individual_digits=True)
    for point in near:
        apart = len(split.pre_tokenize_str(f"a{chr(point)}a")) == 3
        assert apart == (classes[point] == ALONE), hex(point)


def documents(*texts: str) -> tuple[np.ndarray, np.ndarray]:
    parts = [text.encode() for text in texts]
    return np.frombuffer(b"".join(parts), np.uint8), np.cumsum([0, *map(len, parts)])


def test_documents_that_form_c_may_change_are_found() -> None:
    texts = ["", "plain", "caf\u00e9", "cafe\u0301", "\u1100\u1161", "\u2126", "日本語", "\u0345\u0301", "\uac00\n"]
    assert maybe_not_composed(*documents(*texts)).tolist() == [
        False, False, False, True, True, True, False, True, False
    ]  # fmt: skip


COMPOSING = (
    "aeoAE\u0300\u0301\u0308\u0323\u0345\u00e9\u1100\u1161\u11a8\uac00\u0958\u0930\u093c\u0b47\u0b3e\ufb1d\u2126"
)


@settings(max_examples=1000, deadline=None)
@given(st.one_of(st.text(COMPOSING, max_size=8), st.text(max_size=8)))
def test_other_documents_are_in_form_c(text: str) -> None:
    if not maybe_not_composed(*documents(text))[0]:
        assert NFC().normalize_str(text) == text
