"""`python:docstrings`: questions and answers made from the standard library's docstrings, read with `ast`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gptcli.records.stdlib import STDLIB, stdlib_files

# Modules under another name than the one people import them by.
_SPOKEN = {
    "posixpath": "os.path",
    "genericpath": "os.path",
    "_collections_abc": "collections.abc",
    "_pydatetime": "datetime",
    "_pydecimal": "decimal",
    "_pyio": "io",
}
# os.path's twin on Windows would repeat its answers; a codec's docstring says only which table it was made from, and
# a demo's that it is one.
_LEFT_OUT = ("ntpath", "encodings", "turtledemo")
_FEWEST_WORDS, _LONGEST = 3, 1000  # words, characters of an answer

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Docstring:
    """A public name of the standard library, the question about it, and its docstring's first paragraph."""

    name: str  # os.path.join
    question: str
    answer: str
    where: str  # file:line


def docstrings() -> Iterator[Docstring]:
    """Public modules, classes, functions and methods that have a docstring, in the files' order; nothing is imported.

    A name is public when no part of it begins with an underscore. A name met again is left out, and so are answers of
    under 3 words or over 1,000 characters and those that only repeat the call ("string_at(addr[, size]) -> string").
    """
    seen: set[str] = set()
    for file, path in stdlib_files():
        module = _module_name(file)
        if module is None:
            continue
        for found in _of_module(module, path, f"{STDLIB}/{file}"):
            if found.name not in seen and _is_answer(found):
                seen.add(found.name)
                yield found


def _is_answer(found: Docstring) -> bool:
    calls = found.answer.startswith(f"{found.name.rpartition('.')[2]}(")
    return not calls and len(found.answer) <= _LONGEST and len(found.answer.split()) >= _FEWEST_WORDS


def _module_name(file: str) -> str | None:
    """The name a module of the library is imported by; None when it is not public."""
    name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    name = _SPOKEN.get(name, name)
    parts = name.split(".")
    public = all(part.isidentifier() and not part.startswith("_") for part in parts)
    return name if public and parts[0] not in _LEFT_OUT else None


def _of_module(module: str, path: Path, where: str) -> Iterator[Docstring]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # lib2to3 and others keep files in the syntax of other versions
        return
    if path.stem not in _SPOKEN:
        yield Docstring(module, f"What is the module {module} for?", _first_paragraph(tree), f"{where}:1")
    for name, node in _definitions(tree, module):
        verb = f"What is {name}?" if isinstance(node, ast.ClassDef) else f"What does {name} do?"
        yield Docstring(name, verb, _first_paragraph(node), f"{where}:{node.lineno}")


def _definitions(node: ast.AST, prefix: str) -> Iterator[tuple[str, _Definition]]:
    """Public functions and classes, and what public classes hold; also those behind an `if` or a `try`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _Definition):
            if child.name.startswith("_"):
                continue
            name = f"{prefix}.{child.name}"
            yield name, child
            if isinstance(child, ast.ClassDef):
                yield from _definitions(child, name)
        elif isinstance(child, ast.If | ast.Try | ast.ExceptHandler | ast.With):
            yield from _definitions(child, prefix)


def _first_paragraph(node: _Definition | ast.Module) -> str:
    """The first paragraph of a docstring, whitespace normalised; "" where there is none."""
    paragraph: list[str] = []
    for line in (ast.get_docstring(node) or "").splitlines():
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            break
    return " ".join(" ".join(paragraph).split())
