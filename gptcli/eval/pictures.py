"""The pictures of an evaluation's page, as inline SVG: a confusion matrix, a reliability diagram, intervals."""

from __future__ import annotations

from collections.abc import Sequence

from gptcli.page import safe

_CELL = 26  # pixels, of a matrix small enough for numbers in its cells
_LARGE, _FEW = 52, 6  # pixels of one that has at most so many columns
_NUMBERED = 15  # columns at most that show their numbers
_WIDEST = 640  # pixels, of the cells of a large matrix
_LABEL = 9  # pixels a character of a label, about


def confusion_matrix(rows: Sequence[str], columns: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """A heat map: a row a true class, a column an answer; shade is the share of the row. Every cell tells its number.

    counts: [rows][columns].
    """
    cell = _CELL if len(columns) <= _NUMBERED else max(_WIDEST // len(columns), 5)
    cell = _LARGE if len(columns) <= _FEW else cell
    left = min(_LABEL * max(map(len, (*rows, "true"))), 220) if cell > 9 else 24
    top = left if cell > 9 else 24
    width, height = left + cell * len(columns), top + cell * len(rows)
    drawn = []
    for y, (row, line) in enumerate(zip(rows, counts, strict=True)):
        total = max(sum(line), 1)
        for x, (column, count) in enumerate(zip(columns, line, strict=True)):
            drawn.append(_cell(left + x * cell, top + y * cell, cell, count, total, row, column, row == column))
        if cell > 9:
            drawn.append(f'<text x="{left - 6}" y="{top + (y + 0.7) * cell:.1f}" text-anchor="end">{_cut(row)}</text>')
    if cell > 9:
        drawn += [
            f'<text transform="translate({left + (x + 0.65) * cell:.1f},{top - 6}) rotate(-60)">{_cut(column)}</text>'
            for x, column in enumerate(columns)
        ]
    return (
        f'<svg role="img" aria-label="confusion matrix: rows are true classes, columns answers" class="picture" '
        f'viewBox="0 0 {width + 40} {height + 4}" style="max-width:{width + 40}px">{"".join(drawn)}</svg>'
    )


def _cell(x: float, y: float, size: int, count: int, total: int, row: str, column: str, right: bool) -> str:
    share = count / total
    kind = "kept" if right else "dropped"
    shade = f'<rect class="track" x="{x}" y="{y}" width="{size - 1}" height="{size - 1}"/>'
    if count:
        shade += (
            f'<rect class="{kind}" fill-opacity="{0.12 + 0.88 * share:.3f}" x="{x}" y="{y}" width="{size - 1}" '
            f'height="{size - 1}"/>'
        )
    number = (
        f'<text x="{x + size / 2 - 0.5}" y="{y + size / 2 + 4:.1f}" text-anchor="middle"{_ink(share)}>{count}</text>'
        if count and size >= _CELL
        else ""
    )
    return f"<g><title>{safe(row)} answered as {safe(column)}: {count} of {total}</title>{shade}{number}</g>"


def _ink(share: float) -> str:
    """White on a dark cell."""
    return ' style="fill:#fff"' if share > 0.55 else ""


def _cut(label: str) -> str:
    return safe(label if len(label) <= 24 else label[:23] + "…")


def reliability_diagram(bins: Sequence[tuple[int, float, float]]) -> str:
    """Share that was right over the model's own confidence, a bar a bin; the diagonal is perfect calibration.

    bins: (tokens, mean confidence, share that was right), in any order; empty ones are left out.
    """
    side, left = 240, 34
    filled = sorted((bin for bin in bins if bin[0]), key=lambda bin: bin[1])
    most = max((count for count, _, _ in filled), default=1)
    drawn = [
        f'<line class="grid" x1="{left}" x2="{left + side}" y1="{side}" y2="{side}"/>',
        f'<line class="whisker" stroke-dasharray="4 4" x1="{left}" x2="{left + side}" y1="{side}" y2="0"/>',
    ]
    for share in (0.0, 0.5, 1.0):
        drawn.append(f'<text x="{left - 5}" y="{side * (1 - share) + 4:.0f}" text-anchor="end">{share:g}</text>')
        drawn.append(f'<text x="{left + side * share:.0f}" y="{side + 14}" text-anchor="middle">{share:g}</text>')
    for count, confidence, right in filled:
        radius = 2.5 + 6.5 * (count / most) ** 0.5
        drawn.append(
            f"<g><title>{count:,} tokens: confidence {confidence:.3f}, right {right:.3f}</title>"
            f'<circle class="kept" fill-opacity=".75" cx="{left + side * confidence:.1f}" '
            f'cy="{side * (1 - right):.1f}" r="{radius:.1f}"/></g>'
        )
    drawn.append(f'<text x="{left + side / 2}" y="{side + 30}" text-anchor="middle">confidence</text>')
    drawn.append(f'<text transform="translate(9,{side / 2}) rotate(-90)" text-anchor="middle">share right</text>')
    return (
        '<svg role="img" aria-label="reliability diagram" class="picture" '
        f'viewBox="0 0 {left + side + 12} {side + 36}" style="max-width:{left + side + 80}px">{"".join(drawn)}</svg>'
    )


def interval(value: float, low: float, high: float, begin: float, end: float) -> str:
    """A figure with its interval on a line from `begin` to `end`."""
    width = (end - begin) or 1.0
    places = [100 * min(max((each - begin) / width, 0.0), 1.0) for each in (low, high, value)]
    return (
        f'<svg class="spread" role="img" aria-label="{value:.4f}, {low:.4f} to {high:.4f}">'
        '<line class="grid" x1="0" x2="100%" y1="50%" y2="50%"/>'
        f'<line class="whisker" x1="{places[0]:.2f}%" x2="{places[1]:.2f}%" y1="50%" y2="50%"/>'
        f'<circle class="kept" cx="{places[2]:.2f}%" cy="50%" r="5"/></svg>'
    )
