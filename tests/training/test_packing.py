from __future__ import annotations

import hashlib
import itertools
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptcli.artifacts.packing import PackingIndex, packing_path
from gptcli.artifacts.schemas import TOKENS16_SCHEMA, TOKENS32_SCHEMA
from gptcli.artifacts.shards import ShardWriter, shard_name
from gptcli.artifacts.tokens import TokenStream, document_bounds
from gptcli.errors import ArtifactError, SpecError
from gptcli.spec import nest, parse_setting, resolve
from gptcli.tokenize.spec import TokenizeSpec
from gptcli.training import bestfit, loss, packing
from gptcli.training.pack import Pack
from gptcli.training.packing import IGNORED, best_fit, end_to_end, sequences, write_packing

Row = list[tuple[int, int, bool]]  # start, length, continues
FILLS = {"bestfit": best_fit, "concat": end_to_end}
HOWS = pytest.mark.parametrize("how", FILLS)
LENGTHS = st.lists(st.one_of(st.integers(0, 5), st.integers(0, 90), st.sampled_from([15, 16, 17, 32, 64])), max_size=60)


def bounds_of(lengths: list[int]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.array(lengths, np.int64))]).astype(np.int64)


def pack(how: str, bounds: npt.NDArray[np.int64], seq_len: int, seed: int = 0, at_once: int = 7) -> list[Row]:
    rows: list[Row] = []
    for batch in FILLS[how](bounds, seq_len, seed, at_once):
        assert len(batch.ends) - 1 <= at_once and len(batch.starts) == batch.ends[-1]
        found = list(zip(batch.starts.tolist(), batch.lengths.tolist(), map(bool, batch.continues), strict=True))
        rows += [found[begin:end] for begin, end in zip(batch.ends[:-1], batch.ends[1:], strict=True)]
    return rows


def check(rows: list[Row], bounds: npt.NDArray[np.int64], seq_len: int) -> None:
    """What holds for both ways: every token once, no row too long, no segment across a document's end."""
    covered = sorted((start, length) for row in rows for start, length, _ in row)
    at = 0
    for start, length in covered:
        assert start == at and length > 0
        at += length
    assert at == bounds[-1]
    for row in rows:
        assert 0 < sum(length for _, length, _ in row) <= seq_len
        documents = [int(np.searchsorted(bounds, start, "right")) - 1 for start, _, _ in row]
        assert len(set(documents)) == len(documents)
        for document, (start, length, continues) in zip(documents, row, strict=True):
            assert start + length <= bounds[document + 1]
            assert continues == (start + length < bounds[document + 1])


