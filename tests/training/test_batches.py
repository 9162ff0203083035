from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptcli.artifacts.packing import packing_path
from gptcli.artifacts.schemas import TOKENS16_SCHEMA, TOKENS32_SCHEMA
from gptcli.artifacts.shards import ShardWriter, shard_name
from gptcli.artifacts.tokens import TokenStream, document_bounds
from gptcli.errors import ArtifactError, StoppedError
from gptcli.models.family import build_model, sized_config
from gptcli.training import loss, rows
from gptcli.training.batches import Batch, TokenBatches, epoch_order, sample_index, share
from gptcli.training.open_rows import open_rows
from gptcli.training.order import sample_indices
from gptcli.training.pack import Pack
from gptcli.training.packed_rows import MadePacking, PackedRows
from gptcli.training.packing import write_packing
from gptcli.training.rows import IGNORED, StreamRows, TrainingRows, document_parts

BOS, EOS, PAD = 1, 2, 0
PACKINGS = ("stream", "concat", "bestfit")
LENGTHS = st.lists(st.one_of(st.integers(2, 6), st.integers(2, 90), st.sampled_from([16, 17, 32, 64])), min_size=1)


class Ids:
    """As much of a tokenizer as reading rows takes."""

    def __init__(self, bos_id: int | None = BOS, pad_id: int | None = PAD) -> None:
        self.bos_id, self.pad_id, self.eos_id = bos_id, pad_id, EOS


def documents(lengths: list[int], bos: bool = True) -> list[list[int]]:
    """Documents [bos] … eos whose inner ids are all different, from 3 on."""
    following = iter(range(3, 3 + sum(lengths)))
    return [
        [*([BOS] if bos else []), *(next(following) for _ in range(length - 1 - bos)), EOS][:length]
        for length in lengths
    ]


def of_memory(texts: list[list[int]]) -> tuple[TokenStream, npt.NDArray[np.int64]]:
    ids = np.array([token for text in texts for token in text], np.uint32)
    bounds = np.cumsum([0, *map(len, texts)]).astype(np.int64)
    cuts = bounds[:: max(1, len(bounds) // 3)]  # pieces end with documents, as record batches do
    cuts = np.unique(np.concatenate([cuts, bounds[-1:]]))
    pieces = tuple(ids[a:b] for a, b in itertools.pairwise(cuts))
    return TokenStream(pieces, cuts, len(ids), len(texts)), bounds


def rows_of(texts: list[list[int]], packing: str, seq_len: int, masked: bool = False, seed: int = 0) -> TrainingRows:
    stream, bounds = of_memory(texts)
    if packing == "stream":
        return StreamRows(stream, seq_len, BOS, bounds if masked else None)
    return PackedRows(stream, MadePacking(Path("made"), bounds, packing, seq_len, seed), PAD, BOS, masked)


def pairs_of(batches: list[Batch]) -> Counter[tuple[int, int]]:
    """Every (input, target) that carries loss."""
    found: Counter[tuple[int, int]] = Counter()
    for batch in batches:
        kept = batch.targets != IGNORED
        assert batch.valid == int(kept.sum())
        found.update(zip(batch.input_ids[kept].tolist(), batch.targets[kept].tolist(), strict=True))
    return found


def write_tokens(directory: Path, shards: list[list[list[int]]], schema: pa.Schema = TOKENS16_SCHEMA) -> None:
    for number, texts in enumerate(shards):
        writer = ShardWriter(directory / shard_name("train", number), schema, rows_per_batch=4)
        columns = {"document": [str(n) for n in range(len(texts))], "bytes": [len(each) for each in texts]}
        writer.write(pa.table({**columns, "tokens": texts}, schema=schema))
        writer.close()


def counting(count: int) -> TokenStream:
    """The ids 0 … count-1, in pieces that end anywhere."""
    pieces = tuple(np.array_split(np.arange(count, dtype=np.uint16), 7))
    starts = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])])
    return TokenStream(pieces, starts, text_bytes=count, documents=7)


def test_the_stream_reads_across_pieces() -> None:
    whole = counting(100)
    assert whole.read(0, 100).tolist() == list(range(100))
    assert whole.read(13, 47).tolist() == list(range(13, 47))
    assert whole.read(95, 120).tolist() == list(range(95, 100))
    out = np.zeros(70, np.int64)
    whole.read_runs(np.array([13, 90, 0]), np.array([47, 10, 3]), out, np.array([3, 60, 0]))
    assert out.tolist() == [0, 1, 2, *range(13, 60), *[0] * 10, *range(90, 100)]


