"""The project directory: where things stand, the recipe, and the paths a person types."""

from __future__ import annotations

import difflib
import os
import tomllib
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptcli.artifacts.locks import PATIENCE_SECONDS, is_held, lock
from gptcli.errors import SpecError

RECIPE = "recipe.toml"
STAGES = ("corpus", "tokenize", "pretrain", "eval", "finetune-lora", "export")  # with tables in a recipe
FOLDERS = ("corpus", "tokens", "runs", "models", "evals", "exports")  # in the chain's order
LONGEST_NAME = 200  # bytes of UTF-8: file systems allow 255, and .NAME.partial and locks add their own


@dataclass(frozen=True)
class Project:
    """A directory with a recipe and the artifacts made from it."""

    root: Path
    recipe: dict[str, Any] = field(default_factory=dict)
    recipe_path: Path | None = None

    @staticmethod
    def open(root: Path, recipe: Path | None = None) -> Project:
        """Open the project at `root`; its recipe.toml is optional, one named with `recipe` (from `root`) is not.

        Raises SpecError when the folder or the named recipe is missing or the TOML is broken.
        """
        root = Path(root)
        if not root.is_dir():
            raise SpecError(f"there is no project folder {root}", f"gptcli init {root}")
        path = root / recipe if recipe is not None else root / RECIPE
        if not path.is_file():
            if recipe is not None:
                raise SpecError(f"there is no recipe {path}", "name an existing file with --recipe")
            return Project(root)
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SpecError(f"{path} is not valid TOML: {error}", "mend that line") from error
        return Project(root, tables, path)

    @property
    def name(self) -> str:
        """`[project] name`, else the directory's name."""
        table = self.recipe.get("project")
        given = table.get("name") if isinstance(table, dict) else None
        return str(given) if given else self.root.resolve().name

    def tables(self, stage: str) -> dict[str, dict[str, Any]]:
        """The recipe's tables [stage.NAME] by name."""
        tables = self.recipe.get(stage)
        found = tables.items() if isinstance(tables, dict) else ()
        return {name: table for name, table in found if isinstance(table, dict)}

    def table(self, stage: str, name: str) -> dict[str, Any]:
        """The recipe's table [stage.name], or an empty one."""
        return self.tables(stage).get(name, {})

    def faults(self) -> list[tuple[str, str]]:
        """What stands in the recipe where no stage reads it: what and where, and how to mend it."""
        where = self.recipe_path.name if self.recipe_path else "recipe"
        found = []
        for key, value in self.recipe.items():
            if key not in (*STAGES, "project"):
                found.append((f"{where}: the table [{key}] is read by no stage", _nearest(key, (*STAGES, "project"))))
            elif not isinstance(value, dict):
                line = "[project]" if key == "project" else f"[{key}.NAME]"
                found.append((f"{where}: {key} = {value!r} is no table", f"write keys below a line {line}"))
            elif key == "project":
                found += [(f"{where}: unknown key project.{name}", "known: name") for name in value if name != "name"]
            else:
                named = next((name for name, table in value.items() if isinstance(table, dict)), "NAME")
                found += [
                    (f"{where}: {key}.{name} = {table!r} is in no table [{key}.NAME]", f"move it below [{key}.{named}]")
                    for name, table in value.items()
                    if not isinstance(table, dict)
                ]
        return found

    def require_sound_recipe(self) -> None:
        """SpecError for whatever in the recipe would be ignored in silence."""
        for message, hint in self.faults():
            raise SpecError(message, hint)

    def place(self, folder: str, name: str) -> Path:
        """Where an artifact stands: root/folder/name. SpecError for a name that would lead elsewhere."""
        if not name.isprintable() or "/" in name or name.startswith(".") or not name:
            raise SpecError(f"{name!r} is no name in {folder}/", "a name has no / in it and begins with no dot")
        if len(name.encode()) > LONGEST_NAME:
            raise SpecError(
                f"{name[:20]}… is too long for a name in {folder}/", f"a name has at most {LONGEST_NAME} bytes"
            )
        return self.root / folder / name

    def path(self, typed: str | Path) -> Path:
        """A path as typed in the recipe or on the command line, taken from the project's root."""
        return self.root / Path(typed).expanduser()

    def relative(self, path: Path) -> str:
        """A path as a manifest records it: from the project's root, wherever it lies, however it and -C were typed.

        `path` finds it again.
        """
        return Path(os.path.relpath(path.resolve(), self.root.resolve())).as_posix()

    def lock(self, folder: str, name: str, patience: float = PATIENCE_SECONDS) -> AbstractContextManager[None]:
        """The lock of one artifact; ArtifactError naming its holder when another process keeps it for so many
        seconds."""
        return lock(self._lock_path(folder, name), f"{folder}/{name}", patience)

    def holder(self, folder: str, name: str) -> str | None:
        """Who is working on an artifact, or None."""
        return is_held(self._lock_path(folder, name))

    def _lock_path(self, folder: str, name: str) -> Path:
        return self.root / ".gptcli" / "locks" / f"{folder}-{name}"


def _nearest(key: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(key, known, 1, 0.5)
    return f"did you mean [{near[0]}]?" if near else f"known tables: {', '.join(known)}"
