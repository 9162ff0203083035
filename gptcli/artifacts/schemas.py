"""The columns of the Arrow shards.

Plain columns, no dictionaries: the IPC file format refuses a second, differing dictionary batch.
"""

from __future__ import annotations

import pyarrow as pa

SPLITS = ("train", "val", "test")

CORPUS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),  # 128-bit content hash, hex
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),  # as the user typed it
        pa.field("member", pa.string()),  # of an archive
        pa.field("source_offset", pa.int64(), nullable=False),  # bytes into the decompressed source
        pa.field("source_bytes", pa.int64(), nullable=False),
        pa.field("license", pa.string()),
        pa.field("meta", pa.string()),  # JSON
    ]
)

DROPPED_SCHEMA = pa.schema(  # what was left out of a corpus, and why
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("member", pa.string()),
        pa.field("source_offset", pa.int64(), nullable=False),
        pa.field("source_bytes", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("value", pa.string()),  # what the rule measured; of a duplicate, its similarity
        pa.field("kept_id", pa.string()),  # the document that stands in a duplicate's place
    ]
)


def _tokens_schema(id_type: pa.DataType) -> pa.Schema:
    return pa.schema(
        [
            pa.field("document", pa.string(), nullable=False),  # the corpus id
            pa.field("bytes", pa.int64(), nullable=False),  # UTF-8 length of the stored text
            pa.field("tokens", pa.large_list(id_type), nullable=False),
        ]
    )


TOKENS16_SCHEMA = _tokens_schema(pa.uint16())  # up to 65,536 ids
TOKENS32_SCHEMA = _tokens_schema(pa.uint32())
