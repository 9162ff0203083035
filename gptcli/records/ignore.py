"""Which files of a folder its .gitignore files leave out, as git tells it (gitignore(5), wildmatch)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

GITIGNORE = ".gitignore"
_TRIMMED = re.compile(r"((?:\\.|[^\\])*?) *", re.DOTALL)
_SPECIAL = re.compile(r"[*?\[\\]")
_POSIX_CLASSES = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": " \\t",
    "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": "!-/:-@\\[-`{-~",
    "space": " \\t\\n\\r\\f\\v",
    "upper": "A-Z",
    "xdigit": "0-9a-fA-F",
}


@dataclass(frozen=True)
class Rule:
    """One line of a .gitignore file."""

    pattern: re.Pattern[str]
    is_negated: bool
    folders_only: bool
    by_name: bool  # matched against the last part of a path, else against the path from the .gitignore's folder


class Rules:
    """The rules of one .gitignore file, which hold for what lies in its folder and below."""

    def __init__(self, lines: list[str]) -> None:
        made = [rule for line in lines if (rule := _rule(line)) is not None]
        self._rules = made[::-1]  # the last one that matches decides
        self._names = _any_of([rule for rule in made if rule.by_name])
        self._paths = _any_of([rule for rule in made if not rule.by_name])

    def decide(self, path: str, name: str, is_folder: bool) -> bool | None:
        """Whether the rules leave out a file or folder; None: no rule speaks of it.

        path: from the .gitignore's folder, with / between; name: its last part; both as `_bytewise` gives them. What
        stands around it is not looked at: who walks top down does not enter a folder that is left out.
        """
        by_name = self._names is not None and self._names.fullmatch(name) is not None
        if not by_name and (self._paths is None or self._paths.fullmatch(path) is None):
            return None
        for rule in self._rules:
            if (is_folder or not rule.folders_only) and rule.pattern.fullmatch(name if rule.by_name else path):
                return not rule.is_negated
        return None


def read_rules(path: Path) -> Rules | None:
    """The rules of a .gitignore file; None where there is none, or (as git has it) only a link to one."""
    if path.is_symlink() or not path.is_file():
        return None
    text = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("latin-1")
    return Rules([line.removesuffix("\r") for line in text.split("\n")])


_Stack = tuple[tuple[int, Rules], ...]  # with the characters of each one's folder, from the top, and its slash


class Ignored:
    """What is left out of one folder while it is walked from the top down, and how much that is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        exclude = read_rules(folder / ".git" / "info" / "exclude")
        self._stacks: dict[str, _Stack] = {}
        self._exclude = ((0, exclude),) if exclude is not None else ()
        self.files = 0
        self.folders = 0  # whose files were not counted

    def enter(self, inside: str, has_rules: bool) -> None:
        """Take up the rules of a folder (`inside`: its path from the top, "" for the top) after those of its parent."""
        stack = self._stacks.get(inside.rpartition("/")[0], self._exclude) if inside else self._exclude
        if has_rules:
            rules = read_rules(self._folder / inside / GITIGNORE)
            if rules is not None:
                stack = (*stack, (len(_bytewise(inside)) + 1 if inside else 0, rules))
        self._stacks[inside] = stack

    def kept(self, inside: str, names: list[str], is_folder: bool) -> list[str]:
        """Those of a folder's files or subfolders that no rule leaves out; the others are counted."""
        stack = self._stacks[inside]
        if not stack:
            return names
        prefix = _bytewise(f"{inside}/" if inside else "")
        found = [name for name in names if not _decide(stack, prefix, _bytewise(name), is_folder)]
        if is_folder:
            self.folders += len(names) - len(found)
        else:
            self.files += len(names) - len(found)
        return found


def _decide(stack: _Stack, prefix: str, name: str, is_folder: bool) -> bool:
    path = prefix + name
    for begin, rules in reversed(stack):  # the deepest file that speaks of it decides
        decided = rules.decide(path[begin:], name, is_folder)
        if decided is not None:
            return decided
    return False


