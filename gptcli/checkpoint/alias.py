"""gptcli checkpoint alias: the names that point at versions."""

from __future__ import annotations

from gptcli.artifacts.aliases import LATEST
from gptcli.artifacts.locations import resolve_model
from gptcli.artifacts.project import Project
from gptcli.artifacts.versions import is_version, require_name
from gptcli.checkpoint.changing import changing, require_alias, require_version_stands
from gptcli.console import Report
from gptcli.errors import ArtifactError, SpecError

_USAGE = "gptcli checkpoint alias MODEL:1.2.0 production"


def alias(project: Project, first: str, second: str | None, delete: bool, message: str | None = None) -> Report:
    """Point an alias (`point_alias`), or with `delete` take the one that the first word names away."""
    if delete:
        if second is not None:
            raise SpecError(f"--delete takes an alias alone, not {first} and {second}", "alias MODEL:ALIAS --delete")
        return delete_alias(project, first, message)
    if second is None:
        raise SpecError(f"alias takes a version and an alias, not {first} alone", _USAGE)
    return point_alias(project, first, second, message)


def point_alias(project: Project, first: str, second: str, message: str | None = None) -> Report:
    """Make an alias of a model point at one of its versions.

    The two words are a version and an alias in either order: what has a colon (MODEL:1.2.0, or MODEL:ALIAS for where
    that points) or is a version (then of the project's own model) is the version, the other the alias; an alias may
    name its model too (MODEL:ALIAS beside 1.2.0). Raises
    SpecError where that leaves a doubt or a word is no name, ArtifactError when there is no such version.
    """
    ref, alias = _version_and_alias(project, first, second)
    require_alias(alias)
    model = ref.partition(":")[0]
    with changing(project, model) as registered:
        version = resolve_model(project, ref).directory.name
        require_version_stands(project, model, version)
        before = registered.aliases.get(alias)
        moved = registered.point(alias, version, "alias", message)
        aliases = registered.aliases
    title = f"{model}:{alias} is {model}:{version}" + ("" if moved else " already")
    figures = {"model": model, "alias": alias, "version": version, "before": before, "aliases": aliases}
    rows = [("before", f"{model}:{before}" if before else "nothing")] if moved else []
    return Report(title, project.relative(project.place("models", model) / version), figures, rows)


def delete_alias(project: Project, ref: str, message: str | None = None) -> Report:
    """Take an alias away, MODEL:ALIAS or ALIAS of the project's own model; the versions stay.

    Raises SpecError for `latest`, which nobody sets, ArtifactError when there is no such alias.
    """
    model, alias = model_and_alias(project, ref)
    with changing(project, model) as registered:
        before = registered.aliases.get(alias)
        if before is None:
            raise no_alias(model, alias, registered.aliases)
        registered.point(alias, None, "alias", message)
        aliases = registered.aliases
    figures = {"model": model, "alias": alias, "version": None, "before": before, "aliases": aliases}
    return Report(f"{model}:{alias} is gone; it was {model}:{before}", "", figures)


def model_and_alias(project: Project, ref: str) -> tuple[str, str]:
    """MODEL:ALIAS in its parts; ALIAS alone is of the project's own model. Raises SpecError for what is no name."""
    model, colon, alias = ref.rpartition(":")
    model = model if colon else project.name
    require_name(model, "a model")
    require_alias(alias)
    if not project.place("models", model).is_dir():
        raise ArtifactError(f"there is no model {model}", "gptcli checkpoint list")
    return model, alias


def no_alias(model: str, alias: str, aliases: dict[str, str]) -> ArtifactError:
    """That a model has no such alias, and which it has."""
    there = ", ".join(sorted(set(aliases) - {LATEST})) or "none"
    return ArtifactError(f"{model} has no alias {alias} (aliases: {there})", "gptcli checkpoint log tells what was")


def _version_and_alias(project: Project, first: str, second: str) -> tuple[str, str]:
    """MODEL:VERSION, whole, and the alias."""
    words = [(first, second), (second, first)]
    for version, name in words:
        model, colon, alias = name.rpartition(":")
        if colon and not is_version(alias) and version.removeprefix(f"{model}:") != version:
            return version, alias
        if colon and not is_version(alias) and is_version(version):
            require_name(model, "a model")
            return f"{model}:{version}", alias
    found = [pair for pair in words if _is_reference(pair[0]) and not _is_reference(pair[1])]
    if len(found) != 1:
        neither, both = f"{first} names no version, nor does {second}", f"both {first} and {second} name a version"
        raise SpecError(both if _is_reference(first) else neither, _USAGE)
    ref, alias = found[0]
    ref = ref if ":" in ref else f"{project.name}:{ref}"
    require_name(ref.partition(":")[0], "a model")
    return ref, alias


def _is_reference(word: str) -> bool:
    return (":" in word and "/" not in word) or is_version(word)
