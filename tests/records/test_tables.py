"""tables: what csv and tsv files hold, as Python's csv module reads it, each row with its bytes."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptcli.records import opening
from gptcli.records.opening import Blocks, Held
from gptcli.records.tables import TableFile, TableRow, column_names, delimiter_of, named


def rows(data: bytes, form: str = "csv", **options: object) -> list[TableRow]:
    return list(TableFile(Held(data, "a"), form, **options))  # type: ignore[arg-type]


TEXT = st.lists(
    st.sampled_from(["a", ",", '"', '""', "\n", "\r\n", "\r", "é", '"x\ny"', ',"q""r"\n', " ", "\0", "\x1c", "\u2028"]),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(TEXT, st.sampled_from([1, 3, 1 << 20]), st.sampled_from(["utf-8", "utf-8-sig"]))
def test_rows_are_those_of_the_csv_module(drawn: list[str], block: int, codec: str) -> None:
    data = "".join(drawn).encode(codec)
    patch = pytest.MonkeyPatch()
    patch.setattr(opening, "BLOCK", block)
    try:
        found = rows(data, delimiter=",")
    finally:
        patch.undo()
    text = data.decode(codec).replace("\r\n", "\n").replace("\r", "\n")
    assert [row.fields for row in found] == [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    for row in found:
        raw = data[row.offset : row.offset + row.size].decode().replace("\r\n", "\n").replace("\r", "\n")
        if row is not found[-1]:  # its last quote may be open
            assert next(csv.reader(io.StringIO(raw, newline=""))) == row.fields


def test_delimiters() -> None:
    assert [delimiter_of(line, "csv") for line in ("a,b;c", "a;b", "a\tb", "a")] == [",", ";", "\t", ","]
    assert delimiter_of("a,b", "tsv") == "\t"
    assert [row.fields for row in rows(b"a;b\n1,5;2\n")] == [["a", "b"], ["1,5", "2"]]
    assert [row.fields for row in rows(b'a\t"b\n"c"\td\n', "tsv")] == [["a", '"b'], ['"c"', "d"]]


def test_names_of_columns() -> None:
    assert column_names(["a", " b ", "", "a", "a.2", "a"]) == ("a", "b", "3", "a.2", "a.2.2", "a.3")
    assert named(("a", "b"), ["1"]) == {"a": "1"}
    assert named(("a", "b"), ["1", "2", "3", "4"]) == {"a": "1", "b": "2", "extra": ["3", "4"]}
    assert named(("a", "extra"), ["1", "2", "3"]) == {"a": "1", "extra": "2", "extra_fields": ["3"]}
    assert named((), ["x", "y"]) == {"1": "x", "2": "y"}


@pytest.mark.parametrize("form", ["csv", "tsv"])
@pytest.mark.parametrize("block", [7, 1 << 20])
def test_long_rows_are_read_past(form: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "BLOCK", block)
    data = b"a\nb\n" + b"y" * 5000 + b"\nc\n" + b"z" * 200 + b"\n\nd"
    found = rows(data, form, max_chars=100)
    assert [(row.fields, row.problem, row.offset, row.size) for row in found] == [
        (["a"], "", 0, 1),
        (["b"], "", 2, 1),
        ([], "too_long", 4, 5000),
        (["c"], "", 5005, 1),
        ([], "too_long", 5007, 200),
        (["d"], "", 5209, 1),
    ]


def test_a_quote_that_never_closes_costs_no_more_than_a_row() -> None:
    data = b'a,b\n1,"never\n' + b"x,y\n" * 1000
    found = rows(data, max_chars=100)
    assert [row.problem for row in found[:3]] == ["", "too_long", ""]
    assert found[-1].fields == ["x", "y"] and sum(row.size + 1 for row in found) == len(data)
    assert all(len(row.fields) == 2 for row in found if not row.problem)
    [_, rest] = rows(data)
    assert rest.fields[0] == "1" and len(rest.fields[1]) > 4000


def test_wide_tables_and_bad_bytes() -> None:
    wide = b",".join(b"c%d" % number for number in range(100_000))
    header, row = rows(wide + b"\n" + wide)
    assert len(column_names(header.fields)) == 100_000 and len(row.fields) == 100_000
    [bad] = rows(b"caf\xe9,b\0c\n", encoding="utf-8")
    assert bad.fields == ["caf\ufffd", "b\0c"] and bad.invalid_bytes == 1
    assert rows(b"") == [] and rows(b"\n\r\n\n") == []


def test_real_tables(data_dir: Path) -> None:
    """Counts from ORIGIN.txt: quoted newlines are no rows, quotes in a tsv are text."""
    sms = list(TableFile(Blocks(data_dir / "sms-spam" / "sms.tsv", "a"), "tsv"))
    assert len(sms) == 5574 and {row.fields[0] for row in sms} == {"ham", "spam"}
    for name in ("train.csv", "test.csv"):
        path = data_dir / "banking77" / name
        with path.open(encoding="utf-8", newline="") as file:
            wanted = [[field.replace("\r\n", "\n").replace("\r", "\n") for field in row] for row in csv.reader(file)]
        assert [row.fields for row in TableFile(Blocks(path, name), "csv")] == wanted
