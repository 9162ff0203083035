"""A task run: rows posed, asked of an engine in groups, judged in the order of the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from gptcli.errors import SpecError
from gptcli.records.items import ItemRow, LeftOut
from gptcli.scoring.engine import Answering
from gptcli.scoring.judged import Judged
from gptcli.scoring.tasks.few_shot import Examples
from gptcli.scoring.tasks.posing import TokenPosing
from gptcli.scoring.tasks.rows import TaskRows
from gptcli.scoring.tasks.task import Item, Task, Unposable

__all__ = ["GROUP", "Answering", "run_task"]

GROUP = 256  # items asked at once: what a stopped run has to ask again, at most
MOST_REQUESTS = 4096  # of a group, which ends with the item that reaches it


def run_task(
    task: Task,
    rows: TaskRows,
    posing: TokenPosing,
    engine: Answering,
    *,
    known: Mapping[str, Judged] | None = None,
    advance: Callable[[int], None] | None = None,
    group: int = GROUP,
) -> Iterator[list[Judged]]:
    """The items of a task, judged, in groups, in the order of the file.

    Items whose id is in `known` are not asked again. Rows that ask the very same have ids of their own: the second ends
    in "-2". `advance` is called with how many more items are done. Rows that make no item are counted in
    `rows.left_out`; SpecError, telling of the first of them, where no row makes one.
    """
    task = task.prepared(row.value for row in rows.items)
    posed: list[Item] = []
    count = requests = 0
    for item in _items(task, rows, posing):
        count += 1
        requests += len(item.requests)
        posed.append(item)
        if len(posed) == group or requests >= MOST_REQUESTS:
            yield _judged(task, posed, engine, known or {}, advance)
            posed, requests = [], 0
    if posed:
        yield _judged(task, posed, engine, known or {}, advance)
    if not count:
        raise _nothing(task, rows)


def _items(task: Task, rows: TaskRows, posing: TokenPosing) -> Iterator[Item]:
    """The first `task.limit` items, each posed behind its examples, their ids distinct."""
    counted_once = LeftOut() if rows.pool is rows.items else rows.examples_left_out
    examples = Examples(task, rows.pool, counted_once) if task.shots else None
    posing = posing.behind(examples.shared) if examples else posing
    times: dict[str, int] = {}
    given = 0
    for row in rows.items:
        try:
            item = _posed(task, row, posing, examples)
        except Unposable as reason:
            rows.left_out.note(str(reason), row.where)
            rows.details.setdefault(str(reason), reason.detail)
            continue
        times[item.id] = times.get(item.id, 0) + 1
        yield item if times[item.id] == 1 else replace(item, id=f"{item.id}-{times[item.id]}")
        given += 1
        if given == task.limit:
            return


def _posed(task: Task, row: ItemRow, posing: TokenPosing, examples: Examples | None) -> Item:
    item = task.item(row.value, row.where, posing)
    if examples is None or (own := examples.before(item)) == examples.shared:
        return item
    return task.item(row.value, row.where, posing.behind(own))  # it is one of the shared ones itself


def _judged(
    task: Task,
    items: list[Item],
    engine: Answering,
    known: Mapping[str, Judged],
    advance: Callable[[int], None] | None,
) -> list[Judged]:
    """A group of items, judged; those that are known stand where the file has them now."""
    asked = [item for item in items if item.id not in known]
    requests = [request for item in asked for request in item.requests]
    steps = _Steps(len(items) - len(asked), len(items), len(requests), advance)
    answers = iter(engine.answer(requests, steps.take) if requests else [])
    found = {item.id: task.judge(item, [next(answers) for _ in item.requests]) for item in asked}
    steps.end()
    return [found.get(item.id) or replace(known[item.id], task=task.name, where=item.where) for item in items]


class _Steps:
    """Tells of requests done as of items done, whole ones only; those that are known are done at once."""

    def __init__(self, known: int, items: int, requests: int, advance: Callable[[int], None] | None) -> None:
        self._known, self._items, self._requests = known, items, requests
        self._advance = advance
        self._done = self._told = 0
        self.take(0)

    def take(self, requests: int) -> None:
        """So many requests more."""
        self._done = min(self._done + requests, self._requests)
        share = self._done / self._requests if self._requests else 1.0
        self._tell(self._known + int((self._items - self._known) * share))

    def end(self) -> None:
        """All of the group."""
        self._tell(self._items)

    def _tell(self, items: int) -> None:
        if self._advance is not None and items > self._told:
            self._advance(items - self._told)
        self._told = max(items, self._told)


def _nothing(task: Task, rows: TaskRows) -> SpecError:
    """What is wrong where no row makes an item, by the reason that most rows have."""
    reason, count = max(rows.left_out.counts.items(), key=lambda each: each[1])
    where, detail = rows.left_out.first[reason], rows.details.get(reason, "")
    return SpecError(
        f"{task.name}: no row makes an item; {count} of {sum(rows.left_out.counts.values())}: {reason}, as {where}"
        + (f" ({detail})" if detail else ""),
        "check the fields that the task names",
    )
