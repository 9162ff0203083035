from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gptcli.artifacts.schemas import TOKENS16_SCHEMA
from gptcli.artifacts.shards import ShardWriter, open_shard, shard_name, shard_paths
from gptcli.artifacts.tokens import TokenStream, document_bounds
from gptcli.errors import ArtifactError


def rows(start: int, stop: int) -> pa.Table:
    columns = {
        "document": [str(n) for n in range(start, stop)],
        "bytes": list(range(start, stop)),
        "tokens": [[n, n + 1, n + 2] for n in range(start, stop)],
    }
    return pa.table(columns, schema=TOKENS16_SCHEMA)


def write(path: Path, pieces: list[tuple[int, int]]) -> bytes:
    writer = ShardWriter(path, TOKENS16_SCHEMA, rows_per_batch=10)
    for start, stop in pieces:
        writer.write(rows(start, stop))
        assert not path.exists()
    assert writer.close() == 37
    return path.read_bytes()


def test_the_bytes_depend_on_the_rows_alone(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.arrow", [(0, 37)])
    assert write(tmp_path / "b.arrow", [(0, 3), (3, 25), (25, 37)]) == whole
    assert open_shard(tmp_path / "a.arrow").num_record_batches == 4


def test_a_stream_runs_over_batches_and_shards(tmp_path: Path) -> None:
    write(tmp_path / shard_name("val", 0), [(0, 37)])
    write(tmp_path / shard_name("val", 1), [(0, 37)])
    assert [path.name for path in shard_paths(tmp_path, "val")] == ["val-00000.arrow", "val-00001.arrow"]
    stream = TokenStream.open(tmp_path, "val")
    one = [n + k for n in range(37) for k in range(3)]
    assert len(stream) == 222 and stream.documents == 74 and stream.text_bytes == 2 * sum(range(37))
    assert stream.read(0, 222).tolist() == one + one
    with pytest.raises(ArtifactError, match="no test split"):
        TokenStream.open(tmp_path, "test")


def test_a_broken_shard_is_named(tmp_path: Path) -> None:
    path = tmp_path / "val-00000.arrow"
    path.write_bytes(write(tmp_path / "a.arrow", [(0, 37)])[:-9])
    with pytest.raises(ArtifactError, match=r"val-00000\.arrow cannot be read"):
        open_shard(path)


def test_documents_of_a_stream_are_known(tmp_path: Path) -> None:
    lengths, limit = [4, 40, 0, 9, 100, 3], 5
    for number, part in enumerate((lengths[:2], lengths[2:])):
        writer = ShardWriter(tmp_path / f"val-{number:05d}.arrow", TOKENS16_SCHEMA, rows_per_batch=3)
        rows = [{"document": "0", "bytes": 7 * length, "tokens": list(range(length))} for length in part]
        writer.write(pa.Table.from_pylist(rows, schema=TOKENS16_SCHEMA))
        writer.close()
    whole, first = TokenStream.open(tmp_path, "val"), TokenStream.open(tmp_path, "val", limit)
    assert np.array_equal(whole.bounds, document_bounds(tmp_path, "val"))
    assert whole.bounds.tolist() == [0, 4, 44, 44, 53, 153, 156]
    assert first.bounds.tolist() == [0, 4, 44, 44, 53, 153] and first.documents == limit
    assert whole.document_bytes.tolist() == [7 * length for length in lengths]
    held = TokenStream.of_documents([np.arange(length, dtype=np.uint32) for length in lengths], [1, 2, 3, 4, 5, 6])
    assert np.array_equal(held.bounds, whole.bounds) and held.text_bytes == 21 and held.documents == 6
    assert np.array_equal(held.read(0, 200), whole.read(0, 200)) and held.document_bytes.tolist() == [1, 2, 3, 4, 5, 6]
    empty = TokenStream.of_documents([], [])
    assert empty.bounds.tolist() == [0] and len(empty.document_bytes) == 0
