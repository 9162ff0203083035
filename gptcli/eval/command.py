"""gptcli eval"""

from __future__ import annotations

from typing import Annotated

import typer

from gptcli.options import OnDevice, shared_options


@shared_options(OnDevice)
def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(help="Run, RUN@best, RUN@1000, MODEL:1.2.0 or a directory.", show_default=False),
    ] = None,
    *,
    split: Annotated[str | None, typer.Option(help="train, val or test.", show_default="val")] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="Score this text file instead (repeatable).", show_default=False)
    ] = None,
    chats: Annotated[
        list[str] | None, typer.Option(help="Score held-out answers of these chats (repeatable).", show_default=False)
    ] = None,
    baselines: Annotated[
        bool | None, typer.Option("--baselines", help="Measure gzip -9 and xz -9e on the same documents.")
    ] = None,
    fail_if: Annotated[
        list[str] | None, typer.Option(metavar="'METRIC OP NUMBER'", help="Exit 5 when this holds (repeatable).")
    ] = None,
    shared: OnDevice,
) -> None:
    """Measure loss, perplexity, bits per byte and accuracy of a model.

    \b
    Examples:
      gptcli eval base@best --baselines
      gptcli eval base --split test --fail-if 'bits_per_byte>1.9'
      gptcli eval ./some-hf-model --text novel.txt --set seq_len=512
    """
    from gptcli import stage
    from gptcli.eval.naming import naming
    from gptcli.eval.spec import FIGURES
    from gptcli.scoring.gates import judge, parse_gate, require_known

    gates = [parse_gate(gate) for gate in fail_if or []]
    require_known(gates, FIGURES)
    words = {
        "model": model,
        "split": split,
        "text": text or None,
        "chats": chats or None,
        "baselines": baselines,
    }
    name, defaults = naming(shared, model)
    report = stage.execute("eval", shared, words, name, defaults)
    if report is not None:
        judge(gates, report.figures)
