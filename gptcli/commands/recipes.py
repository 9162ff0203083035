"""The recipes that come with gptcli: inside the package once installed, beside it in a checkout."""

from __future__ import annotations

import difflib
from pathlib import Path

import gptcli
from gptcli.artifacts.durable import write_bytes
from gptcli.artifacts.project import RECIPE
from gptcli.console import Report
from gptcli.errors import GptcliError, SpecError


def recipes_folder() -> Path:
    """The folder of the recipes; GptcliError when this installation has none."""
    package = Path(gptcli.__file__).parent
    for folder in (package / "recipes", package.parent / "recipes"):
        if any(folder.glob(f"*/{RECIPE}")):
            return folder
    raise GptcliError(f"this installation of gptcli has no recipes ({package / 'recipes'})", "pip install gptcli again")


def template_names() -> list[str]:
    return sorted(path.parent.name for path in recipes_folder().glob(f"*/{RECIPE}"))


def copy_recipe(template: str, directory: Path) -> Report:
    """Copy a recipe's files into `directory`.

    A file that is there with the same bytes stays; one with others is never overwritten. Raises SpecError for an
    unknown template, a folder that can't be one, and files in the way.
    """
    names = template_names()
    if template not in names:
        near = difflib.get_close_matches(template, names, 1, 0.5)
        raise SpecError(
            f"there is no template {template}" + (f"; did you mean {near[0]}?" if near else ""),
            f"templates: {', '.join(names)}",
        )
    source = recipes_folder() / template
    files = {path.relative_to(source): path.read_bytes() for path in _files(source)}
    if directory.exists() and not directory.is_dir():
        raise SpecError(f"{directory} is no folder", "choose another name")
    in_the_way = [name.as_posix() for name, data in files.items() if not _may_write(directory / name, data)]
    if in_the_way:
        raise SpecError(
            f"{directory} has these files already, with another content: {', '.join(in_the_way)}",
            "choose an empty folder, or move them away",
        )
    for name, data in files.items():
        if not (directory / name).exists():
            write_bytes(directory / name, data)
    written = sorted(name.as_posix() for name in files)
    rows = [("files", ", ".join(written)), ("next", f"make -C {directory}, or gptcli status -C {directory}")]
    return Report(
        f"a project from the template {template}", str(directory), {"template": template, "files": written}, rows
    )


def _files(source: Path) -> list[Path]:
    found = (path for path in sorted(source.rglob("*")) if path.is_file())
    return [path for path in found if not any(part.startswith((".", "__")) for part in path.relative_to(source).parts)]


def _may_write(target: Path, data: bytes) -> bool:
    if not target.exists() and not target.is_symlink():
        return True
    return target.is_file() and target.read_bytes() == data
