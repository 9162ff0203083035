from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptcli.engines.byte_level import BYTES, CHARACTERS, bytes_of
from gptcli.engines.streaming import EACH_BYTE, MAXIMAL_PART, ReplaceText, StripStart, TextStep, Utf8


def through(step: TextStep, parts: list[str]) -> str:
    return "".join(map(step.feed, parts)) + step.finish()


@given(
    parts=st.lists(st.text("ab", max_size=4), max_size=8),
    pattern=st.text("ab", min_size=1, max_size=4),
    content=st.sampled_from(["", "c", "ab", "bb"]),
)
def test_replacing_piecemeal_is_replacing(parts: list[str], pattern: str, content: str) -> None:
    assert through(ReplaceText(pattern, content), parts) == "".join(parts).replace(pattern, content)


@given(parts=st.lists(st.text(" a", max_size=3), max_size=6), count=st.integers(0, 3))
def test_stripping_the_start(parts: list[str], count: int) -> None:
    whole = "".join(parts)
    blanks = min(count, len(whole) - len(whole.lstrip(" ")))
    assert through(StripStart(" ", count), parts) == whole[blanks:]


@given(parts=st.lists(st.binary(max_size=3), max_size=8), errors=st.sampled_from([EACH_BYTE, MAXIMAL_PART]))
def test_bytes_piecemeal(parts: list[bytes], errors: str) -> None:
    stream = Utf8(errors)
    assert "".join(map(stream.feed, parts)) + stream.finish() == b"".join(parts).decode("utf-8", errors)


@pytest.mark.parametrize(
    ("data", "each", "parts"),
    [(b"\xf0\x9f\x98a", 3, 1), (b"\xed\xa0\x80", 3, 3), (b"\xc3", 1, 1), (b"\xff\xfe", 2, 2), (b"\xf0\x9f", 2, 1)],
    ids=["cut emoji", "surrogate", "lead", "never", "end"],
)
def test_how_broken_bytes_show(data: bytes, each: int, parts: int) -> None:
    assert data.decode("utf-8", EACH_BYTE).count("\ufffd") == each
    assert data.decode("utf-8", MAXIMAL_PART).count("\ufffd") == parts


def test_the_byte_alphabet() -> None:
    assert len(set(CHARACTERS)) == 256 == len(BYTES)
    assert CHARACTERS[0x20] == "Ġ" and CHARACTERS[0x0A] == "Ċ" and CHARACTERS[0x61] == "a" and CHARACTERS[0xAD] == "Ń"
    assert bytes_of("ĠÃ©") == " é".encode() and bytes_of("a b") == b"a b"
