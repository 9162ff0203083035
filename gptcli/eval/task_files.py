"""The tasks that a spec names: their TOML files, opened, and the files these name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gptcli.artifacts.project import Project
from gptcli.errors import SpecError
from gptcli.records.sources import SourceFile, expand
from gptcli.scoring.tasks.reading import TaskFiles, is_task, read_task, task_inputs
from gptcli.scoring.tasks.task import Task


@dataclass(frozen=True)
class NamedTask:
    """A task, its own file, and the files it reads."""

    task: Task
    file: SourceFile
    files: TaskFiles


def open_tasks(typed: Sequence[str], project: Project) -> list[NamedTask]:
    """The tasks of task files, folders of them and globs, in the order typed, sorted within a folder.

    Raises SpecError for a file that is no task, names none or what can't be read, for a folder without tasks, and for
    two tasks of one name.
    """
    found = [_open(file, project) for file in _task_files(typed, project.root)]
    seen: dict[str, str] = {}
    for each in found:
        other = seen.setdefault(each.task.name, each.file.name)
        if other != each.file.name:
            raise SpecError(
                f"{each.file.name} and {other} are both the task {each.task.name}", 'give one of them a name = "…"'
            )
    return found


def _task_files(typed: Sequence[str], root: Path) -> list[SourceFile]:
    files = []
    for one in typed:
        every = expand([one], root)
        tasks = [file for file in every if is_task(file.path)] if (root / one).is_dir() else every
        if not tasks:
            raise SpecError(f"{one} holds no task files", "a task is a .toml file that begins kind = …")
        files += tasks
    return list({file.path.resolve(): file for file in files}.values())


def _open(file: SourceFile, project: Project) -> NamedTask:
    task = read_task(file.path)
    return NamedTask(task, file, task_inputs(task, file.path.parent, project.root))
