"""Evaluation items planted in real documents are found, dropped and cut out; all else stays as it is."""

from __future__ import annotations

import json
import random
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from gptcli.artifacts.ngrams import NgramIndex
from gptcli.artifacts.schemas import CORPUS_SCHEMA
from gptcli.artifacts.shards import ShardWriter
from gptcli.corpus import ngrams
from gptcli.corpus.decontamination import MIN_PIECE, NOTHING_LEFT, OVERLAPS, TOO_MANY_OVERLAPS, Items
from gptcli.corpus.evaluation_items import item_texts
from gptcli.corpus.ngrams import write_ngrams
from gptcli.errors import ArtifactError, SpecError
from gptcli.records.ngrams import ngram_hashes, ngram_hashes_of
from gptcli.records.pieces import Notes
from gptcli.records.sources import SourceFile

QUESTION = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May?"
)
FILLER = "".join(
    f"Sentence {'abcdefghijklmnopqrstuvwxyz'[n % 26]}{n // 26 * 'z'} is about nothing. " for n in range(40)
)


@cache
def _rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _source(path: Path) -> SourceFile:
    return SourceFile(path, path.name, path.name)


@pytest.fixture
def web(data_dir: Path) -> list[str]:
    return [row["text"] for row in _rows(data_dir / "c4-demo" / "c4_demo.jsonl")]


@cache
def _maths(path: Path, action: str) -> Items:
    return Items.build(item_texts([_source(path)], Notes()), 13, action, 200)


@pytest.fixture
def questions(data_dir: Path) -> list[str]:
    return [row["question"] for row in _rows(data_dir / "gsm8k-train" / "train.jsonl")]


@pytest.fixture
def dropping(data_dir: Path) -> Items:
    return _maths(data_dir / "gsm8k-train" / "train.jsonl", "drop")


@pytest.fixture
def cutting(data_dir: Path) -> Items:
    return _maths(data_dir / "gsm8k-train" / "train.jsonl", "cut")


def test_every_planted_item_is_found_and_no_other_document(
    web: list[str], questions: list[str], dropping: Items
) -> None:
    assert dropping.count == len(questions) and dropping.too_short == 0
    clean = [dropping.treat(text) for text in web]
    assert [(one.text, one.failed, one.values) for one in clean] == [(text, "", {OVERLAPS: 0.0}) for text in web]
    draw = random.Random(5)
    for question in draw.sample([one for one in questions if len(one.split()) > 13], 300):
        words = draw.choice(web).split(" ")
        at = draw.randrange(len(words) + 1)
        treated = dropping.treat(" ".join([*words[:at], question, *words[at:]]))
        assert treated.failed == OVERLAPS and treated.values[OVERLAPS] == 1.0 and not treated.changes


def test_questions_with_choices_find_nothing_in_books(data_dir: Path, web: list[str]) -> None:
    files = [*sorted((data_dir / "eval-mc-dev").glob("*.jsonl")), *sorted((data_dir / "blimp-dev").glob("*.jsonl"))]
    notes = Notes()
    items = Items.build(item_texts(map(_source, files), notes), 13, "drop", 200)
    assert items.count == sum(len(_rows(path)) for path in files) and items.too_short < items.count / 100
    assert not notes.faults
    books = sorted((data_dir / "gutenberg-dev").glob("*-0.txt"))
    for text in (*web, *(book.read_text(encoding="utf-8") for book in books)):
        assert items.treat(text).values == {OVERLAPS: 0.0}
    for path in files:
        row = _rows(path)[-1]
        posed = " ".join(text for value in row.values() for text in ([value] if isinstance(value, str) else ()))
        assert items.treat(f"{FILLER}{posed} {FILLER}").failed == OVERLAPS or len(posed.split()) < 13, path


@pytest.mark.parametrize(
    "changed",
    [
        QUESTION.upper(),
        QUESTION.replace(",", " —").replace("?", "…"),
        QUESTION.replace("48", "93"),
        QUESTION.replace(" ", "\n"),
        QUESTION.replace("i", "í"),
        " ".join(QUESTION.split()[:13]),
        " ".join(QUESTION.split()[-13:]),
    ],
    ids=["case", "punctuation", "digits", "lines", "accents", "first", "last"],
)
def test_case_punctuation_digits_and_accents_hide_nothing(changed: str, dropping: Items) -> None:
    assert dropping.treat(f"He asked: {changed} She did not know.").failed == OVERLAPS


