"""What a person would want to know at once: errors that end a run early, and warnings at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from gptcli.corpus.catalogue import Catalogue
from gptcli.corpus.decisions import Decision
from gptcli.corpus.plan import Unit
from gptcli.corpus.spec import CorpusSpec
from gptcli.corpus.units import Counts
from gptcli.errors import SpecError
from gptcli.progress import Progress

_MOST_TOLD = 5  # warnings of one kind
_SHOWN_CHARS = 80  # of a document
_MANY_ALIKE = 0.5  # share of documents removed as duplicates at which one should look


def require_text(units: Sequence[Unit], counts: Sequence[Counts], single: Collection[int]) -> None:
    """SpecError where a file that was named by itself has rows, and none with the text key.

    counts: of each unit; single: the numbers of the sources that are one file.
    """
    with_text = {name for one in counts for name in one.with_text}
    for unit, one in zip(units, counts, strict=True):
        for name, keys in one.columns.items():
            if unit.source in single and name not in with_text:
                raise SpecError(
                    f"no row of {name} has the text key {unit.options.text_key}; the keys there are: {', '.join(keys)}",
                    "name one of them with --set text_key=KEY, or for this source alone in the recipe: "
                    f'source = [{{path = "{name}", text_key = "KEY"}}]',
                )


def require_some(catalogue: Catalogue, decision: Decision, spec: CorpusSpec) -> None:
    """SpecError where no document is left."""
    if decision.kept.any():
        return
    reasons: Counter[str] = Counter()
    for counts in catalogue.counts:
        reasons.update(counts.left_out)
    reasons.update({name: decision.count(name) for name in decision.names if name})
    told = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()) if count)
    names = [table.name for table in spec.tables()]
    more = f" and {len(names) - _MOST_TOLD} more sources" if len(names) > _MOST_TOLD else ""
    raise SpecError(
        f"no document is left of {sum(counts.read for counts in catalogue.counts)} read "
        f"from {', '.join(names[:_MOST_TOLD])}{more}: {told}",
        'a file of many documents wants separator = "blank_lines", "line" or a regular expression'
        if "too_long" in reasons
        else "check the sources and the filters",
    )


def tell(stats: dict[str, Any], samples: dict[str, list[dict[str, str]]], spec: CorpusSpec, progress: Progress) -> None:
    """Warn of damage, of files that gave nothing, of invalid bytes, of much that is alike, and of empty splits."""
    _few(
        progress,
        [
            f"{found['path']} is damaged ({found['fault']}); what could be read of it is kept"
            for found in stats["faults"]
        ],
        "files are damaged",
    )
    _few(
        progress,
        [
            f"{found['path']} has no column {found['text_key']}; there are: {', '.join(found['columns'][:20])}"
            for found in stats["without_text"]
        ],
        "files have no text column",
    )
    for found in [found for found in stats["sources"] if found["invalid_bytes"]][:_MOST_TOLD]:
        progress.warn(
            f"{found['source']}: {found['invalid_bytes']:,} bytes are not valid in its encoding and became U+FFFD; "
            "--set encoding=latin-1 reads Western European text"
        )
    alike = sum(stats["left_out"].get(reason, 0) for reason in ("duplicate", "near_duplicate"))
    if alike > _MANY_ALIKE * stats["documents_read"]:
        progress.warn(
            f"{100 * alike / stats['documents_read']:.0f} % of the documents are like another one; "
            "report.html shows more of them than these:"
        )
        alike_ones = [*samples.get("duplicate", []), *samples.get("near_duplicate", [])]
        for found in alike_ones[:: max(1, len(alike_ones) // _MOST_TOLD)][:_MOST_TOLD]:
            progress.warn(f"  {found['path']} ({found['value']}): {found['text'][:_SHOWN_CHARS]!r}")
    for split, share in (("val", spec.val_share), ("test", spec.test_share), ("train", 1)):
        if share and not stats["splits"][split]["documents"]:
            progress.warn(
                f"the {split} split is empty: {stats['documents']} documents are few; "
                'a separator ("blank_lines", "line") or a larger share gives it some'
            )


def _few(progress: Progress, lines: list[str], rest: str) -> None:
    for line in lines[:_MOST_TOLD]:
        progress.warn(line)
    if len(lines) > _MOST_TOLD:
        progress.warn(f"{len(lines) - _MOST_TOLD} more {rest}; the manifest names them")
