"""The project directory: where things stand, the recipe, and the paths a person types."""

from __future__ import annotations

import tomllib
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptcli.artifacts.locks import is_held, lock
from gptcli.errors import SpecError

RECIPE = "recipe.toml"


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
        given = self.recipe.get("project", {}).get("name")
        return str(given) if given else self.root.resolve().name

    def table(self, stage: str, name: str) -> dict[str, Any]:
        """The recipe's table [stage.name], or an empty one."""
        tables = self.recipe.get(stage, {})
        table = tables.get(name, {}) if isinstance(tables, dict) else tables
        if not isinstance(table, dict):
            raise SpecError(
                f"{self.recipe_path}: [{stage}.{name}] is no table", f"write the keys below a line [{stage}.{name}]"
            )
        return table

    def place(self, folder: str, name: str) -> Path:
        """Where an artifact stands: root/folder/name. SpecError for a name that would lead elsewhere."""
        if not name.isprintable() or "/" in name or name.startswith(".") or not name:
            raise SpecError(f"{name!r} is no name in {folder}/", "a name has no / in it and begins with no dot")
        return self.root / folder / name

    def path(self, typed: str | Path) -> Path:
        """A path as typed in the recipe or on the command line, taken from the project's root."""
        return self.root / Path(typed).expanduser()

    def relative(self, path: Path) -> str:
        """A path as a manifest records it: from the project's root where it lies inside."""
        try:
            return path.resolve().relative_to(self.root.resolve()).as_posix()
        except ValueError:
            return str(path)

    def lock(self, folder: str, name: str) -> AbstractContextManager[None]:
        """The lock of one artifact; ArtifactError naming its holder when another process has it."""
        return lock(self._lock_path(folder, name), f"{folder}/{name}")

    def holder(self, folder: str, name: str) -> str | None:
        """Who is working on an artifact, or None."""
        return is_held(self._lock_path(folder, name))

    def _lock_path(self, folder: str, name: str) -> Path:
        return self.root / ".gptcli" / "locks" / f"{folder}-{name}"
