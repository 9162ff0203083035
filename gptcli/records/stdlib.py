"""`python:stdlib`: the Python standard library of the interpreter that runs this, real text on every machine."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

from gptcli.errors import SpecError

STDLIB = "python:stdlib"
DOCSTRINGS = "python:docstrings"
LICENSE = "PSF-2.0"

# Tests, an editor's icons and settings, what others installed: not the library itself.
_NOT_LIBRARY = {"test", "tests", "idlelib", "site-packages", "dist-packages", "lib-dynload", "__pycache__"}


def stdlib_files() -> list[tuple[str, Path]]:
    """Every `.py` file of the standard library as (path within it, path here), sorted by the first.

    Left out are its tests, IDLE, and `_sysconfigdata*` (made on the machine that built the interpreter). Raises
    SpecError where the library is not on disk as files.
    """
    root = Path(sysconfig.get_path("stdlib"))
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in _NOT_LIBRARY and not name.startswith(".")]
        found += [
            Path(folder, name)
            for name in files
            if name.endswith(".py") and not name.startswith(("_sysconfigdata", "."))
        ]
    if not found:
        raise SpecError(
            f"{STDLIB}: {root} holds no Python source", "use an interpreter whose standard library is on disk as files"
        )
    return sorted((path.relative_to(root).as_posix(), path) for path in found)
