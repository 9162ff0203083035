"""gptcli checkpoint rollback: an alias back to where it pointed before."""

from __future__ import annotations

from collections.abc import Iterable

from gptcli.artifacts.aliases import Entry
from gptcli.artifacts.manifest import manifest_of
from gptcli.artifacts.project import Project
from gptcli.artifacts.versions import require_version
from gptcli.checkpoint.alias import model_and_alias, no_alias
from gptcli.checkpoint.changing import changing, require_version_stands
from gptcli.console import Report
from gptcli.errors import ArtifactError

VERB = "rollback"


def rollback(project: Project, ref: str, to: str | None = None, message: str | None = None) -> Report:
    """Let an alias (MODEL:ALIAS, or ALIAS of the project's own model) point where it did before, by the log.

    Rolled back again it goes further back, never forward. `to` names a version in place of the one before. Raises
    ArtifactError when it never pointed elsewhere, or when that version isn't there any more.
    """
    if to is not None:
        require_version(to)
    model, alias = model_and_alias(project, ref)
    with changing(project, model) as registered:
        way = way_of(registered.entries, alias)
        if not way:
            raise no_alias(model, alias, registered.aliases)
        before, target = way[-1], to or _earlier(model, alias, way)
        if to is None and manifest_of(registered.folder / target) is None:
            raise ArtifactError(
                f"{model}:{alias} pointed at {target} before, which isn't there any more",
                f"gptcli checkpoint rollback {model}:{alias} --to VERSION",
            )
        require_version_stands(project, model, target)
        moved = registered.point(alias, target, VERB, message)
        aliases = registered.aliases
    figures = {"model": model, "alias": alias, "version": target, "before": before, "aliases": aliases}
    place = project.relative(project.place("models", model) / target)
    if not moved:
        return Report(f"{model}:{alias} is {model}:{target} already", place, figures)
    rows = [("before", f"{model}:{before}" if before else "nothing")]
    return Report(f"{model}:{alias} is back at {model}:{target}", place, figures, rows)


def way_of(entries: Iterable[Entry], alias: str) -> list[str | None]:
    """Where an alias has pointed, the present last, None for nowhere; what was rolled back is no part of it."""
    way: list[str | None] = []
    for entry in entries:
        if entry.get("alias") != alias:
            continue
        target = entry.get("to")
        if entry.get("verb") == VERB:
            if target in way:
                del way[len(way) - way[::-1].index(target) :]
                continue
            way = way[:-1]
        way.append(target)
    return way


def _earlier(model: str, alias: str, way: list[str | None]) -> str:
    earlier = [target for target in way[:-1] if target is not None and target != way[-1]]
    if not earlier:
        raise ArtifactError(
            f"{model}:{alias} has pointed at nothing but {way[-1] or 'nothing'}: there is nothing before it",
            f"gptcli checkpoint rollback {model}:{alias} --to VERSION",
        )
    return earlier[-1]
