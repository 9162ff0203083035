from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gptcli.tokenize.encoding.cuts import CutTable

LETTERS = "abcx \u00e9t\u65e5\u672c\u8a9e\u2581\ue000\U0001f600"
PIECES = [b"ab", b"bc", b" a", "\u65e5\u672c".encode(), "\u672c\u8a9e".encode(), "\u00e9t".encode(), b"x"]


def parts(table: CutTable, texts: list[str], room: int = 100) -> list[str]:
    data = np.frombuffer("".join(texts).encode(), np.uint8)
    offsets = np.cumsum([0, *(len(text.encode()) for text in texts)], dtype=np.int64)
    found: list[str] = []
    bounds, place = np.empty(room + 1, np.int64), 0
    while place < len(data):
        count, reached = table.bounds(data, offsets, place, bounds)
        assert bounds[0] == place and bounds[count] == reached > place
        found += [data[bounds[i] : bounds[i + 1]].tobytes().decode() for i in range(count)]
        place = reached
    return found


def test_a_text_is_cut_where_no_piece_holds_both_characters() -> None:
    table = CutTable.of(PIECES)
    assert parts(table, ["abcab xb"]) == ["abc", "ab", " ", "x", "b"]
    assert parts(table, ["ab", "", "c"]) == ["ab", "c"], "documents never share a part"
    assert parts(table, ["\u65e5\u672c\u8a9e\u65e5"]) == ["\u65e5\u672c\u8a9e", "\u65e5"]
    assert parts(table, ["\u00e9t\u00e8t"]) == ["\u00e9t", "\u00e8", "t"], "told by characters, not by their last bytes"
    assert parts(table, ["x\u2581x \ue000b"]) == ["x\u2581x", " \ue000b"], "escaped characters hold their neighbours"


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.text("abcx \u00e9t\u65e5\u672c\u8a9e\u2581\ue000\U0001f600", max_size=12), max_size=5),
    st.integers(1, 4),
)
def test_parts_are_the_text_and_pairs_stay_together(texts: list[str], room: int) -> None:
    table = CutTable.of(PIECES)
    found = parts(table, texts, room)
    assert "".join(found) == "".join(texts) and all(found)
    ends = set(np.cumsum([len(part) for part in found]).tolist())
    joined = {piece.decode()[i : i + 2] for piece in PIECES for i in range(len(piece.decode()) - 1)}
    place = 0
    for text in texts:
        for i in range(len(text) - 1):
            if text[i : i + 2] in joined or text[i] in "\u2581\ue000" or text[i + 1] in "\u2581\ue000":
                assert place + i + 1 not in ends
        place += len(text)


def test_a_vocabulary_that_joins_everything_cuts_nothing() -> None:
    printable = [bytes([a, b]) for a in range(0x20, 0x7F) for b in range(0x20, 0x7F)]
    assert not CutTable.of(printable).cuts_often and CutTable.of(PIECES).cuts_often
