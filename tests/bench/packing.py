"""The packing index of ten million documents, one JSON line a step.

usage: python tests/bench/packing.py [DOCUMENTS]    (default 10000000)

Lengths are log-normal, as those of web pages are (median 400 tokens, mean 830). `discarded_by_cropping` is the share of
tokens that the rule of nanochat's loader loses on the first of the same lengths: of a buffer of documents the largest
that fits goes into the row; where none does, the shortest is cut to the room that is left and its rest thrown away.
`shards` is the whole way from token shards, of documents of two tokens. `rows` reads rows back as a model takes them.
Seconds are wall clock, cpu_seconds this process's; mb is its peak over what it held before (Linux), the pages of a
mapped shard included. The first calls, which compile, are not counted.
"""

from __future__ import annotations

import bisect
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gptcli.artifacts.packing import PackingIndex, packing_path
from gptcli.artifacts.schemas import TOKENS16_SCHEMA
from gptcli.artifacts.shards import ShardWriter, shard_name
from gptcli.artifacts.tokens import TokenStream
from gptcli.training.pack import Pack
from gptcli.training.packing import Bounds, PackingFigures, sequences, write_packing, write_rows

BUFFER = 1000  # documents that the cropping loader chooses from
CROPPED = 200_000  # documents it is tried on


def line(step: str, **figures: Any) -> None:
    print(json.dumps({"step": step, **figures}), flush=True)


def memory(field: str) -> float:
    status = Path("/proc/self/status")
    rows = status.read_text().splitlines() if status.exists() else []
    return next((int(row.split()[1]) / 1024 for row in rows if row.startswith(field)), 0.0)


def measured(step: str, write: Any, pack: Pack, place: Path, **told: Any) -> PackingFigures:
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is resident
    before, started, began = memory("VmRSS"), time.perf_counter(), time.process_time()
    figures: PackingFigures = write(pack, place)
    seconds, cpu = round(time.perf_counter() - started, 2), round(time.process_time() - began, 2)
    mb, file_mb = round(memory("VmHWM") - before), round(place.stat().st_size / 1e6)
    named = {
        "how": pack.how,
        "seq_len": pack.seq_len,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "mb": mb,
        "file_mb": file_mb,
    }
    line(step, **named, **figures.stats(), **told)
    return figures


def lengths_like_the_web(count: int) -> Bounds:
    lengths = np.random.default_rng(1).lognormal(6, 1.2, count)
    bounds = np.zeros(count + 1, np.int64)
    np.cumsum(np.maximum(lengths, 1).astype(np.int64), out=bounds[1:])
    return bounds


def discarded_by_cropping(lengths: list[int], seq_len: int) -> float:
    """The share of tokens thrown away in rows of seq_len + 1 tokens, until the documents run out."""
    buffer = sorted(lengths[:BUFFER])
    coming = iter(lengths[BUFFER:])
    lost = used = 0
    while True:
        room = seq_len + 1
        while room:
            fitting = bisect.bisect_right(buffer, room)
            length = buffer.pop(fitting - 1 if fitting else 0)
            taken = min(length, room)
            used, lost, room = used + taken, lost + length - taken, room - taken
            following = next(coming, 0)
            if not following:
                return lost / (lost + used)
            bisect.insort(buffer, following)


def write_tiny_documents(directory: Path, count: int) -> None:
    """Token shards of documents of two tokens, a million a shard."""
    for number, first in enumerate(range(0, count, 1_000_000)):
        documents = min(1_000_000, count - first)
        writer = ShardWriter(directory / shard_name("train", number), TOKENS16_SCHEMA)
        offsets = pa.array(np.arange(0, 2 * documents + 1, 2))
        ids = pa.array(np.arange(2 * documents, dtype=np.uint32).astype(np.uint16))
        names = pa.array(np.char.mod("%032x", np.arange(documents)).astype(object), pa.string())
        tokens = pa.LargeListArray.from_arrays(offsets, ids)
        columns = [names, pa.array(np.full(documents, 5, np.int64)), tokens]
        writer.write(pa.RecordBatch.from_arrays(columns, schema=TOKENS16_SCHEMA))
        writer.close()


def read_rows(directory: Path, pack: Pack, rows: int) -> None:
    """Some rows by their drawn numbers, in batches of 16."""
    index = PackingIndex.open(directory, "train", pack.how, pack.seq_len, pack.seed)
    stream = TokenStream.open(directory, "train")
    numbers = np.random.default_rng(0).permutation(len(index))[:rows]
    started = time.perf_counter()
    segments = tokens = 0
    for first in range(0, len(numbers), 16):
        made = sequences(stream, index, numbers[first : first + 16].tolist(), 0, None)
        tokens += int((made.document_ids >= 0).sum())
        segments += int((made.document_ids.max(axis=1) + 1).sum())
    seconds = time.perf_counter() - started
    line("rows", seq_len=pack.seq_len, tokens_a_segment=tokens / segments, tokens_a_second=round(tokens / seconds))


def write_long_documents(directory: Path) -> None:
    """A shard of 20,000 documents, lengths as above."""
    bounds = lengths_like_the_web(20_000)
    writer = ShardWriter(directory / shard_name("train", 0), TOKENS16_SCHEMA)
    ids = pa.array((np.arange(bounds[-1]) & 0xFFFF).astype(np.uint16))
    tokens = pa.LargeListArray.from_arrays(pa.array(bounds), ids)
    columns = [pa.array(["0"] * 20_000), pa.array(np.diff(bounds)), tokens]
    writer.write(pa.RecordBatch.from_arrays(columns, schema=TOKENS16_SCHEMA))
    writer.close()


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = folder / "index.arrow"
        packs = [
            Pack.model_validate({"how": how, "seq_len": seq_len})
            for seq_len in (512, 2048)
            for how in ("bestfit", "concat")
        ]
        for pack in packs[:2]:
            write_rows(np.array([0, 700, 702], np.int64), "train", pack, place)
        bounds = lengths_like_the_web(count)
        lengths = np.diff(bounds[: CROPPED + 1]).tolist()
        for pack in packs:
            lost = {"discarded_by_cropping": round(discarded_by_cropping(lengths, pack.seq_len), 4)}
            told = lost if pack.how == "bestfit" else {}
            measured("index", lambda pack, place: write_rows(bounds, "train", pack, place), pack, place, **told)
        place.unlink()
        write_tiny_documents(folder / "tiny", count)
        for pack in packs[2:]:
            place = packing_path(folder / "tiny", "train", pack.how, pack.seq_len, pack.seed)
            measured("shards", lambda pack, place: write_packing(folder / "tiny", "train", pack, place), pack, place)
        read_rows(folder / "tiny", packs[2], 160)
        write_long_documents(folder / "long")
        place = packing_path(folder / "long", "train", "bestfit", 2048, 0)
        write_packing(folder / "long", "train", packs[2], place)
        read_rows(folder / "long", packs[2], 1600)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000)
