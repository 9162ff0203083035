"""gptcli schema"""

from __future__ import annotations


def schema() -> None:
    """Print the JSON Schema of recipe.toml: every key with its default, range and meaning.

    \b
    Example:
      gptcli schema > recipe.schema.json
    """
    from importlib import import_module

    from gptcli.artifacts.project import STAGES
    from gptcli.console import print_json

    tables = {stage: import_module(f"gptcli.{stage.replace('-', '_')}.spec").SPEC for stage in STAGES}
    print_json(
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "recipe.toml",
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "project": {"type": "object", "properties": {"name": {"type": "string"}}},
                **{
                    stage: {"type": "object", "additionalProperties": spec.model_json_schema()}
                    for stage, spec in tables.items()
                },
            },
        }
    )
