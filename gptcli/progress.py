"""stderr: a live bar on a terminal, plain lines elsewhere, nothing with -q."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gptcli.console import forsake, human_count, human_seconds, tell

PLAIN_SECONDS = 10.0  # between two plain lines of one bar


class Bar:
    """The advance of one piece of work, in `unit`s."""

    def __init__(self, label: str, total: float | None, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = 0.0
        self.figures: dict[str, Any] = {}
        self._start = time.monotonic()
        self._offset = 0.0

    def advance(self, count: float = 1) -> None:
        self.done += count
        self.refresh()

    def start_at(self, done: float) -> None:
        """Where an earlier process got to: it counts in the bar, not in the rate."""
        self.done = self._offset = done

    def skip(self, count: float) -> None:
        """Work that an earlier process had done: it counts in the bar, not in the rate."""
        self.done += count
        self._offset += count

    def show(self, **figures: Any) -> None:
        """Figures to show beside the bar (loss="5.12")."""
        self.figures.update(figures)
        self.refresh()

    def refresh(self) -> None:
        """Bring what is shown up to date."""

    def text(self) -> str:
        """The bar as one line: done, share, rate, figures, time left."""
        elapsed = max(time.monotonic() - self._start, 1e-9)
        rate = (self.done - self._offset) / elapsed
        parts = [self.label]
        if self.total:
            parts.append(f"{human_count(self.done)}/{human_count(self.total)} {self.unit}")
            parts.append(f"{100 * self.done / self.total:.0f} %")
        else:
            parts.append(f"{human_count(self.done)} {self.unit}")
        parts.append(f"{human_count(rate) if rate >= 10 else f'{rate:.2g}'} {self.unit}/s")
        parts += [f"{name} {value}" for name, value in self.figures.items()]
        if self.total and rate > 0 and self.done < self.total:
            parts.append(f"{human_seconds((self.total - self.done) / rate)} left")
        return "  ".join(parts)


class _PlainBar(Bar):
    def __init__(self, label: str, total: float | None, unit: str) -> None:
        super().__init__(label, total, unit)
        self._next = time.monotonic() + PLAIN_SECONDS
        self._told: tuple[float, dict[str, Any]] | None = None

    def refresh(self) -> None:
        if time.monotonic() >= self._next:
            self.tell()

    def tell(self) -> None:
        """Print where the work stands, unless the last line said just that."""
        self._next = time.monotonic() + PLAIN_SECONDS
        if self._told != (self.done, self.figures):
            self._told = (self.done, dict(self.figures))
            tell(self.text())


class _LiveBar(Bar):
    def __init__(self, label: str, total: float | None, unit: str, live: Any) -> None:
        super().__init__(label, total, unit)
        self._live = live
        self._next = 0.0

    def refresh(self) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + 0.1
            with unheard():
                self._live.update(self._render(), refresh=True)

    def _render(self) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        grid = Table.grid(padding=(0, 1))
        if self.total:
            grid.add_row(ProgressBar(total=self.total, completed=self.done, width=20), self.text())
        else:
            grid.add_row(self.text())
        return grid


@contextmanager
def unheard() -> Iterator[None]:
    """Let the work go on where the terminal it is shown on has hung up."""
    try:
        yield
    except OSError:
        forsake(sys.stderr)


class Progress:
    """Where a stage tells how far it is; stages print nothing themselves."""

    def __init__(self) -> None:
        self._live_console: Any = None

    @contextmanager
    def bar(self, label: str, total: float | None, unit: str) -> Iterator[Bar]:
        """A bar for the length of the `with` block; `total` in `unit`s, None where it is not known."""
        if not self._is_live():
            plain = _PlainBar(label, total, unit)
            yield plain
            plain.tell()
            return
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=True)
        live = Live(console=console, auto_refresh=False, transient=True)
        bar = _LiveBar(label, total, unit, live)
        with unheard():
            live.start()
            self._live_console = console
        bar.refresh()
        try:
            yield bar
        finally:
            self._live_console = None
            with unheard():
                live.stop()
        tell(bar.text())

    def _is_live(self) -> bool:
        if sys.stderr is None or not sys.stderr.isatty():
            return False
        return not os.environ.get("CI") and os.environ.get("TERM") != "dumb"

    def say(self, line: str) -> None:
        if self._live_console is not None:
            with unheard():
                self._live_console.print(line, markup=False, highlight=False)
        else:
            tell(line)

    def warn(self, line: str) -> None:
        self.say(f"warning: {line}")


class Silent(Progress):
    """-q: no bars and no remarks; warnings still reach stderr."""

    @contextmanager
    def bar(self, label: str, total: float | None, unit: str) -> Iterator[Bar]:
        yield Bar(label, total, unit)

    def say(self, line: str) -> None:
        """Said to nobody."""

    def warn(self, line: str) -> None:
        tell(f"warning: {line}")
