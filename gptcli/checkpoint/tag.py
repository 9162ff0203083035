"""gptcli checkpoint tag: versions, which never change."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptcli.artifacts.aliases import LINE, Entry, now, replay, standing_versions
from gptcli.artifacts.build import Build
from gptcli.artifacts.durable import link
from gptcli.artifacts.locations import resolve_model
from gptcli.artifacts.manifest import Input, Inputs, Manifest, manifest_of, read_manifest, verify_files
from gptcli.artifacts.project import Project
from gptcli.artifacts.versions import next_version, require_bump, require_name, require_version
from gptcli.checkpoint.changing import Registered, changing, new_line, require_alias
from gptcli.checkpoint.registry import TRAINER, figures_of
from gptcli.console import Report, human_bytes
from gptcli.errors import ArtifactError, SpecError


@dataclass(frozen=True)
class Candidate:
    """A run's checkpoint that a version is made of."""

    directory: Path
    manifest: Manifest

    @staticmethod
    def open(project: Project, ref: str) -> Candidate:
        """ArtifactError where there is none of that name, or where it is no run's."""
        directory = resolve_model(project, ref).directory
        return Candidate(directory, read_manifest(directory, "checkpoint"))


def tag(
    project: Project,
    ref: str,
    version: str | None = None,
    *,
    bump: str | None = None,
    model: str | None = None,
    alias: str | None = None,
    message: str | None = None,
    with_trainer: bool = False,
) -> Report:
    """Make models/MODEL/VERSION of a run's checkpoint: weights, configs and tokenizer hard-linked, or copied where
    linking fails; `trainer/` (the optimizer's state) with `with_trainer`.

    VERSION is `version`, or the one after the highest release by `bump` (major, minor, patch). The same checkpoint
    under the same version again changes nothing; a bump always makes a version. Version, `alias` and their line in the
    log come in one moment. Raises SpecError for what is no version or no name, ArtifactError when the version stands
    with another content or the checkpoint is damaged.
    """
    require_one(version, bump)
    model = model or project.name
    require_name(model, "a model (--as)")
    if alias is not None:
        require_alias(alias)
    candidate = Candidate.open(project, ref)
    with changing(project, model) as registered:
        version = version or next_version(standing_versions(registered.folder), str(bump))
        manifest = standing(project, registered.folder / version, candidate, with_trainer)
        is_new = manifest is None
        if manifest is None:
            line = version_line(registered, "tag", version, alias, message)
            manifest = make_version(project, registered, version, candidate, with_trainer, line)
        elif alias is not None:
            registered.point(alias, version, "alias", message)
        aliases = registered.aliases
    title = f"{model}:{version} " + ("tagged" if is_new else "stands already")
    return version_report(project, title, model, version, candidate, manifest, aliases)


def require_one(version: str | None, bump: str | None) -> None:
    """SpecError unless a version is named or a bump asked for, and not both."""
    if version is not None and bump is not None:
        raise SpecError(f"version {version} and --bump {bump} were both given", "leave one of them out")
    if bump is not None:
        return require_bump(bump)
    if version is None:
        raise SpecError("no version was given", "gptcli checkpoint tag RUN 1.2.0, or --bump minor: after the highest")
    return require_version(version)


def version_line(
    registered: Registered, verb: str, version: str, alias: str | None, message: str | None, **more: Any
) -> Entry:
    """The line by which a version comes to be, and an alias with it."""
    moved = {}
    if alias is not None:
        moved = {"alias": alias, "from": replay(registered.entries).get(alias), "to": version}
    return new_line(verb, message, version=version, **moved, **more)


def make_version(
    project: Project,
    registered: Registered,
    version: str,
    candidate: Candidate,
    with_trainer: bool,
    line: Entry,
) -> Manifest:
    """Make a version that isn't there yet; with its rename stands what `line` says. The model's lock is held."""
    source, checkpoint = candidate.directory, candidate.manifest
    problems = verify_files(source, checkpoint)
    if problems:
        raise ArtifactError(
            f"{project.relative(source)} is damaged: {problems[0]}", "tag another checkpoint: gptcli checkpoint list"
        )
    # The checkpoint's own inputs too: the version's lineage then outlives the run.
    origin = Input("checkpoint", project.relative(source), checkpoint.content_sha256)
    inputs = Inputs((origin, *checkpoint.inputs), checkpoint.sources())
    place, spec = registered.folder / version, _spec(registered.folder.name, version, checkpoint, with_trainer)
    build = Build.open(place, kind="version", spec=spec, inputs=inputs, say=lambda line: None)
    for entry in checkpoint.files:
        if with_trainer or not entry.path.startswith(f"{TRAINER}/"):
            _link(source / entry.path, build.directory / entry.path)
    stats = {key: value for key, value in figures_of(source, checkpoint).items() if key != "lr"}
    manifest = build.commit(stats, {"created": now(), LINE: line})
    registered.append(line)
    return manifest


def version_report(
    project: Project,
    title: str,
    model: str,
    version: str,
    candidate: Candidate,
    manifest: Manifest,
    aliases: dict[str, str],
) -> Report:
    """What is told of a version that was asked for."""
    pointing = sorted(name for name, target in aliases.items() if target == version)
    stats = {key: value for key, value in manifest.stats.items() if value is not None}
    source = project.relative(candidate.directory)
    figures = {
        "model": model,
        "version": version,
        "aliases": aliases,
        "from": source,
        "bytes": manifest.total_bytes(),
        "content_sha256": manifest.content_sha256,
        **stats,
    }
    rows = [
        ("from", f"{source} (step {stats.get('step', 'unknown')})"),
        ("size", f"{human_bytes(manifest.total_bytes())} in {len(manifest.files)} files"),
        ("aliases", ", ".join(pointing) or "none"),
    ]
    return Report(title, project.relative(project.place("models", model) / version), figures, rows)


def origin_of(manifest: Manifest) -> set[str]:
    """The content hash of the checkpoint that a version was made of."""
    return {entry.content_sha256 for entry in manifest.inputs if entry.role == "checkpoint"}


def _spec(model: str, version: str, checkpoint: Manifest, with_trainer: bool) -> dict[str, Any]:
    return {"model": model, "version": version, "with_trainer": with_trainer, "training": checkpoint.spec}


def standing(project: Project, place: Path, candidate: Candidate, with_trainer: bool | None) -> Manifest | None:
    """The version when it stands with this very content, None when there is none; ArtifactError otherwise.

    `with_trainer`: whether it has to have its trainer/; None: as it is.
    """
    manifest = manifest_of(place)
    if manifest is None:
        return None
    has_trainer = bool(manifest.spec.get("with_trainer"))
    if origin_of(manifest) == {candidate.manifest.content_sha256} and with_trainer in (None, has_trainer):
        return manifest
    made_from = ", ".join(entry.path for entry in manifest.inputs if entry.role == "checkpoint")
    difference = (
        f"was tagged from {made_from}, not from {project.relative(candidate.directory)}"
        if origin_of(manifest) != {candidate.manifest.content_sha256}
        else "was tagged " + ("with" if has_trainer else "without") + " its trainer/"
    )
    raise ArtifactError(
        f"{place.parent.name}:{place.name} stands and {difference}", "a version never changes: choose the next one"
    )


def _link(source: Path, target: Path) -> None:
    try:
        link(source, target)
    except FileNotFoundError as error:
        raise ArtifactError(f"{source} went away while it was tagged", "gptcli checkpoint list") from error