def test_twelve_words_of_a_longer_item_are_no_overlap(dropping: Items) -> None:
    assert dropping.treat(f"{' '.join(QUESTION.split()[:12])} {FILLER}").failed == ""


def test_cutting_takes_the_item_and_its_margin(cutting: Items) -> None:
    treated = cutting.treat(f"{FILLER}{QUESTION} {FILLER}")
    begin, end = treated.text.split("\n\n")
    assert FILLER.startswith(begin + " ") and FILLER.endswith(" " + end + " ")
    assert 200 <= len(FILLER) - len(begin) <= 300 and 200 <= len(FILLER) - len(end) <= 300
    assert treated.failed == "" and treated.values == {OVERLAPS: 1.0}
    whole = len(f"{FILLER}{QUESTION} {FILLER}")
    assert treated.changes == {OVERLAPS: 1, "characters": whole - len(treated.text)}
    assert cutting.treat(treated.text).values == {OVERLAPS: 0.0}


def test_cuts_that_meet_are_one_and_short_pieces_go(cutting: Items) -> None:
    near = cutting.treat(f"{FILLER}{QUESTION} {FILLER[:300]} {QUESTION} {FILLER}")
    assert near.values == {OVERLAPS: 2.0} and near.text.count("\n\n") == 1
    between = cutting.treat(f"{FILLER}{QUESTION} {FILLER[: 400 + MIN_PIECE - 50]} {QUESTION} {FILLER}")
    assert between.text == near.text


def test_documents_of_which_too_little_or_too_much_is_left(cutting: Items) -> None:
    little = f"{FILLER[:350]} {QUESTION} {FILLER[:350]}"
    assert (cutting.treat(little).failed, cutting.treat(little).text) == (NOTHING_LEFT, little)
    nine = FILLER + f"{QUESTION} {FILLER}" * 9
    assert cutting.treat(nine).failed == "" and cutting.treat(nine).text.count("\n\n") == 9
    assert cutting.treat(nine + f"{QUESTION} {FILLER}").failed == TOO_MANY_OVERLAPS


def test_cutting_without_margin_and_without_spaces() -> None:
    items = Items.build([QUESTION, "吾輩は猫である。名前はまだ無い。"], 13, "cut", 0)
    assert items.treat(f'{FILLER}"{QUESTION}" {FILLER}').text == f"{FILLER.strip()}\n\n{FILLER.strip()}"
    book = "どこで生れたかとんと見当がつかぬ。" * 20
    assert items.treat(f"{book}吾輩は猫である。名前はまだ無い。{book}").text == f"{book}\n\n。{book}"


def test_short_items_are_found_whole() -> None:
    short = "The quick brown fox jumps over the lazy dog"  # nine words
    items = Items.build([short, "Only seven words are in this one", ("Yes.", "No.", "Yes. No.")], 13, "drop", 200)
    assert (items.count, items.too_short) == (3, 2)
    assert items.treat(f"He wrote: {short.lower()}!").failed == OVERLAPS
    assert items.treat(short.rpartition(" ")[0] + " cat " + FILLER).failed == ""
    assert items.treat("Only seven words are in this one").failed == ""
    assert items.treat(short.rpartition(" ")[0]).values == {OVERLAPS: 0.0}


def test_tables_of_numbers_are_no_items() -> None:
    table = " ".join(str(number) for number in range(1000, 1040))
    items = Items.build([table, f"{table} {QUESTION}"], 13, "drop", 200)
    assert items.too_short == 1
    assert items.treat(table.replace("1", "7")).failed == ""
    assert items.treat(QUESTION).failed == OVERLAPS


@pytest.mark.parametrize("text", ["", " \n", "…", "\0", "one", "\ud800 " * 20, "猫" * 7])
def test_documents_of_next_to_nothing(text: str, cutting: Items) -> None:
    assert cutting.treat(text).text == text and cutting.treat(text).failed == ""


def test_no_items_find_nothing(web: list[str]) -> None:
    items = Items.build([], 13, "drop", 200)
    assert (items.count, items.too_short) == (0, 0)
    assert items.treat(web[0]).values == {OVERLAPS: 0.0}


