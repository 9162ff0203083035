"""gptcli checkpoint: one command a verb."""

from __future__ import annotations

from typing import Annotated

import typer

from gptcli.options import Place, shared_options

checkpoint = typer.Typer(
    help="""List, show, verify, import, tag and prune models.

    \b
    Example:
      gptcli checkpoint list
    """,
    no_args_is_help=True,
    rich_markup_mode=None,
)
Model = Annotated[str, typer.Argument(help="Run, RUN@best, RUN@1000, MODEL:1.2.0 or a directory.")]


@checkpoint.command("list")
@shared_options(Place)
def list_models(*, shared: Place) -> None:
    """List runs with their checkpoints, and models with their versions and aliases.

    \b
    Example:
      gptcli checkpoint list
    """
    from gptcli.artifacts.project import Project
    from gptcli.checkpoint import list as verb
    from gptcli.console import print_columns, print_json

    found = verb.list_models(Project.open(shared.project, shared.recipe))
    if shared.as_json:
        print_json(found)
    elif rows := verb.table(found):
        print_columns(verb.HEADER, rows)
    else:
        print("no runs and no models yet: gptcli pretrain")


@checkpoint.command("show")
@shared_options(Place)
def show(model: Model, *, shared: Place) -> None:
    """Show a model's shape, size, step, losses, and its lineage back to the source files.

    \b
    Examples:
      gptcli checkpoint show base@best
      gptcli checkpoint show my-gpt:1.2.0 --json
    """
    from gptcli.artifacts.project import Project
    from gptcli.checkpoint import show as verb
    from gptcli.console import print_report

    print_report(verb.show(Project.open(shared.project, shared.recipe), model), shared.as_json)


@checkpoint.command("verify")
@shared_options(Place)
def verify(
    model: Annotated[str, typer.Argument(help="A model, or all: every artifact of the project.")] = "all",
    *,
    finite: Annotated[bool, typer.Option("--finite/--no-finite", help="Look for weights that are not finite.")] = True,
    shared: Place,
) -> None:
    """Check every file against its hash, and that all weights are finite; exit 3 when something is damaged.

    \b
    Examples:
      gptcli checkpoint verify
      gptcli checkpoint verify base@best
    """
    from gptcli.artifacts.project import Project
    from gptcli.checkpoint import verify as verb
    from gptcli.console import print_json, print_rows
    from gptcli.progress import Progress

    project = Project.open(shared.project, shared.recipe)
    with Progress().bar("verifying", None, "bytes") as bar:
        found = verb.verify(project, model, finite, bar.advance)
    if shared.as_json:
        print_json({"artifacts": found, "damaged": sum(bool(entry["problems"]) for entry in found)})
    else:
        print_rows(verb.table(found) or [("nothing to verify", "the project has no artifacts")])
    verb.require_whole(found)


@checkpoint.command("import")
@shared_options(Place)
def import_model(
    path: Annotated[str, typer.Argument(help="A Hugging Face directory, a .gguf, or a .bin of llama2.c.")],
    *,
    name: Annotated[str, typer.Option("--name", help="The run to make of it.")] = "base",
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="Directory or file of its tokenizer (default: the model's own); none: without.", show_default=False
        ),
    ] = None,
    dtype: Annotated[str, typer.Option(help="How weights are stored: auto (as they are), float32, bfloat16.")] = "auto",
    force: Annotated[
        bool, typer.Option("--force", help="Import again; the run that stands is kept as NAME.1.")
    ] = False,
    shared: Place,
) -> None:
    """Make a run of somebody's weights: its checkpoint is then named as any other.

    \b
    Examples:
      gptcli checkpoint import ~/models/Qwen3-0.6B --name base
      gptcli checkpoint import stories15M.bin --name stories
      gptcli checkpoint import model.Q8_0.gguf --dtype bfloat16
    """
    from gptcli.artifacts.project import Project
    from gptcli.checkpoint import importing as verb
    from gptcli.console import print_report
    from gptcli.progress import Progress

    wish = verb.Wish(path, tokenizer, dtype)
    project = Project.open(shared.project, shared.recipe)
    report = verb.import_model(project, wish, name, force, lambda label, total: Progress().bar(label, total, "bytes"))
    print_report(report, shared.as_json)


@checkpoint.command("tag")
@shared_options(Place)
def tag(
    run: Annotated[str, typer.Argument(help="Run, RUN@best or RUN@1000.")],
    version: Annotated[str, typer.Argument(help="Semantic version, for example 1.2.0.")],
    *,
    model: Annotated[
        str | None, typer.Option("--as", metavar="MODEL", help="Name (default: the project's).", show_default=False)
    ] = None,
    alias: Annotated[str | None, typer.Option(help="Let this alias point at it.", show_default=False)] = None,
    with_trainer: Annotated[bool, typer.Option("--with-trainer", help="Take the optimizer's state along.")] = False,
    shared: Place,
) -> None:
    """Make a version of a checkpoint: models/MODEL/VERSION, never overwritten.

    \b
    Examples:
      gptcli checkpoint tag base@best 1.2.0
      gptcli checkpoint tag chat 0.1.0 --as my-chat --alias production
    """
    from gptcli.artifacts.project import Project
    from gptcli.checkpoint import tag as verb
    from gptcli.console import print_report

    project = Project.open(shared.project, shared.recipe)
    report = verb.tag(project, run, version, model=model, alias=alias, with_trainer=with_trainer)
    print_report(report, shared.as_json)


@checkpoint.command("alias")
@shared_options(Place)
def alias(
    version: Annotated[str, typer.Argument(help="MODEL:VERSION.")],
    name: Annotated[str, typer.Argument(help="The alias, for example production.")],
    *,
    shared: Place,
) -> None:
    """Point an alias at a version; MODEL:ALIAS then names it everywhere.

    \b
    Example:
      gptcli checkpoint alias my-gpt:1.2.0 production
    """
    from gptcli.artifacts.project import Project
    from gptcli.checkpoint import tag as verb
    from gptcli.console import print_report

    print_report(verb.point_alias(Project.open(shared.project, shared.recipe), version, name), shared.as_json)


@checkpoint.command("prune")
@shared_options(Place)
def prune(
    run: Annotated[str, typer.Argument(help="The run whose checkpoints go.")],
    *,
    keep: Annotated[int, typer.Option(min=1, help="Keep the latest so many.")],
    every: Annotated[int, typer.Option(min=0, help="Keep every multiple of so many steps; 0: none for that.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    shared: Place,
) -> None:
    """Delete old checkpoints of a run; the best, the latest and those something was made from always stay.

    \b
    Examples:
      gptcli checkpoint prune base --keep 3 --dry-run
      gptcli checkpoint prune base --keep 1 --every 1000
    """
    from gptcli.artifacts.project import Project
    from gptcli.checkpoint import prune as verb
    from gptcli.console import print_report

    report = verb.prune(Project.open(shared.project, shared.recipe), run, keep, every, dry_run)
    print_report(report, shared.as_json)