def plain_best_fit(lengths: list[int], seq_len: int) -> list[list[int]]:
    """Lengths of the pieces in each row, by the rule as it is written; of rows with the same room the one touched
    last."""
    pieces = sorted((length % seq_len for length in lengths if length % seq_len), reverse=True)
    rows: list[list[int]] = []
    touched: list[int] = []
    for time, piece in enumerate(pieces):
        fitting = [row for row in range(len(rows)) if sum(rows[row]) + piece <= seq_len]
        if fitting:
            best = min(fitting, key=lambda row: (seq_len - sum(rows[row]), -touched[row]))
        else:
            best = len(rows)
            rows.append([])
            touched.append(0)
        rows[best].append(piece)
        touched[best] = time
    return rows + [[seq_len] for length in lengths for _ in range(length // seq_len)]


@settings(max_examples=150, deadline=None)
@given(LENGTHS, st.integers(16, 70), st.integers(0, 3))
def test_best_fit_is_the_plain_rule(lengths: list[int], seq_len: int, seed: int) -> None:
    bounds = bounds_of(lengths)
    rows = pack("bestfit", bounds, seq_len, seed)
    check(rows, bounds, seq_len)
    expected = sorted(sorted(row) for row in plain_best_fit(lengths, seq_len))
    assert sorted(sorted(length for _, length, _ in row) for row in rows) == expected
    beginnings = set(bounds[:-1].tolist())
    for row in rows:
        starts = [start for start, _, _ in row]
        if beginnings & set(starts):
            assert starts[0] in beginnings
        for start, length, continues in row:
            inside = start - max(each for each in beginnings if each <= start)
            assert inside % seq_len == 0
            assert length == seq_len or not continues


@settings(max_examples=150, deadline=None)
@given(LENGTHS, st.integers(16, 70), st.integers(0, 3))
def test_concat_pads_only_its_end(lengths: list[int], seq_len: int, seed: int) -> None:
    bounds = bounds_of(lengths)
    rows = pack("concat", bounds, seq_len, seed)
    check(rows, bounds, seq_len)
    assert len(rows) == math.ceil(bounds[-1] / seq_len)
    assert all(sum(length for _, length, _ in row) == seq_len for row in rows[:-1])
    order = np.random.Generator(np.random.PCG64([seed])).permutation(len(lengths))
    expected = [token for each in order for token in range(bounds[each], bounds[each + 1])]
    assert [start + n for row in rows for start, length, _ in row for n in range(length)] == expected


@HOWS
def test_the_seed_decides_and_nothing_else(how: str) -> None:
    bounds = bounds_of(np.random.default_rng(5).integers(1, 100, 300).tolist())
    one = pack(how, bounds, 64, seed=1)
    assert pack(how, bounds, 64, seed=1, at_once=1000) == one
    assert pack(how, bounds, 64, seed=2) != one


KEPT = {  # (start, length) of each row's segments
    "bestfit": [
        [(81, 1), (130, 1), (21, 4)],
        [(114, 16)],
        [(89, 9), (82, 7)],
        [(25, 16)],
        [(5, 16)],
        [(65, 16)],
        [(98, 16)],
        [(41, 16)],
        [(131, 3), (0, 5), (57, 8)],
    ],
    "concat": [
        [(98, 16)],
        [(114, 16)],
        [(130, 1), (82, 7), (5, 8)],
        [(13, 12), (131, 3), (65, 1)],
        [(66, 15), (81, 1)],
        [(25, 16)],
        [(41, 16)],
        [(57, 8), (89, 8)],
        [(97, 1), (0, 5)],
    ],
}


@HOWS
def test_a_seed_s_rows_stay_what_they_are(how: str) -> None:
    rows = pack(how, bounds_of([5, 20, 40, 16, 1, 7, 0, 9, 33, 3]), 16, seed=11)
    assert [[(start, length) for start, length, _ in row] for row in rows] == KEPT[how]


def test_neither_length_nor_source_order_shows() -> None:
    bounds = bounds_of([*range(1, 200)] * 5)
    rows = pack("bestfit", bounds, 128)
    several = [[length for _, length, _ in row] for row in rows if len(row) > 2]
    assert 0.2 < np.mean([row[0] == max(row) for row in several]) < 0.8
    begins = np.array([row[0][0] for row in rows], float)
    assert abs(np.corrcoef(begins, np.arange(len(begins)))[0, 1]) < 0.2
    fill = np.array([len(row) for row in rows], float)
    assert abs(np.corrcoef(fill, np.arange(len(fill)))[0, 1]) < 0.2


@HOWS
@pytest.mark.parametrize("lengths", [[], [0], [0, 0, 0]], ids=str)
def test_nothing_gives_no_rows(how: str, lengths: list[int]) -> None:
    assert pack(how, bounds_of(lengths), 16) == []


@HOWS
def test_a_single_token_is_a_row(how: str) -> None:
    assert pack(how, bounds_of([0, 1, 0]), 1 << 20, at_once=1) == [[(0, 1, False)]]


@HOWS
def test_a_document_beyond_32_bits(how: str) -> None:
    seq_len = 1 << 20
    bounds = bounds_of([3, (1 << 32) + 7, 5])
    rows = pack(how, bounds, seq_len, at_once=4)
    check(rows, bounds, seq_len)
    assert len(rows) == (1 << 12) + 1
    assert sum(batch.cut for batch in FILLS[how](bounds, seq_len, 0, 4)) == 1


def test_rooms_of_every_size_are_found() -> None:
    """Long rows use all levels of the tree that finds a room."""
    seq_len = 1 << 20
    draw = np.random.default_rng(2)
    lengths = (2.0 ** draw.uniform(0, 20.5, 600)).astype(np.int64).tolist()
    bounds = bounds_of(lengths)
    rows = pack("bestfit", bounds, seq_len, at_once=4)
    check(rows, bounds, seq_len)
    expected = sorted(sorted(row) for row in plain_best_fit(lengths, seq_len))
    assert sorted(sorted(length for _, length, _ in row) for row in rows) == expected


def test_more_documents_than_int32_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = bounds_of(np.random.default_rng(5).integers(0, 100, 300).tolist())
    narrow = pack("bestfit", bounds, 64)
    monkeypatch.setattr(bestfit, "_INT32", 0)
    assert pack("bestfit", bounds, 64) == narrow


def write_shards(directory: Path, shards: list[list[list[int]]], schema: pa.Schema, split: str = "train") -> None:
    for number, documents in enumerate(shards):
        writer = ShardWriter(directory / shard_name(split, number), schema, rows_per_batch=4)
        columns = {
            "document": [str(n) for n in range(len(documents))],
            "bytes": [len(each) for each in documents],
            "tokens": documents,
        }
        writer.write(pa.table(columns, schema=schema))
        writer.close()


def documents(count: int, largest_id: int) -> list[list[int]]:
    """Of 1 to 60 tokens, each [bos] … eos with bos 1 and eos 2."""
    draw = np.random.default_rng(count)
    return [[1, *draw.integers(3, largest_id + 1, n).tolist(), 2][: n + 1] for n in draw.integers(0, 60, count)]


SCHEMAS = pytest.mark.parametrize("schema", [TOKENS16_SCHEMA, TOKENS32_SCHEMA], ids=["uint16", "uint32"])


@HOWS
@SCHEMAS
def test_rows_from_shards_and_back(tmp_path: Path, how: str, schema: pa.Schema) -> None:
    largest = 60_000 if schema is TOKENS16_SCHEMA else 4_000_000_000
    shards = [documents(11, largest), documents(3, largest), [], documents(9, largest)]
    write_shards(tmp_path, shards, schema)
    texts = [each for shard in shards for each in shard]
    assert np.array_equal(document_bounds(tmp_path, "train"), bounds_of([len(each) for each in texts]))
    place = packing_path(tmp_path, "train", how, 32, 9)
    figures = write_packing(tmp_path, "train", Pack.model_validate({"how": how, "seq_len": 32, "seed": 9}), place)
    first = hashlib.sha256(place.read_bytes()).hexdigest()
    again = write_packing(tmp_path, "train", Pack.model_validate({"how": how, "seq_len": 32, "seed": 9}), place)
    assert again == figures and hashlib.sha256(place.read_bytes()).hexdigest() == first
    index = PackingIndex.open(tmp_path, "train", how, 32, 9)
    rows: list[Row] = [
        list(zip(*(each.tolist() for each in row), strict=True)) for row in index.rows(range(len(index)))
    ]
    check(rows, bounds_of([len(each) for each in texts]), 32)
    tokens = sum(map(len, texts))
    places = [
        {row for row, each in enumerate(rows) for start, _, _ in each if start in inside(texts, n)} for n in range(23)
    ]
    assert figures.rows == len(index) and figures.tokens == tokens and figures.documents == 23
    assert figures.padding == 32 * len(index) - tokens and figures.padding_share == figures.padding / (32 * len(index))
    assert figures.documents_cut == sum(len(each) > 1 for each in places)
    assert figures.documents_a_row == sum(map(len, rows)) / len(rows)
    assert figures.stats()["padding"] == figures.padding


def inside(texts: list[list[int]], number: int) -> range:
    begin = sum(map(len, texts[:number]))
    return range(begin, begin + len(texts[number]))


@HOWS
def test_sequences_lose_no_target(tmp_path: Path, how: str) -> None:
    texts = documents(40, 60_000)
    write_shards(tmp_path, [texts[:21], texts[21:]], TOKENS16_SCHEMA)
    write_packing(tmp_path, "train", Pack(how=how, seq_len=16), packing_path(tmp_path, "train", how, 16, 0))  # type: ignore[arg-type]
    stream, index = TokenStream.open(tmp_path, "train"), PackingIndex.open(tmp_path, "train", how, 16, 0)
    made = sequences(stream, index, range(len(index)), pad_id=7, bos_id=1)
    assert made.input_ids.shape == made.targets.shape == (len(index), 16)
    padded = made.document_ids < 0
    assert (made.input_ids[padded] == 7).all() and (made.targets[padded] == IGNORED).all()
    assert (made.positions[padded] == 0).all() and padded.sum() == 16 * len(index) - len(stream)
    kept = made.targets != IGNORED
    pairs = sorted(zip(made.input_ids[kept].tolist(), made.targets[kept].tolist(), strict=True))
    assert pairs == sorted((a, b) for text in texts for a, b in itertools.pairwise(text))
    assert sorted(made.input_ids[~padded].tolist()) == sorted(token for text in texts for token in text)
    for number, row in enumerate(index.rows(range(len(index)))):
        assert made.document_ids[number][~padded[number]].tolist() == [
            place for place, length in enumerate(row.lengths) for _ in range(length)
        ]
        assert made.positions[number][~padded[number]].tolist() == [n for length in row.lengths for n in range(length)]
    backwards = sequences(stream, index, [3, 1], pad_id=7, bos_id=1)
    assert np.array_equal(backwards.input_ids, made.input_ids[[3, 1]])


def test_a_target_that_is_bos_carries_no_loss(tmp_path: Path) -> None:
    write_shards(tmp_path, [[[5, 1, 6, 2]]], TOKENS16_SCHEMA)
    write_packing(tmp_path, "train", Pack(seq_len=16), packing_path(tmp_path, "train", "bestfit", 16, 0))
    stream, index = TokenStream.open(tmp_path, "train"), PackingIndex.open(tmp_path, "train", "bestfit", 16, 0)
    assert sequences(stream, index, [0], 0, 1).targets[0, :4].tolist() == [IGNORED, 6, 2, IGNORED]
    assert sequences(stream, index, [0], 0, None).targets[0, :4].tolist() == [1, 6, 2, IGNORED]
    with pytest.raises(ArtifactError, match="made for 4 tokens, and the split has 3"):
        sequences(TokenStream.of_documents([np.arange(3, dtype=np.uint32)], [3]), index, [0], 0, None)


def test_ignored_is_the_loss_s() -> None:
    assert packing.IGNORED == loss.IGNORED


@HOWS
def test_a_split_without_documents(tmp_path: Path, how: str) -> None:
    write_shards(tmp_path, [[]], TOKENS16_SCHEMA)
    for split in ("train", "val"):  # one with an empty shard, one without any
        place = packing_path(tmp_path, split, how, 16, 0)
        figures = write_packing(tmp_path, split, Pack.model_validate({"how": how, "seq_len": 16}), place)
        assert figures.rows == figures.padding_share == figures.documents_a_row == 0
        index = PackingIndex.open(tmp_path, split, how, 16, 0)
        assert len(index) == 0
    stream = TokenStream.open(tmp_path, "train")
    assert sequences(stream, index, [], 0, None).input_ids.shape == (0, 16)


def test_a_broken_shard_is_named(tmp_path: Path) -> None:
    path = tmp_path / shard_name("train", 0)
    write_shards(tmp_path, [documents(9, 100)], TOKENS16_SCHEMA)
    whole = path.read_bytes()
    place = tmp_path / "index.arrow"
    path.write_bytes(whole[:-20])
    with pytest.raises(ArtifactError, match=r"train-00000\.arrow cannot be read"):
        write_packing(tmp_path, "train", Pack(seq_len=16), place)
    offsets = np.cumsum([0, *(len(each) for each in documents(9, 100)[:4])]).astype("<i8").tobytes()
    assert whole.count(offsets) == 1
    path.write_bytes(whole.replace(offsets, offsets[:8] + offsets[16:24] + offsets[8:16] + offsets[24:]))
    with pytest.raises(ArtifactError, match=r"train-00000\.arrow: the lists of tokens in record batch 0 are damaged"):
        write_packing(tmp_path, "train", Pack(seq_len=16), place)
    with pa.ipc.new_file(path, pa.schema([("other", pa.int64())])) as writer:
        writer.write_batch(pa.record_batch({"other": pa.array([1], pa.int64())}))
    with pytest.raises(ArtifactError, match="tokens"):
        write_packing(tmp_path, "train", Pack(seq_len=16), place)
    assert not place.exists()


def spec_of(setting: str) -> TokenizeSpec:
    key, value = parse_setting(setting)
    return resolve(TokenizeSpec, [("--set", nest({key: value}))])[0]


def test_the_key_of_the_recipe() -> None:
    plain = {"how": "bestfit", "seq_len": 1024, "seed": 0, "splits": ["train"]}
    assert spec_of("packing=[{seq_len=1024}]").content()["packing"] == [plain]
    assert spec_of("packing={seq_len=1024}") == spec_of("packing.seq_len=1024") == spec_of("packing=[{seq_len=1024}]")
    assert "packing" not in TokenizeSpec().content() and "packing" not in spec_of("packing=[]").content()
    both = spec_of('packing=[{seq_len=64}, {seq_len=64, splits=["val"]}, {seq_len=64, seed=1}]')
    assert [each.splits for each in both.packing] == [["train"], ["val"], ["train"]]


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("packing=[{seq_len=64}, {seq_len=64, splits=['val', 'train']}]", "two entries pack train alike"),
        ("packing=[{seq_len=15}]", "packing.0.seq_len = 15"),
        ("packing=[{seq_len=1048577}]", "packing.0.seq_len = 1048577"),
        ("packing=[{how='concat'}]", "packing.0.seq_len is missing"),
        ("packing=[{seq_len=64, how='best'}]", "packing.0.how = 'best'"),
        ("packing=[{seq_len=64, sed=1}]", "did you mean seed"),
        ("packing=[{seq_len=64, splits=['train', 'train']}]", "train stands in it twice"),
        ("packing=[{seq_len=64, splits=[]}]", "packing.0.splits"),
        ("packing=64", "packing = 64"),
    ],
)
def test_a_wrong_key_is_told(setting: str, told: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec_of(setting)
    assert told in caught.value.message