def test_items_survive_the_disk(tmp_path: Path, web: list[str], cutting: Items) -> None:
    for items in (cutting, Items.build([], 5, "drop", 0)):
        items.save(tmp_path / "items.safetensors")
        again = Items.load(tmp_path / "items.safetensors")
        assert Items.load(tmp_path / "items.safetensors") is again
        for text in (web[0], f"{FILLER}{QUESTION} {FILLER}"):
            assert again.treat(text) == items.treat(text)
        assert [again.ngram, again.action, again.margin, again.count, again.too_short] == [
            *(items.ngram, items.action, items.margin, items.count, items.too_short)
        ]
        again.save(tmp_path / "again.safetensors")
        assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "items.safetensors").read_bytes()
    data = (tmp_path / "items.safetensors").read_bytes()
    (tmp_path / "items.safetensors").write_bytes(data[:-1])
    for name in ("items.safetensors", "none"):
        with pytest.raises(ArtifactError, match=name):
            Items.load(tmp_path / name)


def test_large_documents(web: list[str], cutting: Items) -> None:
    """20 MB without a line break, items at known places."""
    words = " ".join(web).split()
    book = " ".join(words * (20_000_000 // len(" ".join(words)) + 1))
    places = [5_000_000, 12_000_000, len(book)]
    parts = [book[begin:end] for begin, end in pairwise([0, *places])]
    treated = cutting.treat(f" {QUESTION} ".join(parts))
    assert treated.values == {OVERLAPS: 2.0}
    for kept, part in zip(treated.text.split("\n\n"), parts, strict=True):
        assert kept in part and len(part) - len(kept) < 700


def test_items_of_every_form(tmp_path: Path) -> None:
    rows = [
        {"question": QUESTION, "choices": ["72", "48"], "answer": {"label": "A", "why": "48 + 24"}, "n": 3},
        {"question": "Second?", "choices": [], "answer": None, "n": 4},
    ]
    texts = [(QUESTION, "72", "48", "A", "48 + 24", f"{QUESTION} 72 48 A 48 + 24"), ("Second?",)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text(lines + "{broken\n", encoding="utf-8")
    (tmp_path / "b.json").write_text(json.dumps(rows), encoding="utf-8")
    table = pa.Table.from_pylist(rows)
    pa.parquet.write_table(table, tmp_path / "c.parquet")
    with pa.ipc.new_file(tmp_path / "d.arrow", table.schema) as file:
        file.write(table)
    with pa.ipc.new_stream(tmp_path / "e.arrow", table.schema) as stream:
        stream.write(table)
    for name in ("a.jsonl", "b.json", "c.parquet", "d.arrow", "e.arrow"):
        notes = Notes()
        assert list(item_texts([_source(tmp_path / name)], notes)) == texts, name
        assert notes.faults == ([(name, "1 rows not_json")] if name == "a.jsonl" else [])
    (tmp_path / "f.csv").write_text('question,answer\n"One, two\nthree?",four\n', encoding="utf-8")
    (tmp_path / "g.txt").write_text("One\ntwo\n\nthree\n", encoding="utf-8")
    (tmp_path / "h.txt").write_text("One two\nthree\n", encoding="utf-8")
    files = [_source(tmp_path / name) for name in ("f.csv", "g.txt", "h.txt")]
    assert list(item_texts(files, Notes())) == [
        ("question", "answer", "question answer"),
        ("One, two\nthree?", "four", "One, two\nthree? four"),
        ("One\ntwo",),
        ("three\n",),
        ("One two",),
        ("three",),
    ]


@pytest.mark.parametrize(
    ("name", "data", "fault"),
    [
        ("empty.jsonl", b"", []),
        ("numbers.json", b'[{"a": 1}]', []),
        ("nothing.txt", b"\n\n", []),
        ("cut.parquet", b"PAR1\x15\x04", [("cut.parquet", "corrupt")]),
        ("cut.arrow", b"ARROW1\0\0\x15\x04", [("cut.arrow", "corrupt")]),
        ("some.zip", b"PK\x03\x04", []),
        ("page.html", b"<!doctype html><p>One", []),
    ],
)
def test_files_without_items(name: str, data: bytes, fault: list[tuple[str, str]], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    notes = Notes()
    with pytest.raises(SpecError, match=name):
        list(item_texts([_source(tmp_path / name)], notes))
    assert notes.faults == fault


def test_deep_and_damaged_items(tmp_path: Path) -> None:
    path = tmp_path / "deep.jsonl"
    path.write_text('{"a": ' + "[" * 700 + '"deep"' + "]" * 700 + "}\n" + "[" * 100_000 + "\n", encoding="utf-8")
    notes = Notes()
    assert list(item_texts([_source(path)], notes)) == [("deep",)]
    assert notes.faults == [("deep.jsonl", "1 rows not_json")]


def _shard(path: Path, texts: list[str]) -> Path:
    writer = ShardWriter(path, CORPUS_SCHEMA, "zstd")
    for text in texts:
        row = {"id": "0", "text": text, "path": "p", "source_offset": 0, "source_bytes": len(text.encode())}
        writer.write(pa.Table.from_pylist([row], schema=CORPUS_SCHEMA))
    writer.close()
    return path


def test_the_index_holds_the_ngrams_of_every_document(
    tmp_path: Path, web: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ngrams"
    halves = {"train-00000": ["", "too short", *web[:150], web[0]], "val-00000": web[150:]}
    for name, texts in halves.items():
        shard = _shard(tmp_path / f"{name}.arrow", texts)
        count = write_ngrams(shard, folder / f"{name}.arrow")
        expected = np.unique(np.concatenate([ngram_hashes(text) for text in texts]))
        with pa.memory_map(str(folder / f"{name}.arrow")) as data:
            assert pa.ipc.open_file(data).read_all()["hash"].to_pylist() == expected.tolist()
        assert count == len(expected)
    first = (folder / "train-00000.arrow").read_bytes()
    for name, small in (("_CHARS", 5000), ("_RUN", 7000), ("_RANGE", 3000)):
        monkeypatch.setattr(ngrams, name, small)  # many runs, many ranges: the same bytes
    write_ngrams(tmp_path / "train-00000.arrow", tmp_path / "again.arrow")
    assert (tmp_path / "again.arrow").read_bytes() == first
    assert sorted(path.name for path in folder.iterdir()) == ["train-00000.arrow", "val-00000.arrow"]

    both, train = NgramIndex.open(folder), NgramIndex.open(folder, "train")
    known, other = ngram_hashes_of(web), ngram_hashes(QUESTION)
    asked = np.concatenate([other, known[::-1], other])
    assert both.contains(asked).tolist() == [False] * len(other) + [True] * len(known) + [False] * len(other)
    assert train.contains(ngram_hashes(web[0])).all() and not train.contains(ngram_hashes(web[-1])).any()
    assert len(both) > len(train) > 0 and not len(both.contains(known[:0]))
    assert both.contains(np.array([0, 2**64 - 1], dtype=np.uint64)).tolist() == [False, False]


@pytest.mark.parametrize("name", ["c.parquet", "d.arrow", "a.jsonl", "b.json", "t.csv"])
def test_damaged_files_of_items(name: str, tmp_path: Path, data_dir: Path) -> None:
    """Whatever bytes are flipped: items, faults, or a SpecError that there are none."""
    rows = _rows(data_dir / "gsm8k-train" / "train.jsonl")[:30]
    if name == "c.parquet":
        pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    elif name == "d.arrow":
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_file(tmp_path / name, table.schema) as file:
            file.write(table)
    else:
        told = json.dumps(rows) if name == "b.json" else "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / name).write_text(told, encoding="utf-8")
    good, draw = (tmp_path / name).read_bytes(), random.Random(name)
    for _ in range(40):
        data = bytearray(good[: draw.choice([len(good), draw.randrange(8, len(good))])])
        for _ in range(draw.choice([1, 20])):
            data[draw.randrange(8, len(data))] = draw.randrange(256)
        (tmp_path / name).write_bytes(data)
        notes = Notes()
        try:
            items = Items.build(item_texts([_source(tmp_path / name)], notes), 13, "drop", 200)
            assert items.count or notes.faults
        except SpecError as error:
            assert name in error.message


def test_shards_without_ngrams_and_folders_without_index(tmp_path: Path) -> None:
    assert write_ngrams(_shard(tmp_path / "a.arrow", ["few words"]), tmp_path / "ngrams" / "train-00000.arrow") == 0
    assert write_ngrams(_shard(tmp_path / "b.arrow", []), tmp_path / "ngrams" / "train-00001.arrow") == 0
    index = NgramIndex.open(tmp_path / "ngrams")
    assert len(index) == 0 and not index.contains(ngram_hashes(QUESTION)).any()
    with pytest.raises(ArtifactError, match="no n-grams of the split val"):
        NgramIndex.open(tmp_path / "ngrams", "val")
    with pytest.raises(ArtifactError, match="is no n-gram index"):
        NgramIndex.open(tmp_path)
    with pytest.raises(ArtifactError):
        write_ngrams(tmp_path / "none.arrow", tmp_path / "ngrams" / "train-00002.arrow")
