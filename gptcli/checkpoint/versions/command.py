"""gptcli checkpoint tag, alias, rollback, promote, log, push and pull."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gptcli.options import Place, shared_options

Message = Annotated[str | None, typer.Option("--message", "-m", help="Why; kept in the log.", show_default=False)]
Alias = Annotated[str, typer.Argument(help="MODEL:ALIAS, or an alias of the project's own model.")]
Bump = Annotated[
    str | None,
    typer.Option(
        help="In place of VERSION: the one after the highest release, by major, minor or patch.", show_default=False
    ),
]
Name = Annotated[
    str | None, typer.Option("--as", metavar="MODEL", help="Name (default: the project's).", show_default=False)
]
Offline = Annotated[bool, typer.Option("--offline", help="Ask no network.")]


def open_bar(label: str, total: float) -> Any:
    """A bar of bytes, for the length of a `with` block."""
    from gptcli.progress import Progress

    return Progress().bar(label, total, "bytes")


@shared_options(Place)
def tag(
    run: Annotated[str, typer.Argument(help="Run, RUN@best or RUN@1000.")],
    version: Annotated[
        str | None, typer.Argument(help="Semantic version, for example 1.2.0.", show_default=False)
    ] = None,
    *,
    bump: Bump = None,
    model: Name = None,
    alias: Annotated[str | None, typer.Option(help="Let this alias point at it.", show_default=False)] = None,
    message: Message = None,
    with_trainer: Annotated[bool, typer.Option("--with-trainer", help="Take the optimizer's state along.")] = False,
    shared: Place,
) -> None:
    """Make a version of a checkpoint: models/MODEL/VERSION, never overwritten.

    --bump counts on from the highest release, from the highest pre-release where there is no release, and from 0.0.0
    where there is neither; it makes a version at every call.

    \b
    Examples:
      gptcli checkpoint tag base@best 1.2.0
      gptcli checkpoint tag base@best --bump minor --message 'twice the data'
      gptcli checkpoint tag chat 0.1.0 --as my-chat --alias production
    """
    from gptcli.artifacts.project import Project
    from gptcli.checkpoint import tag as verb
    from gptcli.console import print_report

    project = Project.open(shared.project, shared.recipe)
    report = verb.tag(
        project,
        run,
        version,
        bump=bump,
        model=model,
        alias=alias,
        message=message,
        with_trainer=with_trainer,
    )
    print_report(report, shared.as_json)


@shared_options(Place)
def alias(
    first: Annotated[str, typer.Argument(metavar="VERSION", help="MODEL:VERSION, or one of the project's own model.")],
    second: Annotated[
        str | None, typer.Argument(metavar="ALIAS", help="The alias, for example production.", show_default=False)
    ] = None,
    *,
    delete: Annotated[bool, typer.Option("--delete", help="Take MODEL:ALIAS, named alone, away.")] = False,
    message: Message = None,
    shared: Place,
) -> None:
    """Point an alias at a version; MODEL:ALIAS then names it everywhere. The two words stand in either order.

    \b
    Examples:
      gptcli checkpoint alias my-gpt:1.2.0 production
      gptcli checkpoint alias production 1.2.0
      gptcli checkpoint alias my-gpt:staging --delete
    """
    from gptcli.artifacts.project import Project
    from gptcli.checkpoint import alias as verb
    from gptcli.console import print_report

    project = Project.open(shared.project, shared.recipe)
    print_report(verb.alias(project, first, second, delete, message), shared.as_json)


@shared_options(Place)
def rollback(
    name: Alias,
    *,
    to: Annotated[
        str | None, typer.Option("--to", metavar="VERSION", help="Not the one before but this.", show_default=False)
    ] = None,
    message: Message = None,
    shared: Place,
) -> None:
    """Let an alias point where it did before, by the log; again, and it goes further back.

    \b
    Examples:
      gptcli checkpoint rollback production --message 'answers in French'
      gptcli checkpoint rollback my-gpt:production --to 1.1.0
    """
    from gptcli.artifacts.project import Project
    from gptcli.checkpoint import rollback as verb
    from gptcli.console import print_report

    print_report(verb.rollback(Project.open(shared.project, shared.recipe), name, to, message), shared.as_json)


@shared_options(Place)
def promote(
    run: Annotated[str, typer.Argument(help="Run, RUN@best or RUN@1000.")],
    version: Annotated[
        str | None, typer.Argument(help="Its version (default: the next one).", show_default=False)
    ] = None,
    *,
    gate: Annotated[str, typer.Option(metavar="FILE.toml", help="What to measure, and when it fails.")],
    bump: Bump = None,
    model: Name = None,
    alias: Annotated[
        str | None, typer.Option(help="The alias that moves.", show_default="the gate's, or production")
    ] = None,
    message: Message = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    shared: Place,
) -> None:
    """Evaluate a checkpoint, and only if it passes the gates tag it and move the alias; else exit 5, nothing changed.

    FILE.toml has [eval] with keys of an evaluation (tasks, text, split …), [gates] with fail_if = ["arc.acc <
    baseline - 0.01", …], and may say alias, model and bump. The baseline is what the alias points at.

    \b
    Examples:
      gptcli checkpoint promote base@best --gate gates.toml
      gptcli checkpoint promote chat 2.0.0 --gate gates.toml --alias staging --as my-chat
    """
    from gptcli.artifacts.project import Project
    from gptcli.checkpoint import promote as verb
    from gptcli.console import print_report
    from gptcli.progress import Progress

    project = Project.open(shared.project, shared.recipe)
    wish = verb.Wish(run, gate, version=version, bump=bump, model=model, alias=alias, message=message, device=device)
    print_report(verb.promote(project, wish, Progress().say), shared.as_json)


@shared_options(Place)
def log(
    name: Annotated[
        str | None,
        typer.Argument(help="A model, MODEL:ALIAS, MODEL:1.2.0 or a run (default: all).", show_default=False),
    ] = None,
    *,
    shared: Place,
) -> None:
    """Tell who made which version what, when and why; and which checkpoints of runs were pruned.

    \b
    Examples:
      gptcli checkpoint log
      gptcli checkpoint log my-gpt:production --json
    """
    from gptcli.artifacts.project import Project
    from gptcli.checkpoint import log as verb
    from gptcli.console import print_columns, print_json

    entries = verb.log(Project.open(shared.project, shared.recipe), name)
    if shared.as_json:
        print_json({"entries": entries})
    elif entries:
        print_columns(verb.HEADER, verb.table(entries))
    else:
        print(f"nothing{f' of {name}' if name else ''} has been tagged or pruned yet: gptcli checkpoint tag RUN 0.1.0")


@shared_options(Place)
def push(
    version: Annotated[str, typer.Argument(help="MODEL:VERSION, or MODEL:ALIAS.")],
    to: Annotated[
        str, typer.Argument(metavar="DEST", help="A folder, s3://… or another fsspec URL, or hf://ORG/REPO.")
    ],
    *,
    offline: Offline = False,
    shared: Place,
) -> None:
    """Send a version elsewhere, as DEST/MODEL/VERSION, and read every byte back; goes on where it was cut short.

    On the Hub it becomes the repository's main branch, with the version as a tag; a repository that is made is private.
    A version that stands there with another content is never overwritten.

    \b
    Examples:
      gptcli checkpoint push my-gpt:1.2.0 /mnt/models
      gptcli checkpoint push my-gpt:production s3://bucket/models
      gptcli checkpoint push my-gpt:1.2.0 hf://me/my-gpt
    """
    from gptcli.artifacts.project import Project
    from gptcli.checkpoint import push as verb
    from gptcli.console import print_report

    report = verb.push(Project.open(shared.project, shared.recipe), version, to, offline, open_bar)
    print_report(report, shared.as_json)


@shared_options(Place)
def pull(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Where a version lies: DEST/MODEL/VERSION of a push.")],
    *,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="MODEL", help="Its name here (default: its own).", show_default=False),
    ] = None,
    offline: Offline = False,
    shared: Place,
) -> None:
    """Fetch a version that was pushed: models/MODEL/VERSION, every byte checked; goes on where it was cut short.

    \b
    Examples:
      gptcli checkpoint pull /mnt/models/my-gpt/1.2.0
      gptcli checkpoint pull hf://me/my-gpt@1.2.0 --name theirs
    """
    from gptcli.artifacts.project import Project
    from gptcli.checkpoint import pull as verb
    from gptcli.console import print_report

    report = verb.pull(Project.open(shared.project, shared.recipe), source, name, offline, open_bar)
    print_report(report, shared.as_json)
