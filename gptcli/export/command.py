"""gptcli export"""

from __future__ import annotations

from typing import Annotated

import typer

from gptcli.options import Shared, shared_options


@shared_options(Shared)
def export(
    model: Annotated[
        str | None, typer.Argument(help="Run, RUN@best, RUN@1000, MODEL:1.2.0 or a directory.", show_default=False)
    ] = None,
    to: Annotated[str | None, typer.Option(help="hf: a Hugging Face model directory.", show_default="hf")] = None,
    *,
    shared: Shared,
) -> None:
    """Write a model as other programs open it; reloaded and compared before it is called done.

    \b
    Examples:
      gptcli export base@best --to hf
      gptcli export chat --to hf --name my-model --set dtype=bfloat16
      gptcli export chat --set merge=false
    """
    from gptcli import stage

    stage.execute("export", shared, {"model": model, "to": to})
