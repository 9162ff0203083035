"""What cleaning needs besides a document, made ready outside a build: for the forecast and for `--explain`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gptcli.artifacts.project import Project
from gptcli.corpus.decontamination import Items
from gptcli.corpus.evaluation_items import item_texts
from gptcli.corpus.spec import CorpusSpec, SourceTable, located
from gptcli.corpus.training import with_weights
from gptcli.errors import GptcliError
from gptcli.records.downloads import is_remote
from gptcli.records.pieces import Notes
from gptcli.records.sources import SourceFile, expand

STDIN = "-"


def downloads_of(project: Project) -> Path:
    return project.root / ".gptcli" / "downloads"


def local_files(spec: CorpusSpec, project: Project) -> tuple[list[tuple[SourceFile, SourceTable]], dict[str, str]]:
    """The files of every source that stand here, with their source; and why others don't, by the source's name.

    Uses no network, and leaves standard input alone.
    """
    files: list[tuple[SourceFile, SourceTable]] = []
    missing: dict[str, str] = {}
    for table in spec.tables():
        if table.path == STDIN:
            missing[STDIN] = "standard input is read only when the work is done"
            continue
        try:
            found = expand([table.path], project.root, downloads_of(project), offline=True)
            files += [(file, table) for file in found]
        except GptcliError as error:
            missing[table.name] = "not downloaded yet" if is_remote(table.path) else error.message
    return files, missing


def rehearse(
    spec: CorpusSpec, project: Project, files: Sequence[SourceFile], folder: Path
) -> tuple[CorpusSpec, Items | None]:
    """The spec with its filters' files found and classifiers trained (into `folder`), and the evaluation items.

    Raises SpecError for a file that is gone or can't be used.
    """
    ready, _ = with_weights(located(spec, project), spec.tables(), files, folder)
    if not spec.decontaminate:
        return ready, None
    given = spec.decontamination
    texts = item_texts(expand(spec.decontaminate, project.root), Notes())
    return ready, Items.build(texts, given.ngram, given.action, given.margin)
