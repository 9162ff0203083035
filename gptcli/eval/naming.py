"""What an evaluation is called: after its model, wherever that was named."""

from __future__ import annotations

import re
from typing import Any

from gptcli.artifacts.project import Project
from gptcli.eval.spec import DEFAULT_NAME, STAGE
from gptcli.options import Shared
from gptcli.spec import parse_setting


def name_of(model: str) -> str:
    """The evaluation's name of a MODEL: `@`, `:` and `/` become `-`, a leading `./` goes."""
    return re.sub(r"[@:/]", "-", model).strip("-.") or DEFAULT_NAME


def naming(shared: Shared, model: str | None) -> tuple[str, dict[str, Any]]:
    """The name of an evaluation, and values that stand below its recipe table.

    It is --name, else it follows the model: of the command line, of --set, or of the table [eval.base], which then
    counts whatever the name.
    """
    if shared.name:
        return shared.name, {}
    settings = dict(parse_setting(text) for text in shared.settings or [])
    model = model or settings.get("model")
    if isinstance(model, str):
        return name_of(model), {}
    table = Project.open(shared.project, shared.recipe).table(STAGE, DEFAULT_NAME)
    named = table.get("model")
    if not isinstance(named, str) or name_of(named) == DEFAULT_NAME:
        return DEFAULT_NAME, {}
    return name_of(named), table
