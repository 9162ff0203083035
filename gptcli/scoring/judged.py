"""One item of a task, judged: a row of items.arrow, from which every figure can be computed again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

JUDGED_SCHEMA = pa.schema(
    [
        pa.field("task", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("where", pa.string(), nullable=False),
        pa.field("prompt", pa.large_string(), nullable=False),
        pa.field("answer", pa.large_string(), nullable=False),
        pa.field("prediction", pa.large_string(), nullable=False),
        pa.field("names", pa.list_(pa.string()), nullable=False),  # of `scores`
        pa.field("values", pa.list_(pa.float64()), nullable=False),
        pa.field("logprobs", pa.list_(pa.float64()), nullable=False),
        pa.field("cut", pa.int64(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Judged:
    """One item of one task and what the model made of it.

    `item`: hex content hash of the row's texts as posed, the same in every evaluation of the same task; `where`:
    file:line; `prompt`, `answer`, `prediction`: as a person reads them; `scores`: this item's share of each figure that
    is a mean over items (right 1.0, wrong 0.0); `logprobs`: nats of what was compared, in the order of the choices;
    `cut`: tokens that did not fit into the model.
    """

    task: str
    item: str
    where: str
    prompt: str
    answer: str
    prediction: str
    scores: dict[str, float]
    logprobs: tuple[float, ...] = field(default=())
    cut: int = 0


def to_batch(rows: Iterable[Judged]) -> pa.RecordBatch:
    """Rows as one Arrow record batch of JUDGED_SCHEMA."""
    columns: dict[str, list[Any]] = {name: [] for name in JUDGED_SCHEMA.names}
    for row in rows:
        for name in ("task", "item", "where", "prompt", "answer", "prediction", "cut"):
            columns[name].append(getattr(row, name))
        columns["names"].append(list(row.scores))
        columns["values"].append(list(row.scores.values()))
        columns["logprobs"].append(list(row.logprobs))
    return pa.record_batch([pa.array(columns[field.name], field.type) for field in JUDGED_SCHEMA], schema=JUDGED_SCHEMA)


def from_batch(batch: pa.RecordBatch) -> list[Judged]:
    """The rows of a record batch of JUDGED_SCHEMA."""
    return [
        Judged(
            row["task"],
            row["item"],
            row["where"],
            row["prompt"],
            row["answer"],
            row["prediction"],
            dict(zip(row["names"], row["values"], strict=True)),
            tuple(row["logprobs"]),
            row["cut"],
        )
        for row in batch.to_pylist()
    ]
