"""gptcli init"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The project's folder; made where it is missing.")],
    template: Annotated[str, typer.Option(help="The recipe to start from.")] = "pystdlib",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Start a project from a recipe that comes with gptcli.

    \b
    Example:
      gptcli init my-gpt --template pystdlib && make -C my-gpt
    """
    from gptcli.commands.recipes import copy_recipe
    from gptcli.console import print_report

    print_report(copy_recipe(template, directory), as_json)
