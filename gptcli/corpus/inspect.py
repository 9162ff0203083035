"""`gptcli corpus --show N`: a finished corpus's figures, source by source, and its first documents."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from gptcli.artifacts.build import partial_path
from gptcli.artifacts.manifest import FORMAT_VERSIONS, MANIFEST, Manifest, read_manifest
from gptcli.artifacts.project import Project
from gptcli.artifacts.schemas import SPLITS
from gptcli.artifacts.shards import open_shard, shard_paths
from gptcli.console import Report, human_bytes, print_columns, print_report, print_rows
from gptcli.corpus.spec import FOLDER, KIND, summary
from gptcli.errors import ArtifactError

_SHOWN_CHARS = 200  # of a document's text, for a person
_TOP_LANGUAGES = 3  # of a source
_TOP_REASONS = 4  # of a source where the table has to be plain; --json has all

HEADER = ("source", "licence", "read", "kept", "share", "text", "p5 / p50 / p95 chars", "languages", "left out")
_NUMBERS = ("read", "kept", "share", "text", "p5 / p50 / p95 chars")


def show(project: Project, name: str, count: int) -> Report:
    """The first `count` documents of every split, and what was left out and why, by source.

    Raises ArtifactError when corpus/NAME isn't there, is broken, or was made by an older gptcli.
    """
    place = project.place(FOLDER, name)
    stats = finished(place).stats
    documents = [found for split in SPLITS for found in _first(project, name, split, count)]
    return Report(f"corpus {name}", project.relative(place), {**stats, "shown": documents}, summary(stats))


def finished(place: Path) -> Manifest:
    """The manifest of a finished corpus in today's format; ArtifactError naming the command that makes it if not."""
    try:
        manifest = read_manifest(place, KIND)
    except ArtifactError as error:
        if (place / MANIFEST).exists():
            raise
        if place.exists() or partial_path(place).exists():
            raise ArtifactError(
                f"the corpus {place.name} is not finished", "run the command that makes it again: it goes on"
            ) from error
        raise ArtifactError(
            f"there is no corpus {place.name}", f"gptcli corpus SOURCE --name {place.name} makes it"
        ) from error
    if manifest.format_version < FORMAT_VERSIONS[KIND]:  # what left it, and the figures of its sources, are not told
        raise ArtifactError(
            f"the corpus {place.name} was made by an older gptcli",
            f"gptcli corpus --name {place.name} --update rebuilds it",
        )
    return manifest


def print_shown(report: Report, as_json: bool) -> None:
    """Print what `show` found: for a person with a table of the sources, ruled on a terminal."""
    if as_json:
        print_report(report, as_json)
        return
    print(report.title)
    print_rows(report.table)
    print()
    is_terminal = sys.stdout.isatty()
    rows = [_source_row(found, None if is_terminal else _TOP_REASONS) for found in report.figures["sources"]]
    if is_terminal:
        _print_ruled(rows)
    else:
        print_columns(HEADER, rows)
    documents = report.figures["shown"]
    if documents:
        print()
    print_rows(
        [
            (f"{found['split']} {found['id'][:8]}", f"{found['path']}: {found['text'][:_SHOWN_CHARS]!r}")
            for found in documents
        ]
    )
    print(f"  → {report.path}", flush=True)


def _source_row(found: dict[str, Any], most_reasons: int | None) -> tuple[str, ...]:
    read, kept, lengths = found["documents_read"], found["documents"], found["length_chars"]
    return (
        found["source"],
        found["license"] or "unknown",
        f"{read:,}",
        f"{kept:,}",
        f"{100 * kept / read:.1f} %" if read else "–",
        human_bytes(found["bytes"]),
        " / ".join(f"{lengths[key]:,}" for key in ("p5", "p50", "p95")) if lengths else "–",
        _most(found["languages"], _TOP_LANGUAGES) or "–",
        _most(found["left_out"], most_reasons) or "nothing",
    )


def _most(counts: dict[str, int], most: int | None) -> str:
    """Names with their counts, most frequent first, and how many more there are."""
    ordered = sorted(counts.items(), key=lambda found: (-found[1], found[0]))
    told = [f"{number:,} {name}" for name, number in ordered[:most]]
    rest = len(ordered) - len(told)
    return ", ".join([*told, f"{rest} more"] if rest else told)


def _print_ruled(rows: list[tuple[str, ...]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in HEADER:
        table.add_column(name, justify="right" if name in _NUMBERS else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # as text: a source's name is no markup
    Console().print(table)


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