def test_an_epoch_shows_every_target_once_and_the_next_in_another_order() -> None:
    data = TokenBatches(StreamRows(counting(1 + 32 * 8), 8, None), sequences=4, seed=3)
    epochs = []
    for epoch in range(2):
        targets = [batch.targets for step in range(8) for batch in data.step(32 * epoch + 4 * step, 3)]
        epochs.append(torch.cat(targets).flatten().tolist())
    assert sorted(epochs[0]) == list(range(1, 257))
    assert sorted(epochs[1]) == sorted([*range(5, 257), *range(249, 253)])  # windows that begin 4 tokens later
    assert epochs[0] != epochs[1]


def test_inputs_and_targets_overlap_by_one_and_bos_carries_no_loss() -> None:
    (batch,) = TokenBatches(StreamRows(counting(65), 8, 9), sequences=8, seed=0).step(0, 8)
    kept = batch.targets != IGNORED
    assert torch.equal(batch.input_ids[kept] + 1, batch.targets[kept])
    assert batch.valid == 63 and not (batch.targets == 9).any()
    assert batch.starts is None and batch.positions is None


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("packing", PACKINGS)
@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS, seq_len=st.integers(16, 70), seed=st.integers(0, 3))
def test_every_target_of_every_document_once_an_epoch(
    packing: str, masked: bool, lengths: list[int], seq_len: int, seed: int
) -> None:
    texts = documents([*lengths, seq_len + 1])  # at least one window
    source = rows_of(texts, packing, seq_len, masked, seed)
    batches = TokenBatches(source, source.count, seed).step(0, 3)
    expected = Counter(pair for text in texts for pair in itertools.pairwise(text))
    found = pairs_of(batches)
    assert found <= expected
    stream_tokens = sum(map(len, texts))
    if packing == "stream":
        assert source.left_out < seq_len and sum(expected.values()) - sum(found.values()) <= source.left_out
        assert sum(batch.tokens for batch in batches) + source.left_out + 1 == stream_tokens
    else:
        assert found == expected
        assert sum(batch.tokens for batch in batches) == stream_tokens and source.left_out == 0


def test_every_way_to_pack_has_as_many_targets() -> None:
    texts = documents([5, 30, 64, 3, 90, 17, 2, 45])
    texts.append(documents([16 - sum(map(len, texts)) % 16 + 1])[0])  # so that no tail is left out
    counts = [
        sum(batch.valid for batch in TokenBatches(source, source.count, 0).step(0, 4))
        for source in (rows_of(texts, packing, 16) for packing in PACKINGS)
    ]
    assert counts == [sum(map(len, texts)) - len(texts)] * 3


def attended(batch: Batch, row: int, place: int) -> list[int]:
    """The ids that a place sees where documents are masked."""
    assert batch.starts is not None
    return batch.input_ids[row, int(batch.starts[row, place]) : place + 1].tolist()


@pytest.mark.parametrize("packing", PACKINGS)
@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS, seq_len=st.integers(16, 40))
def test_a_mask_shows_what_separate_documents_would(packing: str, lengths: list[int], seq_len: int) -> None:
    texts = documents([*lengths, seq_len + 1])
    source = rows_of(texts, packing, seq_len, masked=True)
    (batch,) = TokenBatches(source, source.count, 0).step(0, source.count)
    assert batch.starts is not None and batch.positions is not None
    assert batch.starts.dtype == torch.int32 and batch.positions.dtype == batch.input_ids.dtype == torch.int64
    assert torch.equal(batch.positions, torch.arange(seq_len) - batch.starts)
    bounds = of_memory(texts)[1]
    for row, number in enumerate(sample_indices(0, 0, source.count, source.count).tolist()):
        place = 0
        for document, begin, end in document_parts(bounds, source.spans(number)):
            part = texts[document][begin - bounds[document] : end - bounds[document]]
            for length in range(1, len(part) + 1):
                assert attended(batch, row, place + length - 1) == part[:length]
            place += len(part)
        assert (batch.starts[row, place:] == place).all()  # padding sees padding
        assert (batch.targets[row, place:] == IGNORED).all() and (batch.input_ids[row, place:] == PAD).all()


