"""gptcli pretrain"""

from __future__ import annotations

from typing import Annotated

import typer

from gptcli.options import OnDevice, shared_options


@shared_options(OnDevice)
def pretrain(
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.", show_default=False)] = None,
    *,
    shared: OnDevice,
) -> None:
    """Train a GPT from scratch on tokens/NAME, with checkpoints that any tool opens.

    \b
    Examples:
      gptcli pretrain
      gptcli pretrain --name wide --steps 2000 --set hidden_size=384 --set num_heads=6
    """
    from gptcli import stage

    stage.execute("pretrain", shared, {"steps": steps})
