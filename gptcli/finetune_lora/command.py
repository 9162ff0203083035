"""gptcli finetune-lora"""

from __future__ import annotations

from typing import Annotated

import typer

from gptcli.options import OnDevice, shared_options


@shared_options(OnDevice)
def finetune_lora(
    chats: Annotated[
        list[str] | None, typer.Argument(help="Files of chats, or python:docstrings.", show_default=False)
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="The model to adapt: a run, RUN@STEP, MODEL:VERSION or ./DIR.", show_default=False),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.", show_default=False)] = None,
    *,
    shared: OnDevice,
) -> None:
    """Teach a model to answer: LoRA on chats, the base frozen, adapters that PEFT opens.

    \b
    Examples:
      gptcli finetune-lora python:docstrings --base base
      gptcli finetune-lora chats.jsonl --base story:1.0.0 --set rank=16 --name stories
    """
    from gptcli import stage

    stage.execute("finetune-lora", shared, {"chats": chats or None, "base": base, "steps": steps})
