"""The bricks of a report.html: text made safe, tables, bars as inline SVG, and the page round them.

The page is one file that loads nothing; whatever stands in a document is shown, never obeyed.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Controls, and what turns the direction of text or can't be seen: shown by their numbers.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\uffff\ud800-\udfff"
    "\U000e0000-\U000e0fff]"
)
_REPLACEMENT = "\ufffd"  # is seen as it is
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src 'none'; form-action 'none'; base-uri 'none'"


def safe(text: object) -> str:
    """Any text as HTML: escaped, with every unseen character as its number in a frame."""
    return _UNSEEN.sub(_numbered, html.escape(str(text), quote=True))


def _numbered(match: re.Match[str]) -> str:
    character = match.group()
    return character if character == _REPLACEMENT else f"<s>U+{ord(character):04X}</s>"


@dataclass(frozen=True)
class Bar:
    """One row of a chart: parts of the whole width, each (share 0 … 1, class), and what stands beside it."""

    label: str
    parts: tuple[tuple[float, str], ...]
    value: str
    hint: str = ""


def bars(rows: Iterable[Bar]) -> str:
    """Horizontal bars; widths are percentages, so that text keeps its size on a narrow screen."""
    return '<div class="bars">' + "".join(_bar(row) for row in rows) + "</div>"


def _bar(row: Bar) -> str:
    begin, drawn = 0.0, ""
    for share, kind in row.parts:
        if share > 0:
            drawn += f'<rect class="{kind}" x="{_percent(begin)}" width="{_percent(share)}" height="100%" rx="2"/>'
        begin += share
    title = f"<title>{safe(row.hint)}</title>" if row.hint else ""
    return (
        f'<span class="label">{safe(row.label)}</span>'
        f'<svg class="bar" role="img" aria-label="{safe(row.hint or row.value)}">{title}'
        f'<rect class="track" width="100%" height="100%" rx="2"/>{drawn}</svg>'
        f'<span class="value">{safe(row.value)}</span>'
    )


@dataclass(frozen=True)
class Box:
    """A row of a chart of spreads: five places from 0 to 1 (whisker, box, middle, box, whisker)."""

    label: str
    places: tuple[float, ...]
    value: str
    hint: str


def boxes(rows: Iterable[Box], ticks: Sequence[tuple[float, str]]) -> str:
    """Spreads above one another over a common axis; ticks: place from 0 to 1, and its text."""
    lines = "".join(
        f'<line class="grid" x1="{_percent(place)}" x2="{_percent(place)}" y1="0" y2="100%"/>' for place, _ in ticks
    )
    axis = "".join(
        f'<text x="{_percent(place)}" y="12" text-anchor="{_anchor(place)}">{safe(text)}</text>'
        for place, text in ticks
    )
    drawn = "".join(_box(row, lines) for row in rows)
    return f'<div class="bars">{drawn}<span></span><svg class="axis" aria-hidden="true">{axis}</svg><span></span></div>'


def _box(row: Box, grid: str) -> str:
    low, begin, middle, end, high = row.places
    return (
        f'<span class="label">{safe(row.label)}</span>'
        f'<svg class="spread" role="img" aria-label="{safe(row.hint)}"><title>{safe(row.hint)}</title>{grid}'
        f'<line class="whisker" x1="{_percent(low)}" x2="{_percent(high)}" y1="50%" y2="50%"/>'
        f'<rect class="box" x="{_percent(begin)}" width="{_percent(max(end - begin, 0.004))}" y="15%" height="70%"/>'
        f'<line class="middle" x1="{_percent(middle)}" x2="{_percent(middle)}" y1="5%" y2="95%"/></svg>'
        f'<span class="value">{safe(row.value)}</span>'
    )


def _anchor(place: float) -> str:
    if place < 0.02:
        return "start"
    return "end" if place > 0.98 else "middle"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"


def cards(figures: Iterable[tuple[str, str, str]]) -> str:
    """The figures at the top: (name, value, what stands below it)."""
    return '<dl class="cards">' + "".join(_card(*figure) for figure in figures) + "</dl>"


def _card(name: str, value: str, note: str) -> str:
    below = f"<dd>{safe(note)}</dd>" if note else ""
    return f'<div><dt>{safe(name)}</dt><dd class="figure">{safe(value)}</dd>{below}</div>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table; on a narrow screen each row becomes a block that repeats the header's words.

    Cells are HTML; columns `numbers` stand right.
    """
    body = "".join(
        f"<tr>{''.join(_cell(header[at], cell, at in numbers) for at, cell in enumerate(row))}</tr>" for row in rows
    )
    head = "".join(
        f'<th scope="col"{_right(column in numbers)}>{safe(name)}</th>' for column, name in enumerate(header)
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(name: str, cell: str, is_number: bool) -> str:
    return (
        f'<td data-name="{safe(name)}"{_right(is_number)}><div>{cell}</div></td>' if cell else '<td class="empty"></td>'
    )


def _right(is_number: bool) -> str:
    return ' class="number"' if is_number else ""


def code(text: str) -> str:
    """A key or reason, which may break between its words."""
    return text and f"<code>{safe(text).replace(':', ':<wbr>').replace('_', '_<wbr>')}</code>"


def lines(first: str, *below: str) -> str:
    """A cell of several lines, the first in full size. All are HTML."""
    return first + "".join(f"<small>{line}</small>" for line in below if line)


def section(title: str, *parts: str) -> str:
    """A headed part of the page; nothing where it would be empty."""
    inside = "".join(part for part in parts if part)
    return f"<section><h2>{safe(title)}</h2>{inside}</section>" if inside else ""


def fold(summary: str, inside: str, kind: str = "plain") -> str:
    """What unfolds at a click, without a script. Both are HTML; `kind` is a class of the style sheet."""
    return f'<details class="{kind}"><summary>{summary}</summary>{inside}</details>'


def note(text: str) -> str:
    return f'<p class="note">{safe(text)}</p>'


def page(title: str, body: str) -> str:
    """The whole file."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{safe(title)}</title><style>{_STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


_STYLE = """
:root{--paper:#fbfbfa;--raised:#fff;--ink:#1c1e21;--soft:#5f666e;--rule:#e1e3e6;--kept:#2a78b8;--dropped:#d9822b;
--track:#eceef0;--mark:#fff3d6}
@media (prefers-color-scheme:dark){:root{--paper:#15171a;--raised:#1d2024;--ink:#e6e8ea;--soft:#9aa2ab;--rule:#32373d;
--kept:#58a6e0;--dropped:#e79a4d;--track:#292d32;--mark:#453714}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:72rem;margin:0 auto;padding:1.5rem clamp(.8rem,3vw,2rem) 4rem}
h1{font-size:1.6rem;margin:.2rem 0 .2rem;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:2.4rem 0 .6rem;padding-bottom:.25rem;border-bottom:1px solid var(--rule)}
h3{font-size:1rem;margin:1.4rem 0 .4rem}
.note{color:var(--soft);margin:.3rem 0 .8rem;max-width:46rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.6rem;margin:1.2rem 0}
.cards div{background:var(--raised);border:1px solid var(--rule);border-radius:8px;padding:.6rem .8rem}
.cards dt{color:var(--soft);font-size:.82rem}
.cards dd{margin:0;color:var(--soft);font-size:.82rem}
.cards dd.figure{color:var(--ink);font-size:1.4rem;font-weight:600;line-height:1.3;font-variant-numeric:tabular-nums}
.bars{display:grid;grid-template-columns:minmax(6rem,max-content) minmax(5rem,1fr) max-content;gap:.35rem .8rem;
align-items:center}
.label{overflow-wrap:anywhere;max-width:20rem;font-size:.9rem}
.value{font-variant-numeric:tabular-nums;font-size:.85rem;color:var(--soft);text-align:right}
svg{display:block;width:100%;overflow:visible}
svg.bar{height:14px}svg.spread{height:22px}svg.axis{height:16px}
.track{fill:var(--track)}.kept{fill:var(--kept)}.dropped{fill:var(--dropped)}
.grid{stroke:var(--rule)}.whisker{stroke:var(--kept);stroke-width:2}
.box{fill:var(--kept);fill-opacity:.35}.middle{stroke:var(--kept);stroke-width:3}
svg text{font-size:11px;fill:var(--soft)}
.key{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin:0 .3em 0 .9em;vertical-align:-.05em}
.key.kept{background:var(--kept);margin-left:0}.key.dropped{background:var(--dropped)}
.wide{overflow-x:auto;-webkit-overflow-scrolling:touch;border:1px solid var(--rule);border-radius:8px;
background:var(--raised)}
table{border-collapse:collapse;width:100%;font-size:.88rem}
th,td{padding:.4rem .7rem;text-align:left;vertical-align:top;border-bottom:1px solid var(--rule)}
tbody tr:last-child td{border-bottom:0}
th{color:var(--soft);font-weight:600;white-space:nowrap}
td{overflow-wrap:anywhere;min-width:4rem}td:first-child{min-width:7rem}
small{display:block;color:var(--soft);font-size:.92em}
.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
ul.plain{list-style:none;margin:0;padding:0}
details{margin:.35rem 0}summary{cursor:pointer;overflow-wrap:anywhere}
td details{margin:0}
details.reason{background:var(--raised);border:1px solid var(--rule);border-radius:8px;padding:.5rem .8rem}
details.reason>summary{font-weight:600}
summary .count{color:var(--soft);font-weight:400}
article{border-top:1px solid var(--rule);padding:.5rem 0 .3rem;margin-top:.5rem}
article p{margin:0;font-size:.85rem;color:var(--soft);overflow-wrap:anywhere}
code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.85em}
pre{white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate;margin:.35rem 0;max-height:18rem;overflow:auto;
background:var(--paper);border-radius:6px;padding:.5rem .7rem}
s{text-decoration:none;font:.72em ui-monospace,monospace;background:var(--mark);border-radius:3px;padding:0 .25em}
b.measured{color:var(--ink);font-weight:600}
@media (max-width:44rem){thead{display:none}table,tbody,tr,td{display:block}
tr{border-bottom:1px solid var(--rule);padding:.35rem 0}
tbody tr:last-child{border-bottom:0}
td,td.number{display:flex;gap:1rem;justify-content:space-between;border:0;
padding:.15rem .7rem;text-align:right;white-space:normal}td::before{content:attr(data-name);color:var(--soft);flex:none}
td.empty{display:none}small{font-weight:400}
td:first-child{text-align:left;font-weight:600;padding-top:.3rem}td:first-child::before{content:none}}
@media (max-width:34rem){body{font-size:14px}.bars{grid-template-columns:1fr max-content;gap:.1rem .6rem}
.bars .label{grid-column:1;max-width:none;align-self:end}.bars .value{grid-column:2;align-self:end}
.bars svg{grid-column:1/-1;margin-bottom:.45rem}.bars span:empty{display:none}
.bars .label,.bars .value{grid-row:auto}.bars{grid-auto-flow:row dense}
.cards{grid-template-columns:repeat(2,1fr)}.cards dd.figure{font-size:1.2rem}}
@media print{details:not([open])>*{display:revert}body{background:#fff}}
""".replace("\n", "")
