"""gptcli chat"""

from __future__ import annotations

from typing import Annotated

import typer

from gptcli.options import PlaceAndDevice, shared_options


@shared_options(PlaceAndDevice)
def chat(
    model: Annotated[str, typer.Argument(help="Run, RUN@best, RUN@1000, MODEL:1.2.0 or a directory.")],
    prompt: Annotated[
        str | None,
        typer.Option(help="Answer this on stdout and end; stdin is read where it is no terminal.", show_default=False),
    ] = None,
    system: Annotated[str | None, typer.Option(help="A system message before the chat.", show_default=False)] = None,
    as_chat: Annotated[
        bool | None,
        typer.Option("--turns/--complete", help="Take turns, or continue the text (default: as the model was tuned)."),
    ] = None,
    temperature: Annotated[float, typer.Option(min=0, help="0: always the likeliest token.")] = 0.8,
    top_k: Annotated[int, typer.Option(min=0, help="Draw from this many tokens; 0: all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest tokens with this much probability.")] = 0.95,
    min_p: Annotated[float, typer.Option(help="Draw from tokens this likely, as a share of the likeliest one.")] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1: less likely what is there already.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same answers.")] = 0,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="End an answer before this text.", show_default=False)
    ] = None,
    weights: Annotated[
        str, typer.Option(help="Keep weights as float32, bfloat16 or int8; auto: as stored, on a GPU its fastest.")
    ] = "auto",
    plain: Annotated[bool, typer.Option("--plain", help="Show answers as they are, without Markdown.")] = False,
    *,
    shared: PlaceAndDevice,
) -> None:
    """Talk to a model, or have it answer one prompt.

    \b
    Examples:
      gptcli chat chat
      gptcli chat chat --prompt 'What does os.path.join do?' --temperature 0
      gptcli chat base --complete --prompt 'def main(' --stop 'def '
      gptcli chat chat --weights int8
    """
    from gptcli.commands.talk import Wish, run
    from gptcli.inference.sampling import Sampling

    settings = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, max_tokens, seed)
    run(shared, Wish(model, prompt, system, as_chat, tuple(stop or ()), weights, plain), settings)
