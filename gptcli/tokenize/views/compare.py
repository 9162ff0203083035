"""The tokenizer of a tokens artifact, and others named beside it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gptcli.artifacts.project import Project
from gptcli.errors import ArtifactError
from gptcli.tokenize.importing import import_tokenizer
from gptcli.tokenize.spec import DEFAULT_NAME, FOLDER, TokenizeSpec, tokenizer_source
from gptcli.tokenize.views.artifact import TOKENIZER, finished
from gptcli.tokenizer import Tokenizer


@dataclass(frozen=True)
class Named:
    """An opened tokenizer and how the person named it; `path` from the project."""

    name: str
    path: str
    tokenizer: Tokenizer


def open_named(project: Project, name: str | None, others: Sequence[str]) -> list[Named]:
    """The tokenizer of tokens/NAME (`main` unless named), then `others`, each named as the key `tokenizer` names one.

    Where others are given and no name, tokens/main may be missing. Raises ArtifactError for one that isn't there.
    """
    place = project.place(FOLDER, name or DEFAULT_NAME) / TOKENIZER
    found = []
    if name or not others or place.is_dir():
        if not place.is_dir():
            finished(project, name)  # its error tells what is missing, and the command that makes it
        found.append(Named(f"{FOLDER}/{name or DEFAULT_NAME}", project.relative(place), Tokenizer.load(place)))
    return [*found, *(open_other(project, typed) for typed in others)]


def open_other(project: Project, typed: str) -> Named:
    """A tokenizer as the key `tokenizer` names it, opened as it would be taken. Raises ArtifactError where there is
    none, or where it is broken."""
    source = tokenizer_source(TokenizeSpec.model_validate({"tokenizer": typed}), project)
    with tempfile.TemporaryDirectory(prefix="gptcli-compare-") as folder:
        try:
            import_tokenizer(source, Path(folder))
            return Named(typed, project.relative(source.main), Tokenizer.load(Path(folder)))
        except ArtifactError as error:  # it names the copy
            raise ArtifactError(error.message.replace(folder, str(source.main.parent)), error.hint) from None