@pytest.mark.parametrize("architecture", ["qwen3", "gpt2"])
@pytest.mark.parametrize("packing", PACKINGS)
def test_a_model_under_a_mask_computes_what_it_does_of_each_document_alone(packing: str, architecture: str) -> None:
    texts = documents([5, 30, 3, 17, 2, 45, 8])
    source = rows_of(texts, packing, 32, masked=True)
    (batch,) = TokenBatches(source, source.count, 0).step(0, source.count)
    config = sized_config(
        architecture,
        vocab_size=200,
        hidden_size=32,
        intermediate_size=48,
        num_layers=2,
        num_heads=2,
        num_kv_heads=2,
        head_dim=16,
        max_positions=32,
        rope_theta=10000.0,
        tie_embeddings=True,
        bos_id=BOS,
        eos_id=EOS,
        pad_id=PAD,
    )
    torch.manual_seed(0)
    model = build_model(config).eval()
    with torch.inference_mode():
        together = model.hidden(batch.input_ids, positions=batch.positions, starts=batch.starts)
        for row, number in enumerate(sample_indices(0, 0, source.count, source.count).tolist()):
            begin = 0
            for _, first, last in document_parts(of_memory(texts)[1], source.spans(number)):
                part = slice(begin, begin + last - first)
                alone = model.hidden(batch.input_ids[row : row + 1, part])
                torch.testing.assert_close(together[row : row + 1, part], alone, atol=1e-5, rtol=1e-4)
                begin += last - first


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("packing", PACKINGS)
def test_ranks_and_micro_batches_share_the_same_samples(packing: str, masked: bool) -> None:
    source = rows_of(documents([7, 40, 21, 3, 90, 33] * 9), packing, 16, masked)
    data = TokenBatches(source, sequences=10, seed=5)
    for first in (0, 10, 4 * source.count - 3):  # the last over the end of an epoch
        for size in (1, 3, 10, 64):
            whole = data.step(first, size)
            for ranks in (1, 2, 3, 20):
                own = [data.step(first, size, rank, ranks) for rank in range(ranks)]
                shared = [share(whole, rank, ranks) for rank in range(ranks)]
                assert [list(map(len, map(Batch.tensors, each))) for each in own] == [
                    [4 if masked else 2] * len(each) for each in shared
                ]
                for mine, given_me in zip(own, shared, strict=True):
                    assert all(equal(a, b) for a, b in zip(mine, given_me, strict=True))
                assert sum(batch.valid for batches in own for batch in batches) == sum(one.valid for one in whole)
            joined = torch.cat([batch.input_ids for batch in whole])
            numbers = sample_indices(5, first, 10, source.count)
            assert np.array_equal(joined.numpy(), source.rows(numbers).input_ids)


def equal(one: Batch, other: Batch) -> bool:
    same = (one.valid, one.tokens) == (other.valid, other.tokens)
    return same and all(torch.equal(a, b) for a, b in zip(one.tensors(), other.tensors(), strict=True))


@given(st.integers(0, 9), st.integers(1, 40), st.integers(0, 500), st.integers(0, 60))
def test_the_order_is_a_permutation_each_epoch_and_begins_anywhere(
    seed: int, count: int, first: int, samples: int
) -> None:
    plain = [sample_index(seed, number, count) + number // count * count for number in range(first, first + samples)]
    assert sample_indices(seed, first, samples, count).tolist() == plain
    epoch = first // count
    assert sorted(epoch_order(seed, epoch, count).tolist()) == list(range(count))
    with pytest.raises(ValueError, match="read-only"):
        epoch_order(seed, epoch, count)[0] = 0


def test_the_order_depends_on_seed_and_epoch() -> None:
    drawn = [epoch_order(seed, epoch, 50).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(each) for each in drawn}) == 4


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_split_of_one_row(packing: str) -> None:
    texts = documents([17])
    source = rows_of(texts, packing, 16 if packing == "stream" else 32, masked=True)
    assert source.count == 1
    batches = TokenBatches(source, sequences=5, seed=0).step(3, 2)
    assert [len(batch.input_ids) for batch in batches] == [2, 2, 1]
    assert pairs_of(batches) == Counter([*itertools.pairwise(texts[0])] * 5)


