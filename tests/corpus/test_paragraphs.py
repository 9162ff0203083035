"""Repeated paragraphs: the first stays, the others go, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gptcli.corpus.dedup.paragraphs import paragraph_hashes, repeated, without
from gptcli.corpus.dedup.shingles import Hashes

LEGAL = "All rights reserved. No part of this page may be copied, sold or lent without the owner's written consent."
FIRST = "The lighthouse keeper climbed the stairs every evening and lit the lamp, whatever the weather did outside."
SECOND = "In the village they said that he had never once been late, and that nobody had ever thanked him for it."


def masks(texts: list[str]) -> list[np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    hashes = [paragraph_hashes(text) for text in texts]
    return np.split(repeated(lambda: hashes), np.cumsum([len(piece) for piece in hashes])[:-1])


def test_a_repeat_goes_and_the_first_stays() -> None:
    texts = [f"{FIRST}\n\n{LEGAL}\n", f"{SECOND}\n\n\n{LEGAL}\n", f"{LEGAL}\n\n{FIRST}"]
    found = masks(texts)
    assert [mask.tolist() for mask in found] == [[False, False], [False, True], [True, True]]
    assert [without(text, mask) for text, mask in zip(texts, found, strict=True)] == [texts[0], SECOND + "\n", ""]


def test_a_repeat_within_one_document_goes() -> None:
    text = f"Title\n\n{LEGAL}\n  \n{FIRST}\n\n{LEGAL}\n\nThe end"
    assert without(text, masks([text])[0]) == f"Title\n\n{LEGAL}\n  \n{FIRST}\n\nThe end"


def test_the_first_paragraph_goes_with_the_blank_lines_after_it() -> None:
    other = f"{LEGAL}\n\n\n  {FIRST}"
    assert without(other, masks([LEGAL, other])[1]) == f"  {FIRST}"


def test_case_accents_punctuation_and_digits_do_not_tell_paragraphs_apart() -> None:
    one = "Der Café-Besitzer öffnete am 3. Mai 1921 sein Haus, und die Straße war voll von Menschen aus aller Welt!"
    other = "der cafe besitzer"  # "Café-Besitzer" is one word
    same = one.upper().replace("STRASSE", "Straße").replace("É", "e").replace("1921", "1987").replace("!", " …")
    assert paragraph_hashes(one).tolist() == paragraph_hashes(same).tolist()
    assert paragraph_hashes(one).tolist() != paragraph_hashes(other + one[13:]).tolist()


@pytest.mark.parametrize("text", ["", "\n\n \n", "short", "-" * 200, f"{'=' * 90}\n\n{'*' * 90}"])
def test_short_paragraphs_and_rules_have_no_hash(text: str) -> None:
    assert paragraph_hashes(text).tolist() == []
    assert without(text, np.zeros(0, dtype=bool)) == text


def test_min_chars_is_obeyed() -> None:
    assert len(paragraph_hashes(f"short\n\n{FIRST}", min_chars=5)) == 2
    assert without(f"short\n\n{FIRST}", np.array([True, False]), min_chars=5) == FIRST


def test_a_mask_of_another_text_is_refused() -> None:
    with pytest.raises(ValueError, match="a mask of 2 for a text of 1 paragraphs"):
        without(FIRST, np.array([True, False]))


def test_small_budgets_and_other_pieces_give_the_same_mask() -> None:
    draw = np.random.default_rng(3)
    hashes = draw.integers(0, 2**64, 500, dtype=np.uint64)[draw.integers(0, 500, 2000)]
    whole = repeated(lambda: [hashes])
    seen: set[int] = set()
    assert whole.tolist() == [value in seen or seen.add(value) is not None for value in hashes.tolist()]
    calls = 0

    def read() -> Iterator[Hashes]:
        nonlocal calls
        calls += 1
        yield from np.array_split(hashes, 7)

    assert (repeated(read, budget_bytes=9000) == whole).all()
    assert calls == 10  # once to count, and nine passes of a ninth of the hashes each


def test_nothing_gives_an_empty_mask() -> None:
    assert repeated(list).tolist() == []


def test_a_book_read_twice_keeps_its_first_reading(data_dir: Path) -> None:
    book = (data_dir / "gutenberg-dev" / "11-0.txt").read_text(encoding="utf-8-sig")
    first, second = masks([book, book])
    assert second.all() and first.sum() < 0.02 * len(first)
    left = without(book, second)
    assert 0 < len(left) < 0.2 * len(book)  # headings and lines of dialogue
    assert len(paragraph_hashes(left)) == 0
