"""documents: whatever form a file has, its documents, and a reason for everything that is none."""

from __future__ import annotations

import codecs
import gzip
import json
import tracemalloc
from pathlib import Path

import pytest

from gptcli.errors import SpecError
from gptcli.records import compression
from gptcli.records.documents import read, read_stream
from gptcli.records.gutenberg import book_of
from gptcli.records.opening import Held
from gptcli.records.pieces import Notes, Piece, ReadOptions


def pieces(path: Path, data: bytes | None = None, **options: object) -> tuple[list[Piece], Notes]:
    if data is not None:
        path.write_bytes(data)
    notes = Notes()
    return list(read(path, path.name, ReadOptions(**options), notes)), notes  # type: ignore[arg-type]


def test_rows(tmp_path: Path) -> None:
    data = b'{"text": "a\\r\\nb\\ud800", "n": NaN, "big": 1e999}\n{"n": 1}\n{"text": 5}\nbad\n{"text": "c"}\n'
    found, notes = pieces(tmp_path / "a.jsonl", data)
    assert [(piece.text, piece.meta, piece.reason) for piece in found] == [
        ("a\nb\ufffd", '{"n":null,"big":null}', ""),
        ("", None, "bad_row:no_text"),
        ("", None, "bad_row:text_not_string"),
        ("", None, "bad_row:not_json"),
        ("c", None, ""),
    ]
    assert found[0].invalid_bytes == 1 and notes.with_text == {"a.jsonl"} and not notes.columns


def test_nested_text_and_chosen_metadata(tmp_path: Path) -> None:
    row = {"page": {"text": "hello", "url": "u"}, "id": 7, "tags": ["x"]}
    data = json.dumps(row).encode()
    [piece], _ = pieces(tmp_path / "a.jsonl", data, text_key="page.text")
    assert (piece.text, piece.meta) == ("hello", '{"page":{"url":"u"},"id":7,"tags":["x"]}')
    [piece], _ = pieces(tmp_path / "a.jsonl", data, text_key="page.text", metadata=("id", "page.url", "none"))
    assert piece.meta == '{"id":7,"page.url":"u"}'
    [piece], _ = pieces(tmp_path / "a.jsonl", data, text_key="page.text", metadata=())
    assert piece.meta is None
    [piece], notes = pieces(tmp_path / "a.json", b"[" + data + b"]")
    assert piece.reason == "bad_row:no_text"
    assert notes.columns == {"a.json": ["page", "page.text", "page.url", "id", "tags"]}


def test_tables(tmp_path: Path) -> None:
    data = codecs.BOM_UTF8 + b'text;label\r\n"a;\r\nb";1\r\nc\r\nd;2;3\r\n'
    found, notes = pieces(tmp_path / "a.csv", data)
    assert [(piece.text, piece.meta) for piece in found] == [
        ("a;\nb", '{"label":"1"}'),
        ("c", None),
        ("d", '{"label":"2","extra":["3"]}'),
    ]
    assert data[found[0].offset :].startswith(b'"a;') and notes.with_text == {"a.csv"}
    found, notes = pieces(tmp_path / "a.csv", data, text_key="body")
    assert {piece.reason for piece in found} == {"bad_row:no_text"} and notes.columns["a.csv"] == [
        "text",
        "label",
        "extra",
    ]
    found, _ = pieces(tmp_path / "b.tsv", b"ham\thi\nspam\tbuy\n", header=False, text_key="2")
    assert [(piece.text, piece.meta) for piece in found] == [("hi", '{"1":"ham"}'), ("buy", '{"1":"spam"}')]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.csv", "a.tsv", "a.html"])
def test_a_file_without_documents_gives_one_piece(tmp_path: Path, name: str) -> None:
    found, notes = pieces(tmp_path / name, b"")
    assert [(piece.reason, piece.size) for piece in found] == [("empty" if name != "a.json" else found[0].reason, 0)]
    assert notes.faults == []


def test_damage_is_told(tmp_path: Path) -> None:
    rows = b"".join(b'{"text": "row %d"}\n' % number for number in range(20_000))
    packed = gzip.compress(rows)
    found, notes = pieces(tmp_path / "a.jsonl.gz", packed[:-20])
    assert found[-1].reason == "truncated" and notes.faults == [("a.jsonl.gz", "truncated")]
    found, notes = pieces(tmp_path / "b.txt.gz", packed[:-8] + bytes(8))
    assert found[-1].reason == "corrupt" and notes.faults == [("b.txt.gz", "corrupt")]
    found, notes = pieces(tmp_path / "c.json", b'[{"text": "a"}, {"te')
    assert [piece.reason for piece in found] == ["", "bad_row:not_json"] and notes.faults == [("c.json", "broken_list")]
    [found_binary], _ = pieces(tmp_path / "d.txt", b"\x89PNG\0\0")
    assert (found_binary.reason, found_binary.size) == ("not_text", 6)
    with pytest.raises(SpecError, match="unknown encoding"):
        pieces(tmp_path / "e.txt", b"x", encoding="klingon")