@pytest.mark.parametrize("schema", [TOKENS16_SCHEMA, TOKENS32_SCHEMA], ids=["uint16", "uint32"])
@pytest.mark.parametrize("how", ["concat", "bestfit"])
def test_an_index_on_disk_and_one_made_here_give_the_same_rows(tmp_path: Path, how: str, schema: pa.Schema) -> None:
    largest = 60_000 if schema is TOKENS16_SCHEMA else 4_000_000_000
    draw = np.random.default_rng(3)
    texts = [[BOS, *draw.integers(3, largest, n).tolist(), EOS] for n in draw.integers(0, 70, 40)]
    write_tokens(tmp_path, [texts[:11], [], texts[11:]], schema)
    tokenizer: Any = Ids()

    def opened() -> TrainingRows:
        return open_rows(tmp_path, tokenizer, packing=how, document_mask=True, seq_len=32, seed=4)

    made = opened()
    assert isinstance(made, PackedRows) and isinstance(made.index, MadePacking)
    write_packing(tmp_path, "train", Pack.model_validate({"how": how, "seq_len": 32, "seed": 4}), packed(tmp_path, how))
    read = opened()
    assert isinstance(read, PackedRows) and not isinstance(read.index, MadePacking)
    numbers = np.arange(made.count)
    assert all(np.array_equal(a, b) for a, b in zip(made.rows(numbers), read.rows(numbers), strict=True))  # type: ignore[arg-type]
    assert np.array_equal(made.spans(3), read.spans(3))
    assert pairs_of(TokenBatches(read, read.count, 0).step(0, 5)) == Counter(
        pair for text in texts for pair in itertools.pairwise(text)
    )


def packed(tokens: Path, how: str) -> Path:
    return packing_path(tokens, "train", how, 32, 4)


@pytest.mark.parametrize("schema", [TOKENS16_SCHEMA, TOKENS32_SCHEMA], ids=["uint16", "uint32"])
def test_a_masked_stream_knows_its_documents_from_shards(tmp_path: Path, schema: pa.Schema) -> None:
    texts = documents([4, 40, 9, 100, 3])
    write_tokens(tmp_path, [texts[:2], [[]], texts[2:]], schema)
    tokenizer: Any = Ids(bos_id=None, pad_id=None)
    source = open_rows(tmp_path, tokenizer, packing="stream", document_mask=True, seq_len=26, seed=0)
    found = source.rows(np.arange(source.count))
    bounds = [0, *np.cumsum([len(text) for text in texts]).tolist()]
    assert document_bounds(tmp_path, "train").tolist() == [0, 4, 44, 44, 53, 153, 156]
    assert found.starts is not None
    for row in range(source.count):
        begin = 26 * row
        starts = [max(0, max(each for each in bounds if each <= begin + place) - begin) for place in range(26)]
        assert found.starts[row].tolist() == starts
    assert (found.targets == BOS).any()  # no bos in the tokenizer: every target counts


def test_padding_without_a_pad_id_is_the_end_of_a_document(tmp_path: Path) -> None:
    write_tokens(tmp_path, [documents([5])])
    tokenizer: Any = Ids(pad_id=None)
    source = open_rows(tmp_path, tokenizer, packing="bestfit", document_mask=False, seq_len=16, seed=0)
    (batch,) = TokenBatches(source, 1, 0).step(0, 1)
    assert batch.input_ids[0].tolist() == [BOS, 3, 4, 5, EOS, *[EOS] * 11]
    assert (batch.valid, batch.tokens) == (4, 5)


@pytest.mark.parametrize("how", ["concat", "bestfit"])
def test_making_an_index_can_be_stopped(tmp_path: Path, how: str) -> None:
    write_tokens(tmp_path, [documents([5])])

    def stop() -> None:
        raise StoppedError("stopped", "")

    tokenizer: Any = Ids()
    with pytest.raises(StoppedError):
        open_rows(tmp_path, tokenizer, packing=how, document_mask=False, seq_len=16, seed=0, check=stop)


def test_too_little_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="fewer than one sequence"):
        StreamRows(counting(8), 8, None)
    write_tokens(tmp_path, [[[]]])
    tokenizer: Any = Ids()
    with pytest.raises(ArtifactError, match="no tokens"):
        open_rows(tmp_path, tokenizer, packing="bestfit", document_mask=False, seq_len=16, seed=0)


def test_a_batch_stays_where_it_is() -> None:
    (batch,) = TokenBatches(StreamRows(counting(65), 8, None), 8, 0).step(0, 8)
    assert batch.to(torch.device("cpu")) is batch
    moved = batch.to(torch.device("meta"))
    assert moved.starts is None and moved.targets.device.type == "meta" and moved.valid == batch.valid


def test_ignored_is_the_loss_s() -> None:
    assert rows.IGNORED == loss.IGNORED
