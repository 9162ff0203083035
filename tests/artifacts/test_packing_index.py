from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gptcli.artifacts.packing import PackingIndex, packing_facts, packing_path, rows_per_batch, schema_with
from gptcli.artifacts.shards import ShardWriter
from gptcli.errors import ArtifactError

ROWS = [[(0, 5, 0), (9, 2, 0)], [(5, 4, 1)], [], [(11, 16, 0)], [(27, 1, 0)]]


def write(tokens: Path, rows: list[list[tuple[int, int, int]]] = ROWS, rows_at_once: int = 2, seed: int = 3) -> Path:
    path = packing_path(tokens, "train", "bestfit", 16, seed)
    schema = schema_with(packing_facts("train", "bestfit", 16, 3, documents=5, tokens=28))
    writer = ShardWriter(path, schema, rows_per_batch=rows_at_once)
    columns = {
        name: [[segment[place] for segment in row] for row in rows]
        for place, name in enumerate(("starts", "lengths", "continues"))
    }
    writer.write(pa.table(columns, schema=schema))
    writer.close()
    return path


def test_rows_are_views_into_the_file(tmp_path: Path) -> None:
    write(tmp_path)
    index = PackingIndex.open(tmp_path, "train", "bestfit", 16, 3)
    assert (len(index), index.seq_len, index.documents, index.tokens) == (5, 16, 5, 28)
    assert [list(zip(*(each.tolist() for each in row), strict=True)) for row in index.rows(range(5))] == ROWS
    starts, lengths, continues = index.row(1)
    assert (starts.dtype, lengths.dtype, continues.dtype) == (np.int64, np.int32, np.bool_)
    assert not any(each.flags.owndata or each.flags.writeable for each in (starts, lengths, continues))
    assert [row.starts.tolist() for row in index.rows([4, 0, 4])] == [[27], [0, 9], [27]]
    for number in (-1, 5):
        with pytest.raises(IndexError, match=f"row {number} of 5"):
            index.row(number)


def test_its_name_says_all(tmp_path: Path) -> None:
    assert packing_path(tmp_path, "val", "concat", 1024, 7) == tmp_path / "packing" / "val-concat-len1024-seed7.arrow"


@pytest.mark.parametrize("seq_len", [16, 1024, 1 << 20])
def test_a_record_batch_is_bounded(seq_len: int) -> None:
    assert 1 <= rows_per_batch(seq_len) <= 8192 and rows_per_batch(seq_len) * seq_len <= 1 << 22


def test_one_that_is_not_there(tmp_path: Path) -> None:
    tokens = tmp_path / "main"
    with pytest.raises(ArtifactError, match=r"no packing index .*train-bestfit-len32-seed0\.arrow$") as caught:
        PackingIndex.open(tokens, "train", "bestfit", 32, 0)
    write(tokens)
    with pytest.raises(ArtifactError, match="; there is train-bestfit-len16-seed3") as caught:
        PackingIndex.open(tokens, "val", "bestfit", 32, 0)
    assert caught.value.hint.startswith(
        "gptcli tokenize --name main --update "
        """--set 'packing=[{how = "bestfit", seq_len = 32, seed = 0, splits = ["val"]}]'"""
    )


def refused(tokens: Path, told: str, seed: int = 3) -> None:
    with pytest.raises(ArtifactError, match=told) as caught:
        PackingIndex.open(tokens, "train", "bestfit", 16, seed)
    assert caught.value.hint == (
        f"gptcli tokenize --name {tokens.name} --update "
        f"""--set 'packing=[{{how = "bestfit", seq_len = 16, seed = {seed}}}]'"""
    )


def test_one_that_is_broken(tmp_path: Path) -> None:
    whole = write(tmp_path).read_bytes()
    path = packing_path(tmp_path, "train", "bestfit", 16, 3)
    for length in (0, 8, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(tmp_path, re.escape(f"{path} cannot be read"))
    write(tmp_path, seed=4)  # says seed 3 inside
    refused(tmp_path, "not the one that its name says", seed=4)
    with pa.ipc.new_file(path, pa.schema([("starts", pa.int64())])) as writer:
        writer.write_batch(pa.record_batch({"starts": pa.array([1], pa.int64())}))
    refused(tmp_path, "is no packing index")


def test_batches_that_do_not_fit_together(tmp_path: Path) -> None:
    schema = schema_with(packing_facts("train", "bestfit", 16, 3, documents=5, tokens=28))
    path = packing_path(tmp_path, "train", "bestfit", 16, 3)
    path.parent.mkdir()

    def batches(*rows: int, lengths: int = 1) -> None:
        with pa.ipc.new_file(path, schema) as writer:
            for count in rows:
                columns = [
                    pa.array([[1] * size] * count, field.type)
                    for field, size in zip(schema, (1, lengths, 1), strict=True)
                ]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))

    batches(2, 3)
    refused(tmp_path, "its last record batch has 3 rows")
    batches(2, 1, 2)
    index = PackingIndex.open(tmp_path, "train", "bestfit", 16, 3)
    with pytest.raises(ArtifactError, match="record batch 1 has 1 rows, not 2"):
        index.row(2)
    batches(2, lengths=2)
    refused(tmp_path, "the columns of record batch 0 differ in their lengths")