def test_bombs_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_BOMB_BYTES", 1 << 20)
    found, notes = pieces(tmp_path / "a.jsonl.gz", gzip.compress(b'{"text": "a"}\n' + b" " * (8 << 20)))
    assert found[0].text == "a" and notes.faults == [("a.jsonl.gz", "bomb")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt"])
def test_one_long_line_is_read_past_in_bounded_memory(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        file.write(b"text\n" if name == "a.csv" else b'[{"text": "')
        for _ in range(48):
            file.write(b"y" * (1 << 20))
    tracemalloc.start()
    found, _ = pieces(path, max_chars=1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [piece.reason.removeprefix("bad_row:") for piece in found] == ["too_long"]
    assert peak < 32 << 20


def test_members_of_archives() -> None:
    notes = Notes()
    packed = Held(gzip.compress(b'{"text": "a", "n": 1}\n{"text": "b"}\n'), "x.tar!rows.jsonl.gz")
    found = list(read_stream(packed, "Rows.JSONL.gz", ReadOptions(), notes, "rows.jsonl.gz"))
    assert [(piece.text, piece.member) for piece in found] == [("a", "rows.jsonl.gz"), ("b", "rows.jsonl.gz")]
    assert notes.with_text == {"x.tar!rows.jsonl.gz"}
    [empty] = read_stream(Held(b"", "x", "encrypted"), "a.txt", ReadOptions(), notes, "a.txt")
    assert (empty.reason, empty.member) == ("encrypted", "a.txt") and notes.faults == [("x", "encrypted")]


HEADER, FOOTER = "The Project Gutenberg EBook\n\n", "\n\nEnd of Project Gutenberg's X, by Y\n\n"


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("*** START OF THIS PROJECT GUTENBERG EBOOK X ***", "*** END OF THIS PROJECT GUTENBERG EBOOK X ***"),
        ("***START OF THE PROJECT GUTENBERG EBOOK X***", "***END OF THE PROJECT GUTENBERG EBOOK X***"),
        (
            "*** START OF THE PROJECT GUTENBERG EBOOK A LONG\nTITLE, VOL. 1 ***",
            "*** END OF THE PROJECT GUTENBERG EBOOK",
        ),
        ("*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*", ""),
        ("*END THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*", "End of The Project Gutenberg Etext of X"),
    ],
)
def test_gutenberg_markers(start: str, end: str) -> None:
    body = "CHAPTER I\n\nIt was the end of Project work.\n\nTHE END"
    assert book_of(f"{HEADER}{start}\n\n\n{body}{FOOTER}{end}\nLicense") == body


def test_what_is_no_gutenberg_book_stays() -> None:
    text = "\nA story.\n*** \nStart of the day.\n\nThe end of the project.\n"
    assert book_of(text) == text


def test_gutenberg_books(data_dir: Path) -> None:
    folders = [data_dir / "gutenberg-dev", data_dir / "multilingual-dev"]
    for path in sorted(path for folder in folders for path in folder.glob("*.txt") if path.name != "ORIGIN.txt"):
        [book], _ = pieces(path, gutenberg=True)
        [whole], _ = pieces(path)
        if path.name.startswith("wagahaiwa"):
            assert book == whole
            continue
        assert "PROJECT GUTENBERG EBOOK" not in book.text.upper(), path.name
        assert "PROJECT GUTENBERG-TM" not in book.text.upper(), path.name
        assert 0.9 * len(whole.text) < len(book.text) + 20_000 < len(whole.text) + 20_000
        assert (book.offset, book.size) == (whole.offset, whole.size)


def test_real_files(data_dir: Path) -> None:
    """Counts from the folders' ORIGIN.txt."""
    for name, count in (
        ("c4-demo/c4_demo.jsonl", None),
        ("blimp-dev/anaphor_number_agreement.jsonl", 1000),
        ("makemore-names/names.txt", 32033),
    ):
        path = data_dir / name
        if count and path.is_file():
            key = "sentence_good" if "blimp" in name else "text"
            found, _ = pieces(path, separator="line", text_key=key)
            assert len([piece for piece in found if not piece.reason]) == count, name


def test_a_book_cut_into_paragraphs_has_no_header(tmp_path: Path) -> None:
    header = "The Project Gutenberg EBook of X\n\nTitle: X\n\n*** START OF THIS PROJECT GUTENBERG EBOOK X ***\n\n"
    footer = "\n\n*** END OF THIS PROJECT GUTENBERG EBOOK X ***\n\nLicence\n\nmore"
    path = tmp_path / "x.txt"
    path.write_text(header + "One.\n\nTwo." + footer)
    options = ReadOptions(separator="blank_lines", gutenberg=True)
    pieces = list(read(path, "x.txt", options, Notes()))
    assert [piece.text for piece in pieces] == ["One.", "Two."]
    assert path.read_bytes()[pieces[1].offset :].startswith(b"Two.")
    path.write_text("One.\n\nTwo.")
    assert [piece.text for piece in read(path, "x.txt", options, Notes())] == ["One.", "Two."]
