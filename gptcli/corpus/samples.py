"""A few documents of every kind, kept and left out, for people to look at: those with the lowest ids, so any order
of work gives the same."""

from __future__ import annotations

import bisect
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

EACH = 10  # samples of a kind
_CHARS = 600  # of a sample's text


@dataclass(frozen=True, order=True)
class Sample:
    id: str
    path: str
    value: str
    text: str


class Samples:
    """The samples of each reason; the reason of what is kept is "kept"."""

    def __init__(self) -> None:
        self._found: dict[str, list[Sample]] = {}

    def wants(self, reason: str, identity: str) -> bool:
        """Whether a document with this id would be taken."""
        found = self._found.get(reason, [])
        return len(found) < EACH or identity < found[-1].id

    def offer(self, reason: str, identity: str, path: str, value: Any, text: bytes | str | None) -> None:
        if not self.wants(reason, identity):
            return
        shown = text.decode() if isinstance(text, bytes) else text or ""
        found = self._found.setdefault(reason, [])
        bisect.insort(found, Sample(identity, path, "" if value is None else str(value), shown[:_CHARS]))
        del found[EACH:]

    def offer_batch(self, batch: pa.RecordBatch) -> None:
        """Rows in a unit's DROPPED_SCHEMA; the few without a text of which others of that reason have one are none."""
        for row in batch.filter(batch.column("text").is_valid()).to_pylist():
            self.offer(row["reason"], row["id"], row["path"], row["value"], row["text"])

    def as_json(self) -> dict[str, list[dict[str, str]]]:
        return {reason: [asdict(sample) for sample in found] for reason, found in sorted(self._found.items())}
