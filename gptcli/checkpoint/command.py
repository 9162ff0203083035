"""gptcli checkpoint: one command a verb."""

from __future__ import annotations

from typing import Annotated

import typer

from gptcli.checkpoint.versions.command import alias, log, open_bar, promote, pull, push, rollback, tag
from gptcli.options import Place, shared_options

checkpoint = typer.Typer(
    help="""List, show, verify, compare, combine, import and prune models; make, name and move versions of them.

    \b
    Example:
      gptcli checkpoint list
    """,
    no_args_is_help=True,
    rich_markup_mode=None,
)
Model = Annotated[str, typer.Argument(help="Run, RUN@best, RUN@1000, MODEL:1.2.0 or a directory.")]
NewRun = Annotated[str, typer.Option("--name", help="The run to make of them.")]
Again = Annotated[bool, typer.Option("--force", help="Make it again; the run that stands is kept as NAME.1.")]


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
    from gptcli.console import print_json

    found = verb.list_models(Project.open(shared.project, shared.recipe))
    if shared.as_json:
        print_json(found)
    elif found["runs"] or found["models"]:
        verb.print_models(found)
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
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Also load every model, generate, and compare its cached and uncached logits."),
    ] = False,
    shared: Place,
) -> None:
    """Check every file against its hash, and that all weights are finite; exit 3 when something is damaged.

    all: the logs of versions and of runs too, and that no version and no checkpoint has lost its manifest.

    \b
    Examples:
      gptcli checkpoint verify
      gptcli checkpoint verify base@best --deep
    """
    from gptcli.artifacts.project import Project
    from gptcli.checkpoint import verify as verb
    from gptcli.console import print_json, print_rows

    project = Project.open(shared.project, shared.recipe)
    with open_bar("verifying", verb.bytes_to_check(project, model)) as bar:
        found = verb.verify(project, model, finite, bar.advance, deep)
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

    wish = verb.Wish(path, tokenizer, dtype)
    report = verb.import_model(Project.open(shared.project, shared.recipe), wish, name, force, open_bar)
    print_report(report, shared.as_json)


@checkpoint.command("diff")
@shared_options(Place)
def diff(
    one: Model,
    other: Model,
    *,
    picture: Annotated[
        str | None,
        typer.Option("--picture", metavar="FILE.svg", help="Draw which layers moved, as SVG.", show_default=False),
    ] = None,
    shared: Place,
) -> None:
    """Show how two models differ: their configs, and by norm and cosine each tensor; which layers moved.

    \b
    Examples:
      gptcli checkpoint diff base@100 base@1000
      gptcli checkpoint diff base@100 base@1000 --picture moved.svg
    """
    from gptcli.artifacts.project import Project
    from gptcli.checkpoint import diff as verb
    from gptcli.console import print_report

    report = verb.diff(Project.open(shared.project, shared.recipe), one, other, picture, open_bar)
    print_report(report, shared.as_json)


@checkpoint.command("average")
@shared_options(Place)
def average(
    models: Annotated[list[str], typer.Argument(metavar="MODELS…", help="Two or more models of one shape.")],
    *,
    name: NewRun,
    method: Annotated[
        str | None, typer.Option(help="uniform, ema, linear or spherical.", show_default="uniform")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="1,2,1: one a model, for uniform; divided by their sum.", show_default=False)
    ] = None,
    t: Annotated[
        float | None, typer.Option(help="linear, spherical: 0 is the first, 1 the second.", show_default="0.5")
    ] = None,
    decay: Annotated[
        float | None, typer.Option(help="ema: share of what came before at each model, 0 to 1.", show_default="0.9")
    ] = None,
    force: Again = False,
    shared: Place,
) -> None:
    """Make a run whose weights are an average of other models' weights.

    \b
    Examples:
      gptcli checkpoint average base@800 base@900 base@1000 --name soup
      gptcli checkpoint average base@900 base@1000 --method spherical --t 0.3 --name between
    """
    from gptcli.artifacts.project import Project
    from gptcli.checkpoint import average as verb
    from gptcli.console import print_report

    wish = verb.Wish(method, weights, t, decay)
    report = verb.average(Project.open(shared.project, shared.recipe), models, wish, name, force, open_bar)
    print_report(report, shared.as_json)


@checkpoint.command("merge")
@shared_options(Place)
def merge(
    adapter: Annotated[str, typer.Argument(help="A model that is an adapter.")],
    *,
    name: NewRun,
    force: Again = False,
    shared: Place,
) -> None:
    """Make a run of an adapter's base with the adapter in its weights.

    \b
    Example:
      gptcli checkpoint merge chat --name chat-merged
    """
    from gptcli.artifacts.project import Project
    from gptcli.checkpoint import merge as verb
    from gptcli.console import print_report

    report = verb.merge(Project.open(shared.project, shared.recipe), adapter, name, force, open_bar)
    print_report(report, shared.as_json)


@checkpoint.command("prune")
@shared_options(Place)
def prune(
    run: Annotated[str, typer.Argument(help="The run whose checkpoints go.")],
    *,
    keep: Annotated[int, typer.Option(min=1, help="Keep the latest so many.")],
    keep_best: Annotated[int, typer.Option(min=1, help="Keep so many with the lowest validation loss.")] = 1,
    every: Annotated[int, typer.Option(min=0, help="Keep every multiple of so many steps; 0: none for that.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    shared: Place,
) -> None:
    """Delete old checkpoints of a run; the best, the latest and those something was made from always stay.

    \b
    Examples:
      gptcli checkpoint prune base --keep 3 --dry-run
      gptcli checkpoint prune base --keep 1 --keep-best 3 --every 1000
    """
    from gptcli.artifacts.project import Project
    from gptcli.checkpoint import prune as verb
    from gptcli.console import print_report

    report = verb.prune(Project.open(shared.project, shared.recipe), run, verb.Rule(keep, keep_best, every), dry_run)
    print_report(report, shared.as_json)


checkpoint.command("tag")(tag)
checkpoint.command("alias")(alias)
checkpoint.command("rollback")(rollback)
checkpoint.command("promote")(promote)
checkpoint.command("log")(log)
checkpoint.command("push")(push)
checkpoint.command("pull")(pull)
