"""The loss over the steps, drawn in characters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

WIDTH, HEIGHT = 64, 12
SMOOTHING = 0.9


def smooth(losses: Sequence[float]) -> list[float]:
    """Exponential moving average, its start corrected for (Kingma & Ba 2015, section 3)."""
    out, average = [], 0.0
    for count, loss in enumerate(losses, 1):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        out.append(average / (1 - SMOOTHING**count))
    return out


def draw(rows: Sequence[dict[str, Any]]) -> str:
    """A picture of metrics.jsonl's rows: `·` the smoothed training loss, `o` the validation loss; "" for no steps."""
    steps = [row["step"] for row in rows if "train_loss" in row]
    if len(steps) < 2:
        return ""
    points = [
        (step, loss, "·")
        for step, loss in zip(steps, smooth([r["train_loss"] for r in rows if "train_loss" in r]), strict=True)
    ]
    points += [(row["step"], row["val_loss"], "o") for row in rows if "val_loss" in row and row["step"]]
    low, high = min(point[1] for point in points), max(point[1] for point in points)
    grid = [[" "] * WIDTH for _ in range(HEIGHT)]
    for step, loss, mark in points:
        column = round((step - steps[0]) / (steps[-1] - steps[0]) * (WIDTH - 1))
        line = round((high - loss) / max(high - low, 1e-9) * (HEIGHT - 1))
        grid[line][min(max(column, 0), WIDTH - 1)] = mark
    return "\n".join([*_lines(grid, low, high), _foot(steps)])


def _lines(grid: list[list[str]], low: float, high: float) -> list[str]:
    labels = [high - (high - low) * line / (HEIGHT - 1) for line in range(HEIGHT)]
    digits = max(0, 2 - math.floor(math.log10(max(high - low, 1e-9))))
    return [
        f"{label:9.{min(digits, 4)}f} ┤{''.join(cells).rstrip()}" for label, cells in zip(labels, grid, strict=True)
    ]


def _foot(steps: list[int]) -> str:
    first, last = f"step {steps[0]}", str(steps[-1])
    return f"{'':10}└{'─' * WIDTH}\n{'':11}{first}{last.rjust(WIDTH - len(first))}   · train, smoothed   o validation"
