"""report.html: what went into a corpus, what came out, and why the rest did not; figures, plots and samples."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gptcli.console import human_bytes, human_count
from gptcli.corpus.reasons import Thresholds, about
from gptcli.page import Bar, Box, bars, boxes, cards, code, fold, lines, note, page, safe, section, table

REPORT = "report.html"
KEPT = "kept"  # the reason of the samples of what was kept
_MOST_BARS = 40  # of one chart; tables hold all
_MOST_ROWS = 500  # of the tables of files
_MOST_COLUMNS = 30  # told of a file without a text column
_TOP_LANGUAGES = 3  # of a source, in the table
_KEYS = ("p5", "p25", "p50", "p75", "p95")


def render_report(
    stats: Mapping[str, Any],
    samples: Mapping[str, Sequence[Mapping[str, Any]]],
    spec: Mapping[str, Any],
) -> str:
    """One HTML page that loads nothing and holds no time: equal arguments give equal bytes.

    stats: the manifest's; samples: reason (or "kept") → the documents of samples.json; spec: the resolved one.
    The corpus's name stands nowhere: corpora that differ in it alone have equal reports.
    """
    limits = Thresholds(spec)
    body = [
        "<h1>Corpus</h1>",
        note(
            f"{len(stats['sources'])} source{'' if len(stats['sources']) == 1 else 's'}; everything read is kept "
            "in a split or counted under a reason."
        ),
        cards(_figures(stats)),
        section("What became of what was read", _legend(), _outcomes(stats), _reasons_table(stats, limits)),
        section("Sources", _shares(stats["sources"]), _sources_table(stats["sources"])),
        section("Lengths", *_lengths(stats)),
        section("Languages", *_languages(stats)),
        section("Changed on the way", *_rewritten(stats)),
        section("Damaged files", *_faults(stats)),
        section("Files without a text column", *_without_text(stats)),
        section("Samples", _kept_samples(samples.get(KEPT, [])), *_dropped_samples(samples, stats, limits)),
        section("The spec", _spec(spec)),
    ]
    return page("Corpus", "".join(body))


def _figures(stats: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    read, kept = stats["documents_read"], stats["documents"]
    splits = stats["splits"]
    found = [
        ("read", f"{read:,}", "documents"),
        ("kept", f"{kept:,}", f"{share(kept, read)} of the documents"),
        ("left out", f"{read - kept:,}", f"for {_count(len(stats['left_out']), 'reason')}"),
        ("text", human_bytes(stats["bytes"]), f"{human_count(stats['chars'])} characters"),
    ]
    found += [
        (split, f"{told['documents']:,}", f"{human_bytes(told['bytes'])}, {_count(told['shards'], 'shard')}")
        for split, told in splits.items()
    ]
    if stats.get("copies"):
        found.append(("further copies", f"{stats['copies']:,}", "by the sources' weights"))
    if stats.get("paragraphs_removed"):
        found.append(("paragraphs", f"{stats['paragraphs_removed']:,}", "that earlier documents have, taken out"))
    if stats["invalid_bytes"]:
        found.append(("invalid bytes", f"{stats['invalid_bytes']:,}", "replaced by U+FFFD"))
    return found


def _legend() -> str:
    return '<p class="note"><span class="key kept"></span>kept<span class="key dropped"></span>left out</p>'


def _outcomes(stats: Mapping[str, Any]) -> str:
    read = max(stats["documents_read"], 1)
    by_count = _by_count(stats["left_out"])
    rows = [_outcome("kept", stats["documents"], read, KEPT)]
    rows += [_outcome(reason, count, read, "dropped") for reason, count in by_count[:_MOST_BARS]]
    rest = sum(count for _, count in by_count[_MOST_BARS:])
    if rest:
        rows.append(_outcome(f"{len(by_count) - _MOST_BARS} more reasons", rest, read, "dropped"))
    return bars(rows)


def _outcome(reason: str, count: int, read: int, kind: str) -> Bar:
    value = f"{count:,} · {share(count, read)}"
    return Bar(reason, ((count / read, kind),), value, f"{reason}: {count:,} of {read:,} documents")


def _reasons_table(stats: Mapping[str, Any], limits: Thresholds) -> str:
    if not stats["left_out"]:
        return note("Nothing was left out.")
    rows = [
        (
            code(reason),
            f"{count:,}",
            share(count, stats["documents_read"]),
            safe(about(reason)),
            code(limits.of(reason)),
        )
        for reason, count in _by_count(stats["left_out"])
    ]
    return "<h3>Reasons</h3>" + table(("reason", "documents", "share", "meaning", "threshold"), rows, (1, 2))


def _shares(sources: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for found in sources[:_MOST_BARS]:
        read = max(found["documents_read"], 1)
        kept = found["documents"] / read
        value = f"{share(found['documents'], found['documents_read'])} of {found['documents_read']:,}"
        gone = 1 - kept if found["documents_read"] else 0.0
        rows.append(
            Bar(found["source"], ((kept, "kept"), (gone, "dropped")), value, f"{found['source']}: {value} kept")
        )
    return bars(rows) + _more(len(sources))


def _sources_table(sources: Sequence[Mapping[str, Any]]) -> str:
    header = ("source", "read", "kept", "text", "median length", "languages", "left out")
    rows = [
        (
            lines(safe(found["source"]), _licence(found)),
            f"{found['documents_read']:,}",
            lines(f"{found['documents']:,}", share(found["documents"], found["documents_read"])),
            human_bytes(found["bytes"]),
            lines(_chars(found["length_chars"].get("p50")), _range(found["length_chars"])),
            safe(_top(found["languages"])),
            _reasons_of(found),
        )
        for found in sources
    ]
    lengths = note("Lengths: characters of the documents kept; below the median the 5th and the 95th percentile.")
    return "<h3>Source by source</h3>" + table(header, rows, (1, 2, 3, 4)) + lengths


def _licence(found: Mapping[str, Any]) -> str:
    weight = "" if found["weight"] == 1 else f", weight {found['weight']:g}"
    return f"licence {safe(found['license'] or 'unknown')}{weight}"


def _reasons_of(found: Mapping[str, Any]) -> str:
    by_count = _by_count(found["left_out"])
    if not by_count:
        return "nothing"
    listed = "".join(f"<li>{count:,} {code(reason)}</li>" for reason, count in by_count)
    told = f'<ul class="plain">{listed}</ul>'
    if len(by_count) <= 3:
        return told
    return fold(f"{sum(found['left_out'].values()):,} for {len(by_count)} reasons", told)


def _lengths(stats: Mapping[str, Any]) -> list[str]:
    told = [("all", stats["length_chars"])]
    if len(stats["sources"]) > 1:
        told += [(found["source"], found["length_chars"]) for found in stats["sources"][:_MOST_BARS]]
    told = [(label, found) for label, found in told if found]
    if not told:
        return []
    least = min(found["p5"] for _, found in told)
    most = max(found["p95"] for _, found in told)
    low, high = math.floor(math.log10(max(least, 1))), math.ceil(math.log10(max(most, 10)))
    high = max(high, low + 1)

    def place(value: int) -> float:
        return (math.log10(max(value, 1)) - low) / (high - low)

    rows = [
        Box(
            label,
            tuple(place(found[key]) for key in _KEYS),
            f"{_chars(found['p50'])} characters" if label == "all" else _chars(found["p50"]),
            f"{label}: " + ", ".join(f"{key} {found[key]:,}" for key in _KEYS) + " characters",
        )
        for label, found in told
    ]
    ticks = [((power - low) / (high - low), human_count(10**power)) for power in range(low, high + 1)]
    meaning = note(
        "Characters of the documents kept, on a logarithmic scale: the line reaches from the 5th to the 95th "
        "percentile, the box from the 25th to the 75th; the bar in it, and the figure, are the median."
    )
    return [meaning, boxes(rows, ticks), _more(len(stats["sources"])) if len(told) > 1 else ""]


def _languages(stats: Mapping[str, Any]) -> list[str]:
    found = stats["languages"]
    if not found:
        return []
    total = sum(found.values())
    by_count = _by_count(found)
    rows = [
        Bar(code, ((count / total, KEPT),), f"{count:,} · {share(count, total)}")
        for code, count in by_count[:_MOST_BARS]
    ]
    rest = sum(count for _, count in by_count[_MOST_BARS:])
    if rest:
        rows.append(Bar(f"{len(by_count) - _MOST_BARS} more", ((rest / total, KEPT),), f"{rest:,}"))
    return [note(f"Of the {total:,} documents that the language filter measured, kept or not."), bars(rows)]


def _rewritten(stats: Mapping[str, Any]) -> list[str]:
    rows = [(code(what), f"{count:,}") for what, count in _by_count(stats["rewritten"])]
    told = "What filters cut out or replaced, in the documents that passed them all."
    return [note(told), table(("filter:what", "times"), rows, (1,))] if rows else []


def _faults(stats: Mapping[str, Any]) -> list[str]:
    found = stats["faults"]
    rows = [(safe(fault["path"]), safe(fault["fault"])) for fault in found[:_MOST_ROWS]]
    return [note("What could be read of them is kept."), table(("file", "fault"), rows), _cut(found)] if found else []


def _without_text(stats: Mapping[str, Any]) -> list[str]:
    found = stats["without_text"]
    rows = [(safe(file["path"]), safe(_columns(file["columns"]))) for file in found[:_MOST_ROWS]]
    told = "No row of them has the text key; name another with text_key, for a source or for all."
    return [note(told), table(("file", "columns there are"), rows), _cut(found)] if found else []


def _columns(names: Sequence[str]) -> str:
    more = f", and {len(names) - _MOST_COLUMNS} more" if len(names) > _MOST_COLUMNS else ""
    return (", ".join(names[:_MOST_COLUMNS]) or "none") + more


def _cut(found: Sequence[Any]) -> str:
    return note(f"and {len(found) - _MOST_ROWS:,} more; the manifest names all") if len(found) > _MOST_ROWS else ""


def _kept_samples(found: Sequence[Mapping[str, Any]]) -> str:
    told = f'<span class="count">· {len(found)} shown</span>'
    return fold(f"{KEPT} {told}", "".join(_samples(found, "")), kind="reason") if found else ""


def _samples(found: Iterable[Mapping[str, Any]], limit: str) -> list[str]:
    return [_sample(sample, limit) for sample in found]


def _sample(sample: Mapping[str, Any], limit: str) -> str:
    measured = f' · measured <b class="measured">{safe(sample["value"])}</b>' if sample.get("value") else ""
    wanted = f" · {safe(limit)}" if limit and measured else ""
    text = sample.get("text") or ""
    shown = f'<pre dir="auto">{safe(text)}</pre>' if text else "<p>no text</p>"
    told = f"<p><code>{safe(sample['id'])}</code> · {safe(sample['path'])}{measured}{wanted}</p>"
    return f"<article>{told}{shown}</article>"


def _dropped_samples(
    samples: Mapping[str, Sequence[Mapping[str, Any]]], stats: Mapping[str, Any], limits: Thresholds
) -> list[str]:
    parts = []
    for reason, count in _by_count(stats["left_out"]):
        found = samples.get(reason, [])
        if found:
            part = share(count, stats["documents_read"])
            told = f'<span class="count">· {count:,} documents, {part}; {len(found)} shown</span>'
            inside = note(about(reason)) + "".join(_samples(found, limits.of(reason)))
            parts.append(fold(f"{safe(reason)} {told}", inside, kind="reason"))
    return parts


def _spec(spec: Mapping[str, Any]) -> str:
    rows = [(code(key), f"<code>{safe(json.dumps(value, ensure_ascii=False))}</code>") for key, value in spec.items()]
    return fold("every key that decides what the corpus holds", table(("key", "value"), rows)) if rows else ""


def _by_count(found: Mapping[str, int]) -> list[tuple[str, int]]:
    """Most frequent first, then by name."""
    return sorted(found.items(), key=lambda one: (-one[1], one[0]))


def share(count: int, whole: int) -> str:
    """A share in per cent: with a decimal below ten, and never 0 or 100 where it isn't."""
    if not whole:
        return "–"
    percent = 100 * count / whole
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    return f"{percent:.0f} %" if percent >= 10 and (percent < 99 or percent == 100) else f"{percent:.1f} %"


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _chars(count: int | None) -> str:
    return "–" if count is None else f"{count:,}"


def _range(found: Mapping[str, int]) -> str:
    return f"{found['p5']:,} – {found['p95']:,}" if found else "–"


def _top(languages: Mapping[str, int]) -> str:
    total = max(sum(languages.values()), 1)
    return ", ".join(f"{code} {share(count, total)}" for code, count in _by_count(languages)[:_TOP_LANGUAGES]) or "–"


def _more(sources: int) -> str:
    return note(f"and {sources - _MOST_BARS:,} more sources, in the table") if sources > _MOST_BARS else ""
