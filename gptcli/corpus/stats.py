"""What a corpus's manifest tells: everything read is kept in a split or counted under a reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gptcli.artifacts.schemas import SPLITS
from gptcli.corpus.catalogue import Catalogue, Ints
from gptcli.corpus.decisions import Decision, percentiles
from gptcli.corpus.plan import Unit
from gptcli.corpus.spec import SourceTable
from gptcli.corpus.units import Counts


def corpus_stats(
    units: Sequence[Unit], catalogue: Catalogue, decision: Decision, tables: Sequence[SourceTable], rows: dict[str, int]
) -> dict[str, Any]:
    """The whole's figures and each source's; `rows`: of every shard by name."""
    by_source = [Counts() for _ in tables]
    for unit, counts in zip(units, catalogue.counts, strict=True):
        by_source[unit.source].add(counts)
    whole = Counts()
    for number, counts in enumerate(by_source):
        for reason, count in _left_out_later(decision, catalogue.sources == number).items():
            counts.left_out[reason] = counts.left_out.get(reason, 0) + count
        whole.add(counts)
    return {
        **_figures(whole, catalogue, decision, decision.kept),
        "copies": int((decision.copies[decision.kept] - 1).sum()),
        "splits": {split: _split(number, split, catalogue, decision, rows) for number, split in enumerate(SPLITS)},
        "sources": [
            {
                "source": table.name,
                "license": table.license,
                "weight": table.weight,
                **_figures(counts, catalogue, decision, decision.kept & (catalogue.sources == number)),
            }
            for number, (table, counts) in enumerate(zip(tables, by_source, strict=True))
        ],
        "faults": [{"path": name, "fault": fault} for name, fault in whole.faults],
        "without_text": [
            {"path": name, "text_key": table.text_key, "columns": keys}
            for table, counts in zip(tables, by_source, strict=True)
            for found in [set(counts.with_text)]
            for name, keys in sorted(counts.columns.items())
            if name not in found
        ],
    }


def _left_out_later(decision: Decision, chosen: Ints) -> dict[str, int]:
    """What the last pass left out, by reason."""
    counted = np.bincount(decision.reasons[chosen], minlength=len(decision.names))
    return {name: int(count) for name, count in zip(decision.names, counted, strict=True) if name and count}


def _figures(counts: Counts, catalogue: Catalogue, decision: Decision, kept: Ints) -> dict[str, Any]:
    return {
        "documents_read": counts.read,
        "documents": int(kept.sum()),
        "bytes": int(catalogue.bytes[kept].sum()),
        "chars": int(catalogue.chars[kept].sum()),
        "left_out": dict(sorted(counts.left_out.items())),
        "rewritten": dict(sorted(counts.rewritten.items())),
        "languages": dict(sorted(counts.languages.items(), key=lambda found: (-found[1], found[0]))),
        "length_chars": percentiles(catalogue.chars[kept]),
        "invalid_bytes": counts.invalid,
    }


def _split(number: int, split: str, catalogue: Catalogue, decision: Decision, rows: dict[str, int]) -> dict[str, int]:
    chosen = decision.kept & (decision.splits == number)
    copies = decision.copies[chosen].astype(np.int64)
    shards = [name for name in rows if name.startswith(f"{split}-")]
    return {
        "documents": sum(rows[name] for name in shards),
        "bytes": int((catalogue.bytes[chosen] * copies).sum()),
        "chars": int((catalogue.chars[chosen] * copies).sum()),
        "shards": len(shards),
    }
