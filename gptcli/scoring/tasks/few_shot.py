"""Few-shot examples: which rows stand before an item.

All items get the same examples, so that a model reads them once: the first `shots` of the pool in an order drawn by the
seed. An item that is one of them itself gets the next of the order in its own place's stead; so does one that asks
the very same as an example. The order is that of SHA-256 over seed and item id: no row's place in its file, no
`limit` and no other row decides where it comes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from gptcli.errors import SpecError
from gptcli.records.items import ItemRow, LeftOut
from gptcli.scoring.tasks.task import Item, Task, Unposable


@dataclass(frozen=True)
class Example:
    """An item with its right answer, as it is shown; `id`: the item's."""

    id: str
    prompt: str
    answer: str


class Unasked:
    """A Posing for those who want an item's texts alone."""

    def context(self, prompt: str) -> tuple[int, ...]:
        """No ids."""
        return ()

    def pair(self, prompt: str, answer: str, delimiter: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """No ids."""
        return (), ()


class Examples:
    """The examples of a task's items, drawn from the rows of a pool.

    Rows that make no example are counted in `left_out`. Raises SpecError where fewer are left than `task.shots`.
    """

    def __init__(self, task: Task, pool: Iterable[ItemRow], left_out: LeftOut) -> None:
        found: dict[str, Example] = {}
        unasked = Unasked()
        for row in pool:
            try:
                item = task.item(row.value, row.where, unasked)
                found.setdefault(item.id, Example(item.id, *task.example(item)))
            except Unposable as reason:
                left_out.note(str(reason), row.where)
        self._shots = task.shots
        order = sorted(found, key=lambda each: hashlib.sha256(f"{task.seed}:{each}".encode()).digest())
        self._drawn = tuple(found[each] for each in order[: task.shots + 1])
        self.shared = self._drawn[: task.shots]  # what stands before all items but these themselves
        if len(found) < task.shots:
            why = next((f"; {reason}, as {where}" for reason, where in left_out.first.items()), "")
            raise SpecError(
                f"{task.name}: shots = {task.shots}, and there are {len(found)} different examples{why}",
                "set fewer shots, or shots_data",
            )

    def before(self, item: Item) -> tuple[Example, ...]:
        """The examples before an item: `shots` of them, the item itself never.

        Raises Unposable `too_few_other_examples` where the item is one of just so many.
        """
        others = tuple(example for example in self._drawn if example.id != item.id)[: self._shots]
        if len(others) < self._shots:
            raise Unposable("too_few_other_examples", f"{self._shots} shots want as many others")
        return others
