"""The options every stage shares. Imports nothing heavy: every --help passes through here."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

_UPDATE = "Rebuild what changed: data, evaluations and exports. A trained run is never replaced by it."


@dataclass(frozen=True)
class Place:
    """Which project a command works in."""

    project: Annotated[
        Path, typer.Option("--project", "-C", help="Project directory; relative paths are taken from it.")
    ] = Path()
    recipe: Annotated[Path | None, typer.Option(help="Recipe file (default: recipe.toml in the project).")] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False


@dataclass(frozen=True)
class PlaceAndDevice(Place):
    """What a command that computes, and makes no artifact, understands."""

    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto"


@dataclass(frozen=True)
class Shared(Place):
    """What every stage understands."""

    name: Annotated[
        str | None, typer.Option("--name", help="Picks the recipe's table and names the output.", show_default=False)
    ] = None
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set a recipe key (repeatable).")
    ] = None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done and where values come from.")] = (
        False
    )
    update: Annotated[bool, typer.Option("--update", help=_UPDATE)] = False
    force: Annotated[
        bool, typer.Option("--force", help="Build again from the start; a trained run is kept as NAME.1.")
    ] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the whole spec before starting.")] = False


@dataclass(frozen=True)
class OnDevice(Shared):
    """What a stage that computes with torch understands."""

    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto"


def shared_options(kind: type[Place]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of `kind`; it receives them as one argument, `shared`.

    Typer reads a command's signature, so the decorated function's signature lists the command's own parameters and
    then one for each field of `kind`.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = typing.get_type_hints(kind, include_extras=True)
        own_hints = typing.get_type_hints(command, include_extras=True)
        own = [
            parameter.replace(annotation=own_hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in inspect.signature(command).parameters.values()
            if parameter.name != "shared"
        ]
        added = [
            inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
            )
            for field in fields(kind)
        ]

        @wraps(command)
        def wrapper(**arguments: Any) -> None:
            options = {field.name: arguments.pop(field.name) for field in fields(kind)}
            command(**arguments, shared=kind(**options))

        signature = inspect.Signature([*own, *added])
        wrapper.__signature__ = signature  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()} | {"return": None}
        return wrapper

    return decorate
