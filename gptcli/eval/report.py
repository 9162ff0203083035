"""report.html: what was measured of a model, with its intervals, pictures and some of the items."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gptcli.eval.pictures import confusion_matrix, interval, reliability_diagram
from gptcli.page import cards, code, fold, note, page, safe, section, table
from gptcli.scoring.classes import INVALID
from gptcli.scoring.judged import Judged

PAGE = "report.html"
_SHOWN = 5  # items of a task that were wrong, and as many that were right
_HEAD = 600  # characters of a text that is shown
_MOST_SOURCES = 200
_MOST_CLASSES = 24  # shown unasked; more unfold, and their confusions as numbers are in report.json
_LARGE = 1e5  # numbers from which on decimals say nothing
_CARDS = (
    ("bits_per_byte", "bits per byte", "{:.4f}"),
    ("loss", "loss", "{:.4f}"),
    ("perplexity", "perplexity", "{:.2f}"),
    ("accuracy", "next token", "{:.2%}"),
    ("word_perplexity", "word perplexity", "{:.1f}"),
    ("ece", "calibration error", "{:.4f}"),
    ("chat_loss", "chat loss", "{:.4f}"),
)


def render_report(report: Mapping[str, Any], judged: Mapping[str, Sequence[Judged]]) -> str:
    """One HTML page that loads nothing and holds no time: equal arguments give equal bytes.

    `report` is report.json's content, `judged` the items of each task.
    """
    figures, intervals = report["figures"], report["intervals"]
    body = [
        f"<h1>{safe(report['model'])}</h1>",
        note("Intervals hold 95 % of what other samples of as many documents or items would give (bootstrap)."),
        cards(_cards(figures, intervals, report["tasks"])),
        section("Tasks", _tasks(report["tasks"], intervals)),
        *(_task(name, told, judged.get(name, ())) for name, told in report["tasks"].items()),
        section("Text", _text(report), _sources(report.get("sources", []))),
        section("Calibration", *_calibration(report)),
        section("The harness", _harness(report.get("harness", {}))),
        section("All figures", _all_figures(figures, intervals)),
        section("The spec", _spec(report["spec"])),
    ]
    return page(f"{report['model']}: evaluation", "".join(body))


def _cards(figures: Mapping[str, Any], intervals: Mapping[str, Any], tasks: Mapping[str, Any]) -> list[Any]:
    found = [
        (label, _shown(form, figures[name]), _between(intervals.get(name), form))
        for name, label, form in _CARDS
        if figures.get(name) is not None
    ]
    for name, told in list(tasks.items())[:6]:
        first = f"{name}.{told['first']}"
        if figures.get(first) is not None:
            found.append((first, f"{figures[first]:.4g}", _between(intervals.get(first), "{:.4g}")))
    return found


def _between(ends: Any, form: str) -> str:
    return f"{_shown(form, ends[0])} to {_shown(form, ends[1])}" if ends else ""


def _shown(form: str, value: float) -> str:
    return form.format(value) if abs(value) < _LARGE else f"{value:.3g}"


def _tasks(tasks: Mapping[str, Any], intervals: Mapping[str, Any]) -> str:
    if not tasks:
        return ""
    rows = []
    for name, told in tasks.items():
        for figure, value in told["figures"].items():
            ends: Any = intervals.get(f"{name}.{figure}")
            is_share = ends is not None and ends[0] >= 0 and ends[1] <= 1
            drawn = interval(value, ends[0], ends[1], 0.0, 1.0) if is_share else ""
            is_first = figure == told["first"]
            head = safe(name) + f"<small>{told['items']:,} items</small>" if is_first else ""
            rows.append((head or safe(name), code(figure), _number(value), _ends(ends), drawn))
    return table(("task", "figure", "value", "95 %", ""), rows, numbers=(2, 3))


def _number(value: Any) -> str:
    return "no number" if value is None else f"{value:.4f}" if abs(value) < _LARGE else f"{value:.4g}"


def _ends(ends: Any) -> str:
    return f"{_number(ends[0])} to {_number(ends[1])}" if ends else ""


def _task(name: str, told: Mapping[str, Any], judged: Sequence[Judged]) -> str:
    tables = told.get("tables", {})
    parts = [_notes(told)]
    if "classes" in tables:
        parts += [_classes(tables["classes"]), _confusion(tables["confusion"])]
    if "metrics" in tables:
        told_metrics = tables["metrics"]
        parts.append(table(told_metrics["columns"], [tuple(map(safe, row)) for row in told_metrics["rows"]]))
    parts += [note(f"{key.replace('_', ' ')}: {tables[key]}") for key in ("method", "zero_division") if key in tables]
    wrong = [row for row in judged if not next(iter(row.scores.values()), 0.0)]
    right = [row for row in judged if next(iter(row.scores.values()), 0.0)]
    for word, rows in (("wrong", wrong), ("right", right)):
        if rows:
            label = f'{word} <span class="count">{len(rows):,}, the first {min(len(rows), _SHOWN)}</span>'
            parts.append(fold(label, "".join(map(_item, rows[:_SHOWN])), "reason"))
    return section(name, *parts)


def _notes(told: Mapping[str, Any]) -> str:
    said = [f"{told['kind'].replace('_', ' ')}, {told['items']:,} items"]
    said += [f"{count:,} left out: {reason}" for reason, count in told["left_out"].items()]
    if told["cut"]:
        said.append(f"{told['cut']:,} items longer than the model's context lost their beginning")
    if told.get("contamination"):
        groups = told["contamination"]
        said.append(
            f"{groups['dirty']:,} share 13 words in a row with the train split, {groups['untold']:,} are too short to "
            "tell"
        )
    return note("; ".join(said))


def _classes(told: Mapping[str, Any]) -> str:
    def rows(of: Sequence[Any]) -> str:
        cells = [
            (safe(row[0]), *(f"{value:.4f}" for value in row[1:4]), *(f"{count:,}" for count in row[4:])) for row in of
        ]
        return table(told["columns"], cells, numbers=tuple(range(1, len(told["columns"]))))

    if len(told["rows"]) <= _MOST_CLASSES:
        return rows([*told["rows"], *told["averages"]])
    return rows(told["averages"]) + fold(f"all {len(told['rows'])} classes", rows(told["rows"]))


def _confusion(told: Mapping[str, Any]) -> str:
    columns, rows = told["columns"][1:], told["rows"]
    counts = [row[1:] for row in rows]
    if columns[-1] == INVALID and not any(line[-1] for line in counts):
        columns, counts = columns[:-1], [line[:-1] for line in counts]
    parts = ["<h3>Confusion</h3>", note("Rows are true classes, columns answers; a cell tells its number.")]
    parts.append(confusion_matrix([row[0] for row in rows], columns, counts))
    if len(rows) <= _MOST_CLASSES:
        cells = [(safe(row[0]), *map(str, line)) for row, line in zip(rows, counts, strict=True)]
        parts.append(fold("as numbers", table(["answer", *columns], cells, tuple(range(1, len(columns) + 1)))))
    return "".join(parts)


def _item(row: Judged) -> str:
    told = [("asked", row.prompt), ("right", row.answer), ("answered", row.prediction)]
    lines = "".join(f"<p>{label}</p><pre>{safe(_head(text))}</pre>" for label, text in told)
    return f"<article><p>{safe(row.where)}</p>{lines}</article>"


def _head(text: str) -> str:
    return text if len(text) <= _HEAD else f"{text[:_HEAD]} … ({len(text):,} characters)"


def _text(report: Mapping[str, Any]) -> str:
    figures = report["figures"]
    if figures.get("loss") is None:
        return ""
    said = (
        f"{report['scored']}: {figures['tokens']:,} tokens of {figures['documents']:,} documents, "
        f"{figures['text_bytes']:,} bytes, in windows of {figures['seq_len']:,}."
    )
    rows = [
        (safe(label), *(f"{figures[prefix + name]:.4f}" if prefix + name in figures else "" for name in _OF_TEXT))
        for label, prefix in (
            ("windows over the documents end to end", ""),
            ("windows that overlap", "sliding."),
            ("each document alone", "per_document."),
        )
        if prefix + "loss" in figures
    ]
    return note(said) + table(("", "loss", "bits per byte", "next token"), rows, numbers=(1, 2, 3))


_OF_TEXT = ("loss", "bits_per_byte", "accuracy")


def _sources(sources: Sequence[Mapping[str, Any]]) -> str:
    if len(sources) < 2:
        return ""
    rows = [
        (
            safe(told["source"]),
            f"{told['documents']:,}",
            f"{told['tokens']:,}",
            f"{told['loss']:.4f}",
            f"{told['bits_per_byte']:.4f}",
        )
        for told in sources[:_MOST_SOURCES]
    ]
    more = len(sources) - len(rows)
    rest = note(f"and {more:,} more sources in report.json") if more else ""
    return (
        "<h3>By source</h3>"
        + table(("source", "documents", "tokens", "loss", "bits per byte"), rows, (1, 2, 3, 4))
        + rest
    )


def _calibration(report: Mapping[str, Any]) -> Iterable[str]:
    bins = report.get("calibration", {}).get("equal_width", [])
    if not bins:
        return ()
    said = (
        "How often the likeliest token is right, over how likely the model thinks it; the size of a dot is its tokens."
    )
    filled = [
        (int(each["tokens"]), float(each["confidence"]), float(each["accuracy"])) for each in bins if each["tokens"]
    ]
    return note(said), reliability_diagram(filled)


def _harness(told: Mapping[str, Any]) -> str:
    if not told:
        return ""
    rows = [(code(name), _number(value)) for name, value in told["figures"].items()]
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    return note(f"lm-evaluation-harness {told['version']}; versions of the tasks: {versions}") + table(
        ("figure", "value"), rows, numbers=(1,)
    )


def _all_figures(figures: Mapping[str, Any], intervals: Mapping[str, Any]) -> str:
    rows = [
        (
            code(name),
            f"{value:,}" if isinstance(value, int) else f"{value:.6g}",
            _between(intervals.get(name), "{:.6g}"),
        )
        for name, value in figures.items()
        if isinstance(value, int | float)
    ]
    return fold(f"{len(rows)} figures", table(("figure", "value", "95 %"), rows, numbers=(1, 2)))


def _spec(spec: Mapping[str, Any]) -> str:
    rows = [(code(key), safe(json.dumps(value, ensure_ascii=False))) for key, value in sorted(spec.items())]
    return fold("every key", table(("key", "value"), rows))
