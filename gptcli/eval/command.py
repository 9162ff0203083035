"""gptcli eval"""

from __future__ import annotations

from typing import Annotated

import typer

from gptcli.options import OnDevice, shared_options

Models = Annotated[
    list[str] | None,
    typer.Argument(metavar="[MODEL]", help="Run, RUN@best, RUN@1000, MODEL:1.2.0 or a directory.", show_default=False),
]
Split = Annotated[str | None, typer.Option(help="train, val or test.", show_default="val")]
Text = Annotated[list[str] | None, typer.Option(help="Score this text file instead (repeatable).", show_default=False)]
Chats = Annotated[
    list[str] | None, typer.Option(help="Score held-out answers of these chats (repeatable).", show_default=False)
]
Tasks = Annotated[
    list[str] | None,
    typer.Option(help="Ask the items of this task: a .toml, or a folder of them (repeatable).", show_default=False),
]
Harness = Annotated[
    str | None, typer.Option(metavar="TASK,…", help="Tasks of lm-evaluation-harness.", show_default=False)
]
Baselines = Annotated[
    bool | None, typer.Option("--baselines", help="Measure gzip -9 and xz -9e on the same documents.")
]
Offline = Annotated[bool | None, typer.Option("--offline", help="Let the harness download nothing.")]
FailIf = Annotated[
    list[str] | None,
    typer.Option(metavar="'METRIC OP NUMBER'", help="Exit 5 when this holds (repeatable).", show_default=False),
]
Baseline = Annotated[
    str | None, typer.Option(metavar="EVAL", help="What `baseline` in --fail-if means.", show_default=False)
]
Junit = Annotated[
    str | None, typer.Option(metavar="FILE", help="Write the gates' outcomes as JUnit XML.", show_default=False)
]
Compare = Annotated[bool, typer.Option("--compare", help="Set evaluations, named instead of a model, side by side.")]


@shared_options(OnDevice)
def evaluate(
    models: Models = None,
    *,
    split: Split = None,
    text: Text = None,
    chats: Chats = None,
    task: Tasks = None,
    harness: Harness = None,
    baselines: Baselines = None,
    offline: Offline = None,
    fail_if: FailIf = None,
    baseline: Baseline = None,
    junit: Junit = None,
    compare: Compare = False,
    shared: OnDevice,
) -> None:
    """Measure a model: on text and chats it has not seen, and on tasks.

    \b
    Examples:
      gptcli eval base@best --baselines
      gptcli eval base --split test --fail-if 'bits_per_byte>1.9'
      gptcli eval ./some-hf-model --task tasks/ --name theirs
      gptcli eval base --task tasks/ --baseline theirs --fail-if 'arc_easy.acc < baseline - 0.01' --junit gates.xml
      gptcli eval --compare base theirs
    """
    from gptcli import stage
    from gptcli.artifacts.project import Project
    from gptcli.errors import SpecError
    from gptcli.eval.gating import Gating
    from gptcli.eval.naming import naming

    project = Project.open(shared.project, shared.recipe)
    if compare:
        from gptcli.eval.compare import compare as side_by_side
        from gptcli.eval.compare import print_comparison

        measuring = (split, text, chats, task, harness, baselines, offline, fail_if, baseline, junit)
        if any(measuring) or shared != OnDevice(shared.project, shared.recipe, shared.as_json, quiet=shared.quiet):
            raise SpecError("--compare takes evaluations alone: nothing is measured", "leave out every other option")
        print_comparison(side_by_side(project, models or []), shared.as_json)
        return
    if models and len(models) > 1:
        raise SpecError(f"one model is measured, not {len(models)}: {' '.join(models)}", "run gptcli eval for each")
    model = models[0] if models else None
    words = {
        "model": model,
        "split": split,
        "text": text or None,
        "chats": chats or None,
        "tasks": task or None,
        "harness": [name for name in harness.split(",") if name] if harness else None,
        "baselines": baselines,
        "offline": offline,
    }
    name, defaults = naming(shared, model)
    gating = Gating.open(fail_if or [], baseline, junit, project, name)
    report = stage.execute("eval", shared, words, name, defaults, check=gating.require_known)
    if report is not None and (gating.gates or gating.junit):
        gating.hold(project, name)
