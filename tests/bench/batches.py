"""What building a step's batches costs, one JSON line a way to read; and making a packing index in memory.

usage: python tests/bench/batches.py [DOCUMENTS]    (default 10000000, of the index alone)

Documents have log-normal lengths (median 400 tokens) or 5 to 35 tokens. microseconds: wall clock per 1,000 tokens of a
step, the mean of 30 steps in their drawn order, all rows built by one rank.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gptcli.artifacts.schemas import TOKENS16_SCHEMA
from gptcli.artifacts.shards import ShardWriter, shard_name
from gptcli.artifacts.tokens import Bounds, TokenStream, document_bounds
from gptcli.training.batches import TokenBatches
from gptcli.training.packed_rows import MadePacking, PackedRows
from gptcli.training.rows import StreamRows, TrainingRows

STEPS = 30
SHAPES = ((256, 64, 4), (512, 16, 2), (1024, 512, 32))  # seq_len, sequences a step, micro-batch


def log_normal(count: int) -> Bounds:
    lengths = np.maximum(np.random.default_rng(1).lognormal(6, 1.2, count), 1).astype(np.int64)
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


def short(count: int) -> Bounds:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.random.default_rng(1).integers(5, 36, count))])


def write(directory: Path, bounds: Bounds) -> None:
    documents = len(bounds) - 1
    writer = ShardWriter(directory / shard_name("train", 0), TOKENS16_SCHEMA)
    ids = pa.array((np.arange(bounds[-1]) & 0xFFFF).astype(np.uint16))
    tokens = pa.LargeListArray.from_arrays(pa.array(bounds), ids)
    columns = [pa.array(["0"] * documents), pa.array(np.diff(bounds)), tokens]
    writer.write(pa.RecordBatch.from_arrays(columns, schema=TOKENS16_SCHEMA))
    writer.close()


def ways(directory: Path, seq_len: int) -> dict[str, TrainingRows]:
    stream, bounds = TokenStream.open(directory, "train"), document_bounds(directory, "train")
    found: dict[str, TrainingRows] = {
        "stream": StreamRows(stream, seq_len, 1),
        "stream, masked": StreamRows(stream, seq_len, 1, bounds),
    }
    for how in ("concat", "bestfit"):
        made = MadePacking(directory, bounds, how, seq_len, 0)
        found[how] = PackedRows(stream, made, 0, 1, masked=False)
        found[f"{how}, masked"] = PackedRows(stream, made, 0, 1, masked=True)
    return found


def microseconds(data: TokenBatches, micro_batch_size: int) -> float:
    data.step(0, micro_batch_size)
    started = time.perf_counter()
    for step in range(1, STEPS + 1):
        data.step(step * data.sequences, micro_batch_size)
    return (time.perf_counter() - started) / STEPS * 1e9 / (data.sequences * data.rows.seq_len)


def line(**figures: Any) -> None:
    print(json.dumps(figures), flush=True)


def main(documents: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        for kind, bounds in (("log-normal", log_normal(20_000)), ("short", short(200_000))):
            folder = Path(name) / kind
            write(folder, bounds)
            for seq_len, sequences, micro in SHAPES:
                for way, rows in ways(folder, seq_len).items():
                    figure = round(microseconds(TokenBatches(rows, sequences, 0), micro), 1)
                    line(lengths=kind, seq_len=seq_len, sequences=sequences, way=way, microseconds=figure)
    bounds = log_normal(documents)
    for how in ("concat", "bestfit"):
        started = time.perf_counter()
        made = MadePacking(Path(name), bounds, how, 2048, 0)
        line(index=how, documents=documents, rows=len(made), seconds=round(time.perf_counter() - started, 2))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000)
