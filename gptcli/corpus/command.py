"""gptcli corpus"""

from __future__ import annotations

from typing import Annotated

import typer

from gptcli.options import Shared, shared_options


@shared_options(Shared)
def corpus(
    source: Annotated[
        list[str] | None, typer.Argument(help="Files, folders, globs or python:stdlib.", show_default=False)
    ] = None,
    show: Annotated[
        int | None,
        typer.Option("--show", metavar="N", min=0, help="Only show a finished corpus: counts, N documents a split."),
    ] = None,
    *,
    shared: Shared,
) -> None:
    """Gather, clean, deduplicate and split text into a corpus.

    \b
    Examples:
      gptcli corpus python:stdlib
      gptcli corpus books/ 'notes/*.jsonl' --name mine --set min_chars=200
      gptcli corpus --name mine --show 3
    """
    if show is not None:
        from gptcli.artifacts.project import Project
        from gptcli.console import print_report
        from gptcli.corpus import inspect

        project = Project.open(shared.project, shared.recipe)
        print_report(inspect.show(project, shared.name or "main", show), shared.as_json)
        return
    from gptcli import stage

    stage.execute("corpus", shared, {"source": source or None})
