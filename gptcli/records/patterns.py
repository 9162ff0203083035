"""Which of the files that lie elsewhere a typed path means: one file, a folder's, or those that match a glob."""

from __future__ import annotations

import re
from collections.abc import Iterable

_MAGIC = re.compile(r"[*?\[]")


def chosen(paths: Iterable[str], typed: str) -> list[str]:
    """The paths (with / between their parts) that `typed` means, sorted; "" means all.

    `*` and `?` stay within a part of the path, `**` goes deeper. Hidden files and folders must be typed as such.
    """
    known = sorted(paths)
    typed = typed.strip("/")
    if typed in known:
        return [typed]
    within = f"{typed}/" if typed else ""
    found = [path for path in known if path.startswith(within) and not _is_hidden(path[len(within) :])]
    if found or not _MAGIC.search(typed):
        return found
    pattern = re.compile(_translate(typed), re.DOTALL)
    may_hide = any(part.startswith(".") for part in typed.split("/"))
    return [path for path in known if pattern.fullmatch(path) and (may_hide or not _is_hidden(path))]


def has_magic(typed: str) -> bool:
    return _MAGIC.search(typed) is not None


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def _translate(glob: str) -> str:
    made = []
    for token in re.findall(r"\*\*/|\*\*|\*|\?|\[[!^]?\]?[^\]]*\]|.", glob, re.DOTALL):
        if token == "**/":
            made.append("(?:.*/)?")
        elif token == "**":
            made.append(".*")
        elif token in ("*", "?"):
            made.append("[^/]*" if token == "*" else "[^/]")
        elif len(token) > 1:
            is_negated = token[1] in "!^"
            inside = token[1 + is_negated : -1].replace("\\", r"\\").replace("[", r"\[").replace("]", r"\]")
            made.append(f"(?!/)[{'^' if is_negated else ''}{inside}]")
        else:
            made.append(re.escape(token))
    return "".join(made)
