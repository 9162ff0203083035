"""The rows of a task's files, all of them in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from gptcli.errors import SpecError
from gptcli.records.headers import Shape
from gptcli.records.items import TABLES, ItemRow, ItemRows, LeftOut
from gptcli.records.opening import sniff
from gptcli.records.sources import SourceFile
from gptcli.scoring.tasks.reading import TaskFiles
from gptcli.scoring.tasks.task import Task


@dataclass
class TaskRows:
    """`items`: rows in the order of the files; `pool`: those that examples are drawn from (none where `shots` is 0).

    `left_out`: rows that make no item, by reason (`run_task` adds those it can't pose); `examples_left_out`: rows of
    `shots_data` that make no example; `faults`: what is wrong with a file as a whole, as (file, fault).
    """

    items: list[ItemRow]
    pool: list[ItemRow] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)
    examples_left_out: LeftOut = field(default_factory=LeftOut)
    faults: list[tuple[str, str]] = field(default_factory=list)
    details: dict[str, str] = field(default_factory=dict)  # of reasons: what it was in the first row

    def most_items(self, task: Task) -> int:
        """How many items there are at most."""
        return min(len(self.items), task.limit or len(self.items))


def read_rows(task: Task, files: TaskFiles) -> TaskRows:
    """The rows of a task's files. Raises SpecError as `ItemRows` does, and for a header or columns of no table."""
    shape = Shape(task.header, tuple(task.columns))
    if shape.is_asked and not any(_is_table(file) for file in (*files.data, *files.shots)):
        raise SpecError(f"{task.name}: none of its files is csv or tsv", "leave out header and columns")
    items = ItemRows(files.data, shape, files.parallel)
    rows = TaskRows(list(items), left_out=items.left_out, faults=items.faults)
    if files.shots:
        shown = ItemRows(files.shots, shape)
        rows.pool = list(shown)
        rows.examples_left_out = shown.left_out
        rows.faults += shown.faults
    elif task.shots:
        rows.pool = rows.items
    return rows


def _is_table(file: SourceFile) -> bool:
    return sniff(file.path, file.name) in TABLES
