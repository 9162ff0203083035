from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptcli.tokenize.encoding.interning import Interner


def numbered(interner: Interner, strings: list[bytes]) -> list[int]:
    data = np.frombuffer(b"".join(strings), np.uint8)
    ends = np.cumsum([0, *map(len, strings)], dtype=np.int64)
    return interner.codes(data, ends[:-1], ends[1:]).tolist()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.binary(max_size=20), max_size=30), max_size=4))
def test_numbers_follow_the_first_appearance(batches: list[list[bytes]]) -> None:
    interner, known = Interner(), dict[bytes, int]()
    for strings in batches:
        assert numbered(interner, strings) == [known.setdefault(string, len(known)) for string in strings]
    assert interner.strings().to_pylist() == list(known) and len(interner) == len(known)
    assert interner.nbytes == sum(map(len, known))


def test_the_table_grows_and_is_emptied() -> None:
    interner = Interner()
    many = [str(number).encode() * (1 + number % 5) for number in range(60_000)]
    assert numbered(interner, [*many, *many]) == [*range(60_000), *range(60_000)]
    assert interner.strings(59_998).to_pylist() == many[59_998:]
    interner.clear()
    assert len(interner) == 0 and numbered(interner, [b"x", b"", b"x"]) == [0, 1, 0]


@pytest.mark.parametrize("size", [1, 7, 8, 9, 15, 16, 17, 100_000])
def test_strings_that_differ_in_one_byte_are_two(size: int) -> None:
    interner = Interner()
    first, last = b"a" + b"x" * (size - 1), b"x" * (size - 1) + b"b"
    assert numbered(interner, [first, last, first, b"\0" * size, b"\0" * (size + 1), last]) == [0, 1, 0, 2, 3, 1]
