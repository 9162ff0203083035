"""A task's TOML file as a Task, and the files that it names."""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptcli.errors import SpecError
from gptcli.records.downloads import is_remote
from gptcli.records.opening import os_error
from gptcli.records.sources import Say, SourceFile, expand
from gptcli.records.stdlib import DOCSTRINGS
from gptcli.scoring.tasks import TASKS
from gptcli.scoring.tasks.task import Task
from gptcli.spec import resolve

_OF_RECIPES = ("gptcli schema", "--set")  # hints for a stage's spec, which a task's file is not


def read_task(path: Path) -> Task:
    """The task of a TOML file, its `name` the file's stem where it has none (what no name may have becomes _).

    Raises SpecError naming the file and the key for all that is wrong with it.
    """
    try:
        values = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise os_error(str(path), error) from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: no UTF-8 text, so no task", "a task is a TOML file") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SpecError(f"{path}: no valid TOML ({error})", "a task is a TOML file: kind = …, data = …") from error
    try:
        task_class = _class_of(values)
        task, _ = resolve(task_class, [("", values)])
    except SpecError as error:
        raise SpecError(f"{path}: {error}", _hint(error.hint, path, values)) from error
    return task if task.name else task.model_copy(update={"name": _name_of(path)})


def is_task(path: Path) -> bool:
    """Whether a file of a folder is meant as a task: a .toml with a kind, or one that can't be read."""
    if path.suffix != ".toml":
        return False
    try:
        return "kind" in tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return True


def _kinds() -> dict[str, type[Task]]:
    return {str(task.model_fields["kind"].default): task for task in TASKS}


def _class_of(values: dict[str, Any]) -> type[Task]:
    kinds, kind = _kinds(), values.get("kind")
    if kind is None:
        raise SpecError("kind is missing", f"add kind = …, one of {', '.join(kinds)}")
    if not isinstance(kind, str) or kind not in kinds:
        near = difflib.get_close_matches(str(kind), kinds, 1, 0.5)
        raise SpecError(
            f"unknown kind {kind}" + (f": did you mean {near[0]}?" if near else ""), f"known: {', '.join(kinds)}"
        )
    return kinds[kind]


def _hint(hint: str, path: Path, values: dict[str, Any]) -> str:
    """A hint of `resolve` as it holds for a task."""
    if not any(words in hint for words in _OF_RECIPES):
        return hint
    kind = str(values.get("kind"))
    keys = [name for name in _kinds()[kind].model_fields if name != "kind"]
    return f"write {path.name}; the keys of {kind}: {', '.join(keys)}"


def _name_of(path: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9_]", "_", path.name.removesuffix(".toml"))
    return name if re.match(r"[A-Za-z_]", name) else f"task_{name}"


@dataclass(frozen=True)
class TaskFiles:
    """The files of a task: of items, of examples (none: the items), and of fields that go line by line with items."""

    data: list[SourceFile]
    shots: list[SourceFile] = field(default_factory=list)
    parallel: dict[str, list[SourceFile]] = field(default_factory=dict)

    @property
    def every(self) -> list[SourceFile]:
        """All of them, each once."""
        lists = (self.data, self.shots, *self.parallel.values())
        return list({file.path: file for files in lists for file in files}.values())


def task_inputs(
    task: Task, folder: Path, root: Path, cache: Path | None = None, offline: bool = False, say: Say | None = None
) -> TaskFiles:
    """The files that a task reads, their paths taken from `folder`, where its TOML stands.

    They are named by their way from `root` (the project) where they lie in it. `cache`, `offline`, `say` and what is
    raised: see `records.sources.expand`.
    """

    def found(typed: list[str]) -> list[SourceFile]:
        try:
            return expand([_from_root(one, folder, root) for one in typed], root, cache, offline, say) if typed else []
        except SpecError as error:
            hint = error.hint.replace("from the project", "from the task's own folder")
            raise SpecError(f"{task.name}: {error.message}", hint) from error

    return TaskFiles(
        found(task.data), found(task.shots_data), {name: found(typed) for name, typed in task.parallel.items()}
    )


def _from_root(typed: str, folder: Path, root: Path) -> str:
    if is_remote(typed) or typed == DOCSTRINGS:
        return typed
    path = folder / Path(typed).expanduser()
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
