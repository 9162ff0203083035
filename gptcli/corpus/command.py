"""gptcli corpus"""

from __future__ import annotations

from typing import Annotated

import typer

from gptcli.options import Shared, shared_options


@shared_options(Shared)
def corpus(
    source: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders, globs, URLs, hf://datasets/…, - or python:stdlib.", show_default=False),
    ] = None,
    show: Annotated[
        int | None,
        typer.Option("--show", metavar="N", min=0, help="Only show a finished corpus: figures, N documents a split."),
    ] = None,
    explain: Annotated[
        str | None,
        typer.Option("--explain", metavar="ID", help="Only show one document's way: its id, or PATH:OFFSET."),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use no network, only earlier downloads.")] = False,
    *,
    shared: Shared,
) -> None:
    """Gather, clean, deduplicate and split text into a corpus.

    \b
    Examples:
      gptcli corpus python:stdlib
      gptcli corpus books/ 'notes/*.jsonl' --name mine --set min_chars=200
      gptcli corpus --name mine --dry-run
      gptcli corpus --name mine --show 3
      gptcli corpus --name mine --explain 3fa41c
    """
    _require_one(show, explain, _given(source, offline, shared))
    if show is not None:
        from gptcli.artifacts.project import Project
        from gptcli.corpus import inspect

        project = Project.open(shared.project, shared.recipe)
        inspect.print_shown(inspect.show(project, shared.name or "main", show), shared.as_json)
    elif explain is not None:
        from gptcli.artifacts.project import Project
        from gptcli.console import print_report
        from gptcli.corpus.explain import explain as explained

        project = Project.open(shared.project, shared.recipe)
        print_report(explained(project, shared.name or "main", explain), shared.as_json)
    else:
        from gptcli import stage

        stage.execute("corpus", shared, {"source": source or None, "offline": offline or None})


def _given(source: list[str] | None, offline: bool, shared: Shared) -> dict[str, str]:
    """What was given that only makes a corpus, by its name; the value as it was typed, "" for a flag."""
    given = {"the sources": " ".join(source or []), "--set": " ".join(shared.settings or [])}
    flags = {
        "--dry-run": shared.dry_run,
        "--update": shared.update,
        "--force": shared.force,
        "--offline": offline,
    }
    return {name: value for name, value in given.items() if value} | {name: "" for name, on in flags.items() if on}


def _require_one(show: int | None, explain: str | None, given: dict[str, str]) -> None:
    """SpecError where a finished corpus is asked for in two ways, or together with what makes one."""
    from gptcli.errors import SpecError

    options = [name for name, wanted in (("--show", show), ("--explain", explain)) if wanted is not None]
    if len(options) > 1:
        raise SpecError(f"{' and '.join(options)} do not go together", "give one of them")
    if options and "the sources" in given:
        raise SpecError(
            f"{options[0]} shows a corpus that is finished, and reads no sources: {given['the sources']}",
            f"leave out the sources and name the corpus with --name, or leave out {options[0]}",
        )
    if options and given:
        names = " and ".join(given)
        raise SpecError(
            f"{options[0]} shows a corpus that is finished, and makes none: {names} would do nothing",
            f"leave out {names}, or leave out {options[0]}",
        )