def _bytewise(name: str) -> str:
    """A character for every byte: to git a `?` is one byte."""
    return name if name.isascii() else os.fsencode(name).decode("latin-1")


def _any_of(rules: list[Rule]) -> re.Pattern[str] | None:
    """One pattern for all, so that a path no rule speaks of costs one match."""
    return re.compile("|".join(f"(?:{rule.pattern.pattern})" for rule in rules), re.DOTALL) if rules else None


def _rule(line: str) -> Rule | None:
    """The rule in a line; None for a blank one, a comment, or a pattern that can match nothing."""
    line = _without_trailing_spaces(line)
    if not line or line.startswith("#"):
        return None
    is_negated = line.startswith("!")
    line = line[is_negated:]
    folders_only = line.endswith("/")
    line = line[:-1] if folders_only else line
    by_name = "/" not in line
    translated = _translate(line.removeprefix("/"))
    if translated is None or not line:
        return None
    return Rule(re.compile(translated, re.DOTALL), is_negated, folders_only, by_name)


def _without_trailing_spaces(line: str) -> str:
    """Spaces at the end count only behind a backslash."""
    found = _TRIMMED.fullmatch(line)
    return found[1] if found else line


def _translate(pattern: str) -> str | None:
    """A wildmatch pattern as a regular expression for a whole path; None where it is broken and matches nothing."""
    made, at = [], 0
    while at < len(pattern):
        char = pattern[at]
        if char == "*":
            end = at
            while pattern[end : end + 1] == "*":
                end += 1
            piece, at = _stars(pattern, at, end)
            made.append(piece)
        elif char == "?":
            made.append("[^/]")
            at += 1
        elif char == "[":
            bracket = _bracket(pattern, at)
            if bracket is None:
                return None
            made.append(bracket[0])
            at = bracket[1]
        elif char == "\\":
            if at + 1 == len(pattern):
                return None
            made.append(re.escape(pattern[at + 1]))
            at += 2
        else:
            made.append(re.escape(char))
            at += 1
    return "".join(made)


def _stars(pattern: str, begin: int, end: int) -> tuple[str, int]:
    """Stars from begin to end: two that are a whole part of the path cross slashes, all others do not.

    Git compares what stands before the first special character by itself, and takes stars right behind it for the
    beginning of a part: `a**/b` matches `ax/y/b`.
    """
    is_part = end - begin >= 2 and (pattern[begin - 1 : begin] == "/" or not _SPECIAL.search(pattern, 0, begin))
    if is_part and pattern[end : end + 1] == "/":
        return "(?:.*/)?", end + 1
    if is_part and end == len(pattern):
        return ".*", end
    return "[^/]*", end


def _bracket(pattern: str, begin: int) -> tuple[str, int] | None:
    """A character class and where it ends; None where it doesn't, or names an unknown class."""
    at = begin + 1
    is_negated = pattern[at : at + 1] in ("!", "^") and at < len(pattern)
    at += is_negated
    inside, first = "", True
    while at < len(pattern) and (first or pattern[at] != "]"):
        first = False
        close = pattern.find("]", at + 2)
        if pattern.startswith("[:", at) and close > at + 2 and pattern[close - 1] == ":":
            known = _POSIX_CLASSES.get(pattern[at + 2 : close - 1])
            if known is None:
                return None
            inside, at = inside + known, close + 1
            continue
        low, at = _literal(pattern, at)
        high = low
        if pattern[at : at + 1] == "-" and pattern[at + 1 : at + 2] not in ("", "]"):
            high, at = _literal(pattern, at + 1)
        inside += re.escape(low)  # also where the range is the wrong way round
        if low < high:
            inside += f"-{re.escape(high)}"
    if at >= len(pattern):
        return None
    return f"(?!/)[{'^' if is_negated else ''}{inside}]", at + 1


def _literal(pattern: str, at: int) -> tuple[str, int]:
    if pattern[at] == "\\" and at + 1 < len(pattern):
        return pattern[at + 1], at + 2
    return pattern[at], at + 1
