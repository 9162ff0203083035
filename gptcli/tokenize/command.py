"""gptcli tokenize"""

from __future__ import annotations

from typing import Annotated

import typer

from gptcli.options import Shared, shared_options


@shared_options(Shared)
def tokenize(
    vocab_size: Annotated[
        int | None,
        typer.Option("--vocab-size", help="Ids in the vocabulary to train (8192 unless set).", show_default=False),
    ] = None,
    show: Annotated[
        str | None,
        typer.Option("--show", metavar="TEXT", help="Only show a text's pieces and ids; - reads stdin."),
    ] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Only report on finished tokens and their tokenizer.")] = False,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            "--compare",
            metavar="TOKENIZER",
            help="With --stats or --show: this one beside it, named as the key tokenizer names one (repeatable).",
        ),
    ] = None,
    locate: Annotated[
        str | None,
        typer.Option("--locate", metavar="SPLIT:POSITION", help="Only show where one token came from."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Only read finished tokens again; exit 3 when something is damaged.")
    ] = False,
    *,
    shared: Shared,
) -> None:
    """Train a tokenizer on a corpus, and encode the corpus with it.

    \b
    Examples:
      gptcli tokenize --vocab-size 4096
      gptcli tokenize --name other --set corpus=mine --set tokenizer=main
      gptcli tokenize --show "Hello, world!"
      gptcli tokenize --stats --compare ./gpt2
      gptcli tokenize --locate train:1000000
      gptcli tokenize --verify
    """
    views = {"--show": show is not None, "--stats": stats, "--locate": locate is not None, "--verify": verify}
    chosen = [name for name, is_wanted in views.items() if is_wanted]
    _require_one(chosen, compare or [], _given(vocab_size, shared))
    if show is not None:
        _show(show, compare or [], shared)
    elif stats:
        _stats(compare or [], shared)
    elif locate is not None:
        _locate(locate, shared)
    elif verify:
        _verify(shared)
    else:
        from gptcli import stage

        stage.execute("tokenize", shared, {"vocab_size": vocab_size})


def _show(text: str, compare: list[str], shared: Shared) -> None:
    from gptcli.artifacts.project import Project
    from gptcli.tokenize.views import showing

    project = Project.open(shared.project, shared.recipe)
    showing.print_shown(showing.show(project, shared.name, text, compare), shared.as_json)


def _stats(compare: list[str], shared: Shared) -> None:
    from gptcli.artifacts.project import Project
    from gptcli.progress import Progress, Silent
    from gptcli.tokenize.views import inspect

    project = Project.open(shared.project, shared.recipe)
    progress = Silent() if shared.quiet else Progress()
    inspect.print_shown(inspect.report(project, shared.name, compare, progress), shared.as_json)


def _locate(wanted: str, shared: Shared) -> None:
    from gptcli.artifacts.project import Project
    from gptcli.tokenize.views import locate

    project = Project.open(shared.project, shared.recipe)
    locate.print_shown(locate.locate(project, shared.name, wanted), shared.as_json)


def _verify(shared: Shared) -> None:
    from gptcli.artifacts.project import Project
    from gptcli.progress import Progress, Silent
    from gptcli.tokenize.views import verify

    project = Project.open(shared.project, shared.recipe)
    report = verify.verify(project, shared.name, Silent() if shared.quiet else Progress())
    verify.print_shown(report, shared.as_json)
    verify.require_whole(report)


def _given(vocab_size: int | None, shared: Shared) -> list[str]:
    """The names of what was given that only makes tokens."""
    given = {
        "--vocab-size": vocab_size is not None,
        "--set": bool(shared.settings),
        "--dry-run": shared.dry_run,
        "--update": shared.update,
        "--force": shared.force,
    }
    return [name for name, is_given in given.items() if is_given]


def _require_one(chosen: list[str], compare: list[str], given: list[str]) -> None:
    """SpecError where two views are asked for, or one together with what makes tokens."""
    from gptcli.errors import SpecError

    if len(chosen) > 1:
        raise SpecError(f"{' and '.join(chosen)} do not go together", "give one of them")
    if chosen and given:
        names = " and ".join(given)
        raise SpecError(
            f"{chosen[0]} shows what is finished, and makes nothing: {names} would do nothing",
            f"leave out {names}, or leave out {chosen[0]}",
        )
    if compare and chosen not in (["--show"], ["--stats"]):
        raise SpecError(
            "--compare sets other tokenizers beside --show or --stats, and was given without them",
            "gptcli tokenize --stats --compare DIRECTORY",
        )
