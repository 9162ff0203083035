"""The user's files that a filter names, found as sources are: from the project, with globs, folders and ~."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gptcli.errors import SpecError
from gptcli.records.sources import expand


def paths_of(typed: Iterable[str], root: Path) -> list[str]:
    """The files behind what was typed, in order, as absolute paths where `root` is one; SpecError as `expand`."""
    return [str(file.path) for one in typed for file in expand([one], root)]


def path_of(key: str, typed: str, root: Path) -> str:
    """The one file behind what was typed for `key`; SpecError where it is several, or as `expand`."""
    paths = paths_of([typed], root)
    if len(paths) > 1:
        raise SpecError(f"{key} = {typed} is {len(paths)} files, and takes one", "join them, or name one of them")
    return paths[0]
