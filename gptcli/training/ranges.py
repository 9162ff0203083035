"""Which samples a step learns from, once ranges of the data have been left out."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Ranges:
    """Samples are numbered from 0 over the whole training, `samples` a step; `skipped` ranges [first, end) of them are
    passed over. Each begins where some step would have begun, so no step straddles one."""

    samples: int
    skipped: list[tuple[int, int]] = field(default_factory=list)

    def first_sample(self, step: int) -> int:
        """The first sample of the step after `step` finished ones."""
        place = step * self.samples
        for first, end in sorted(self.skipped):
            if place >= first:
                place += end - first
        return place

    def skip(self, step: int, last: int, at_least: int = 0) -> tuple[int, int]:
        """Pass over what the steps after `step` finished ones up to, and with, that after `last` would learn from, or
        `at_least` so many samples; the range."""
        first = self.first_sample(step)
        end = max(self.first_sample(last) + self.samples, first + at_least)
        self.skipped.append((first, end))
        return first, end

    def state(self) -> list[list[int]]:
        """JSON-able."""
        return [list(pair) for pair in self.skipped]

    def load_state(self, state: list[list[int]]) -> None:
        """Take up what `state()` gave."""
        self.skipped = [(int(first), int(end)) for first, end in state]
