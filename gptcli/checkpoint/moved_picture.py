"""Which layers moved, as one self-contained SVG: a bar a layer, and beside it a cell for each kind of matrix.

It follows the reader's light or dark setting where the viewer knows one, and is light elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from gptcli.checkpoint.moved import Comparison, Place
from gptcli.models.arithmetic import Difference
from gptcli.page import safe

# The order in which a layer computes; kinds it doesn't name come after, by name.
_ORDER = (
    "input_layernorm",
    "ln_1",
    "q_proj",
    "k_proj",
    "v_proj",
    "c_attn",
    "q_norm",
    "k_norm",
    "o_proj",
    "attn.c_proj",
    "post_attention_layernorm",
    "ln_2",
    "gate_proj",
    "up_proj",
    "c_fc",
    "down_proj",
    "mlp.c_proj",
)
# Pixels.
_MARGIN, _ROW, _CELL, _BAR, _VALUE, _LABEL = 20, 24, 54, 150, 62, 84
_LETTER = 6.3  # of a character of 11-pixel text, about
_TITLE, _LEGEND = 58, 66
_GRADES = 6  # shades in the legend
_STYLE = """\
text{font:11px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#24292f}
.title{font-size:15px;font-weight:600}.faint{fill:#656d76}.number{font-size:10px}
.on{fill:#ffffff}.ground{fill:#ffffff}.track{fill:#eef1f4}.moved{fill:#1f6feb}.line{stroke:#d0d7de}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.faint{fill:#9198a1}.on{fill:#ffffff}
.ground{fill:#0d1117}.track{fill:#1c2129}.moved{fill:#4493f8}.line{stroke:#3d444d}}"""


def picture(one: str, other: str, found: Comparison) -> str:
    """The SVG's text: how far each part moved, in shares of the norm it had in the first model."""
    parts, cells = found.parts(), found.cells()
    kinds = _kinds([place for place in cells if isinstance(place.part, int)])
    label = max([_LABEL, *(len(_name(part)) * _LETTER + 12 for part in parts)])
    left = _MARGIN + label
    grid = left + _BAR + _VALUE
    header = max([30.0, *(0.72 * len(kind) * _LETTER + 18 for kind in kinds)])
    top = _MARGIN + _TITLE + header
    overhang = max(
        [0.0, *(0.72 * len(kind) * _LETTER - (len(kinds) - at - 1) * _CELL for at, kind in enumerate(kinds))]
    )
    width = max(grid + len(kinds) * _CELL + overhang, 560) + _MARGIN
    height = top + len(parts) * _ROW + _LEGEND + _MARGIN
    longest = max((_relative(each) for each in parts.values()), default=0.0)
    darkest = max((_relative(each) for place, each in cells.items() if place.kind in kinds), default=0.0)
    drawn = [_heading(one, other, found), *_headers(kinds, grid, top)]
    for at, (part, each) in enumerate(parts.items()):
        y = top + at * _ROW
        drawn.append(_bar(part, each, longest, left, y))
        drawn += [
            _cell(Place(part, kind), cells.get(Place(part, kind)), darkest, grid + column * _CELL, y)
            for column, kind in enumerate(kinds)
            if isinstance(part, int)
        ]
    if kinds:
        end = max(grid + len(kinds) * _CELL - 2, grid + _GRADES * 30)
        drawn.append(_legend(darkest, grid, top + len(parts) * _ROW + 18, end))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" aria-label="{safe(f"which layers moved from {one} to {other}")}">\n'
        f"<style>{_STYLE}</style>\n"
        f'<rect class="ground" width="100%" height="100%"/>\n' + "\n".join(drawn) + "\n</svg>\n"
    )


def _kinds(places: Sequence[Place]) -> list[str]:
    """Each kind of matrix there is in a layer, in the order in which a layer computes, a bias behind its matrix."""
    known = {kind: number for number, kind in enumerate(_ORDER)}
    return sorted({place.kind for place in places}, key=lambda kind: (known.get(kind.split(" ")[0], len(known)), kind))


def _name(part: int | str) -> str:
    return f"layer {part}" if isinstance(part, int) else part


def _relative(each: Difference) -> float:
    return each.relative or 0.0


def _heading(one: str, other: str, found: Comparison) -> str:
    whole = found.whole()
    if not whole.changed:
        told = "no difference between tensors of one shape"
    else:
        cosine = f", cosine {whole.cosine:.6f}" if whole.cosine is not None else ""
        told = f"all weights together moved {_percent(whole)} of their norm{cosine}"
    alone = len(found.only_first) + len(found.only_second)
    told += f"; {alone} tensors are in one of them only" if alone else ""
    return (
        f'<text class="title" x="{_MARGIN}" y="{_MARGIN + 14}">Which layers moved: {safe(one)} → {safe(other)}</text>'
        f'<text class="faint" x="{_MARGIN}" y="{_MARGIN + 34}">Distance over the norm before; {safe(told)}</text>'
    )


def _headers(kinds: Sequence[str], grid: float, top: float) -> list[str]:
    middles = [grid + (at + 0.5) * _CELL - 4 for at in range(len(kinds))]
    return [
        f'<text transform="translate({x:.1f},{top - 8:.1f}) rotate(-45)">{safe(kind)}</text>'
        for x, kind in zip(middles, kinds, strict=True)
    ] + [f'<text class="faint" x="{grid - _VALUE - _BAR:.1f}" y="{top - 8:.1f}">all of it</text>']


def _bar(part: int | str, each: Difference, longest: float, left: float, y: float) -> str:
    share = _relative(each) / longest if longest else 0.0
    return (
        f"<g><title>{safe(_hint(_name(part), each))}</title>"
        f'<text x="{left - 10:.1f}" y="{y + 16:.1f}" text-anchor="end">{safe(_name(part))}</text>'
        f'<rect class="track" x="{left:.1f}" y="{y + 5:.1f}" width="{_BAR}" height="{_ROW - 10}" rx="2"/>'
        f'<rect class="moved" x="{left:.1f}" y="{y + 5:.1f}" width="{share * _BAR:.1f}" height="{_ROW - 10}" rx="2"/>'
        f'<text x="{left + _BAR + 6:.1f}" y="{y + 16:.1f}">{_percent(each)}</text></g>'
    )


def _cell(place: Place, each: Difference | None, darkest: float, x: float, y: float) -> str:
    if each is None:
        return ""
    share = _relative(each) / darkest if darkest else 0.0
    box = f'x="{x:.1f}" y="{y + 1:.1f}" width="{_CELL - 2}" height="{_ROW - 2}" rx="2"'
    shade = f'<rect class="moved" fill-opacity="{share:.3f}" {box}/>' if share else ""
    ink = "number on" if share > 0.75 else "number"
    return (
        f"<g><title>{safe(_hint(f'{_name(place.part)}, {place.kind}', each))}</title>"
        f'<rect class="track" {box}/>{shade}'
        f'<text class="{ink}" x="{x + _CELL / 2 - 1:.1f}" y="{y + 16:.1f}" text-anchor="middle">{_percent(each)}</text>'
        "</g>"
    )


def _legend(darkest: float, x: float, y: float, right: float) -> str:
    boxes = [
        f'<rect class="track" x="{x + at * 30:.1f}" y="{y:.1f}" width="30" height="10"/>'
        f'<rect class="moved" fill-opacity="{at / (_GRADES - 1):.2f}" x="{x + at * 30:.1f}" y="{y:.1f}" width="30" '
        f'height="10"/>'
        for at in range(_GRADES)
    ]
    end = x + _GRADES * 30
    return (
        f'<line class="line" x1="{_MARGIN}" x2="{right:.1f}" y1="{y - 8:.1f}" y2="{y - 8:.1f}"/>'
        + "".join(boxes)
        + f'<text class="faint" x="{x:.1f}" y="{y + 24:.1f}">not at all</text>'
        f'<text class="faint" x="{end:.1f}" y="{y + 24:.1f}" text-anchor="end">{_share(darkest)}</text>'
    )


def _hint(what: str, each: Difference) -> str:
    cosine = f"{each.cosine:.6f}" if each.cosine is not None else "unknown"
    return (
        f"{what}: moved {_percent(each)} of its norm {each.norm:.4g}, cosine {cosine}, largest change "
        f"{each.largest:.3g}, {each.changed:,} of {each.count:,} values"
    )


def _percent(each: Difference) -> str:
    """A share of the norm; a dash where there was none to be a share of."""
    if not each.changed:
        return "0"
    return _share(each.relative) if each.relative is not None else "–"


def _share(value: float) -> str:
    percent = 100 * value
    return f"{percent:.0f} %" if percent >= 99.95 else f"{percent:.2g} %" if percent >= 0.01 else f"{percent:.0e} %"
