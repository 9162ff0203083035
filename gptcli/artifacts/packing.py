"""The packing index on disk: how the documents of a split fill rows of seq_len tokens.

`packing/SPLIT-HOW-lenSEQ_LEN-seedSEED.arrow` inside tokens/NAME, Arrow IPC, uncompressed and memory-mapped, one Arrow
row a packed row. The row's tokens are those of its segments, one behind the other; what is left of it is padding. A
segment is a run of one document's tokens, and the segments of a row belong to different documents.

    starts     list<int64>   position of each segment's first token in the split, as artifacts.tokens.TokenStream counts
    lengths    list<int32>   tokens of each segment, at least 1; at most seq_len in a row together
    continues  list<uint8>   1 where the segment's document goes on behind it, in another row; 0 where it ends with it
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gptcli.artifacts.shards import open_shard
from gptcli.errors import ArtifactError

PACKING = "packing"  # the folder inside tokens/NAME
FACTS = b"gptcli.packing"  # the key of the schema's metadata, a JSON object; see `facts`

PACKING_SCHEMA = pa.schema(
    [
        pa.field("starts", pa.list_(pa.int64()), nullable=False),
        pa.field("lengths", pa.list_(pa.int32()), nullable=False),
        pa.field("continues", pa.list_(pa.uint8()), nullable=False),
    ]
)

_SLOTS_PER_BATCH = 1 << 22  # tokens' places in the rows of a record batch: bounds its segments, so its bytes
_ROWS_PER_BATCH = 1 << 13


class PackedRow(NamedTuple):
    """The segments of one row: starts int64 [S], lengths int32 [S], continues bool [S]; views into the file."""

    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int32]
    continues: npt.NDArray[np.bool_]


class _Batch(NamedTuple):
    """Rows of a record batch: `ends` int32 [rows + 1], where each row's segments begin and the last one's end."""

    ends: npt.NDArray[np.int32]
    segments: PackedRow


def packing_path(tokens: Path, split: str, how: str, seq_len: int, seed: int) -> Path:
    """The file of an index inside the tokens artifact at `tokens`."""
    return tokens / PACKING / f"{split}-{how}-len{seq_len}-seed{seed}.arrow"


def rows_per_batch(seq_len: int) -> int:
    """Rows of every record batch but the last."""
    return max(1, min(_ROWS_PER_BATCH, _SLOTS_PER_BATCH // seq_len))


def packing_facts(split: str, how: str, seq_len: int, seed: int, documents: int, tokens: int) -> dict[str, str | int]:
    """What an index says about itself; `documents` and `tokens` are those of the split it was made from."""
    return {
        "split": split,
        "how": how,
        "seq_len": seq_len,
        "seed": seed,
        "documents": documents,
        "tokens": tokens,
    }


def schema_with(facts: dict[str, str | int]) -> pa.Schema:
    """PACKING_SCHEMA that carries `packing_facts`."""
    return PACKING_SCHEMA.with_metadata({FACTS: json.dumps(facts, sort_keys=True)})


class PackingIndex:
    """An index opened: only the pages of the rows asked for are read."""

    def __init__(self, path: Path, reader: Any, facts: dict[str, Any], remedy: str) -> None:
        self.path, self.seq_len = path, int(facts["seq_len"])
        self.documents, self.tokens = int(facts["documents"]), int(facts["tokens"])  # of the split
        self._reader, self._remedy = reader, remedy
        self._batches: dict[int, _Batch] = {}
        self._rows_per_batch = self._rows = 0
        last = reader.num_record_batches - 1
        if last >= 0:  # all batches but the last have as many rows as the first
            self._rows_per_batch = self._record_batch(0).num_rows
            rows = len(self._batch(last).ends) - 1
            self._rows = last * self._rows_per_batch + rows
            if not 0 < rows <= self._rows_per_batch:
                raise self._broken(f"its last record batch has {rows} rows")

    @classmethod
    def open(cls, tokens: Path, split: str, how: str, seq_len: int, seed: int) -> PackingIndex:
        """The index of a split of tokens/NAME (`tokens`).

        Raises ArtifactError, which names the command that makes it, when it isn't there or is broken.
        """
        path = packing_path(tokens, split, how, seq_len, seed)
        table = f'{{how = "{how}", seq_len = {seq_len}, seed = {seed}'
        table += "}" if split == "train" else f', splits = ["{split}"]}}'
        remedy = f"gptcli tokenize --name {tokens.name} --update --set 'packing=[{table}]'"
        if not path.is_file():
            there = sorted(each.stem for each in path.parent.glob("*.arrow"))
            raise ArtifactError(
                f"there is no packing index {path}" + (f"; there is {', '.join(there)}" if there else ""),
                f"{remedy}, or the same table in the recipe",
            )
        try:
            reader = open_shard(path)
        except ArtifactError as error:
            raise ArtifactError(error.message, remedy) from error
        facts = _facts(reader.schema)
        wanted = packing_facts(split, how, seq_len, seed, facts.get("documents", -1), facts.get("tokens", -1))
        if not reader.schema.equals(PACKING_SCHEMA) or facts != wanted:
            raise ArtifactError(f"{path} is no packing index, or not the one that its name says", remedy)
        return cls(path, reader, facts, remedy)

    def __len__(self) -> int:
        """Rows."""
        return self._rows

    def row(self, number: int) -> PackedRow:
        """The segments of row `number` (from 0), in their order. IndexError beyond the last; ArtifactError for a
        damaged file."""
        if not 0 <= number < self._rows:
            raise IndexError(f"row {number} of {self._rows} in {self.path}")
        batch = self._batch(number // self._rows_per_batch)
        place = number % self._rows_per_batch
        begin, end = int(batch.ends[place]), int(batch.ends[place + 1])
        starts, lengths, continues = batch.segments
        return PackedRow(starts[begin:end], lengths[begin:end], continues[begin:end])

    def rows(self, numbers: Iterable[int]) -> Iterator[PackedRow]:
        """The rows of these numbers, in the order asked for."""
        return map(self.row, numbers)

    def _batch(self, number: int) -> _Batch:
        batch = self._batches.get(number)
        if batch is None:
            batch = self._batches[number] = self._read(number)
        return batch

    def _record_batch(self, number: int) -> Any:
        try:
            batch = self._reader.get_batch(number)
            batch.validate()
        except (OSError, ValueError, pa.ArrowException) as error:
            raise self._broken(str(error)) from error
        return batch

    def _read(self, number: int) -> _Batch:
        batch = self._record_batch(number)
        starts, lengths, continues = batch.columns
        if number < self._reader.num_record_batches - 1 and batch.num_rows != self._rows_per_batch:
            raise self._broken(f"record batch {number} has {batch.num_rows} rows, not {self._rows_per_batch}")
        segments = PackedRow(_values(starts), _values(lengths), _values(continues).view(np.bool_))
        if len({len(each) for each in segments}) != 1:
            raise self._broken(f"the columns of record batch {number} differ in their lengths")
        return _Batch(starts.offsets.to_numpy(zero_copy_only=True), segments)

    def _broken(self, why: str) -> ArtifactError:
        return ArtifactError(f"{self.path} cannot be read: {why}", self._remedy)


def _values(column: Any) -> Any:
    return column.values.to_numpy(zero_copy_only=True)


def _facts(schema: pa.Schema) -> dict[str, Any]:
    try:
        found = json.loads((schema.metadata or {}).get(FACTS, b"{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
