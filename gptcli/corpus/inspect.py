"""`gptcli corpus --show N`: a finished corpus's counts and first documents."""

from __future__ import annotations

from typing import Any

from gptcli.artifacts.manifest import read_manifest
from gptcli.artifacts.project import Project
from gptcli.artifacts.schemas import SPLITS
from gptcli.artifacts.shards import open_shard, shard_paths
from gptcli.console import Report
from gptcli.corpus.spec import FOLDER, KIND, summary

_SHOWN_CHARS = 200  # of a document's text, for a person


def show(project: Project, name: str, count: int) -> Report:
    """The first `count` documents of every split, and what was left out and why, by source.

    Raises ArtifactError when corpus/NAME isn't there or is broken.
    """
    place = project.place(FOLDER, name)
    stats = read_manifest(place, KIND).stats
    documents = [found for split in SPLITS for found in _first(project, name, split, count)]
    table = summary(stats)
    for found in stats["sources"]:
        left_out = ", ".join(f"{number:,} {reason}" for reason, number in found["left_out"].items()) or "nothing"
        table.append((found["source"], f"{found['documents']:,} kept; left out: {left_out}"))
    for document in documents:
        text = document["text"][:_SHOWN_CHARS]
        table.append((f"{document['split']} {document['id'][:8]}", f"{document['path']}: {text!r}"))
    return Report(f"corpus {name}", project.relative(place), {**stats, "shown": documents}, table)


def _first(project: Project, name: str, split: str, count: int) -> list[dict[str, Any]]:
    """The first documents of one split, as dicts of the shard's columns and the split's name."""
    found: list[dict[str, Any]] = []
    for path in shard_paths(project.place(FOLDER, name), split):
        reader = open_shard(path)
        for number in range(reader.num_record_batches):
            if len(found) >= count:
                return found
            rows = reader.get_batch(number).slice(0, count - len(found))
            found += [{"split": split, **row} for row in rows.to_pylist()]
    return found
