"""gptcli pretrain"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gptcli.options import OnDevice, shared_options


@shared_options(OnDevice)
def pretrain(
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.", show_default=False)] = None,
    explain_step: Annotated[
        int | None,
        typer.Option(
            "--explain-step", metavar="N", help="Only name the documents of step N of a run, and how it went."
        ),
    ] = None,
    profile: Annotated[
        int | None,
        typer.Option("--profile", metavar="N", help="Only show where the time of N steps goes; writes a trace."),
    ] = None,
    prove_resume: Annotated[
        bool,
        typer.Option(
            "--prove-resume", help="Only show that a run killed and resumed has the bits of one that was not."
        ),
    ] = False,
    prove_steps: Annotated[int, typer.Option("--prove-steps", metavar="N", help="Steps of that.")] = 6,
    *,
    shared: OnDevice,
) -> None:
    """Train a GPT on tokens/NAME, from scratch or from a base, with checkpoints that any tool opens.

    \b
    Examples:
      gptcli pretrain
      gptcli pretrain --name wide --steps 2000 --set hidden_size=384 --set num_heads=6
      gptcli pretrain --explain-step 1234
      gptcli pretrain --profile 10
      gptcli pretrain --prove-resume
    """
    if prove_resume:
        _prove(prove_steps, {"--profile": profile, "--explain-step": explain_step, "--steps": steps}, shared)
        return
    if profile is not None:
        _profile(profile, explain_step, steps, shared)
        return
    if explain_step is not None:
        _explain(explain_step, steps, shared)
        return
    from gptcli import stage

    stage.execute("pretrain", shared, {"steps": steps})


def _profile(count: int, explain_step: int | None, steps: int | None, shared: OnDevice) -> None:
    from gptcli.console import print_report
    from gptcli.progress import Progress, Silent

    spec, project, name = _resolved("--profile", {"--explain-step": explain_step, "--steps": steps}, shared)
    from gptcli.pretrain.profiling import profile  # torch is loaded only for a spec that is sound

    progress = Silent() if shared.quiet else Progress()
    print_report(profile(spec, project, name, count, shared.device, progress), shared.as_json)


def _prove(count: int, others: dict[str, int | None], shared: OnDevice) -> None:
    from gptcli.console import print_report
    from gptcli.pretrain.prove import prove_resume
    from gptcli.progress import Progress, Silent

    spec, project, name = _resolved("--prove-resume", others, shared)
    progress = Silent() if shared.quiet else Progress()
    print_report(prove_resume(spec, project, name, count, shared.device, progress), shared.as_json)


def _resolved(word: str, others: dict[str, int | None], shared: OnDevice) -> tuple[Any, Any, str]:
    """The spec, project and name of what `word` looks at; SpecError for words that only train."""
    import importlib

    from gptcli import stage
    from gptcli.artifacts.project import Project
    from gptcli.errors import SpecError
    from gptcli.spec import resolve

    module = importlib.import_module("gptcli.pretrain.spec")
    given = {
        **{name: value is not None for name, value in others.items()},
        "--dry-run": shared.dry_run,
        "--update": shared.update,
        "--force": shared.force,
    }
    unread = " and ".join(name for name, is_given in given.items() if is_given)
    if unread:
        raise SpecError(f"{word} makes nothing that lasts: {unread} would do nothing", f"leave out {unread}")
    project = Project.open(shared.project, shared.recipe)
    project.require_sound_recipe()
    name = shared.name or module.DEFAULT_NAME
    spec, _ = resolve(module.SPEC, stage.spec_layers(module, project, name, shared, {}, {}))
    return spec, project, name


def _explain(step: int, steps: int | None, shared: OnDevice) -> None:
    from gptcli.artifacts.project import Project
    from gptcli.pretrain import explain

    given = {
        "--steps": steps is not None,
        "--set": bool(shared.settings),
        "--dry-run": shared.dry_run,
        "--update": shared.update,
        "--force": shared.force,
        "--device": shared.device != "auto",
    }
    explain.require_alone([name for name, is_given in given.items() if is_given])
    project = Project.open(shared.project, shared.recipe)
    explain.print_shown(explain.explain_step(project, shared.name, step), shared.as_json)
