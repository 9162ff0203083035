"""gptcli checkpoint tag and alias: versions that never change, and the names that point at them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gptcli.artifacts.aliases import ALIASES, read_aliases
from gptcli.artifacts.build import Build, repair
from gptcli.artifacts.durable import link, write_json
from gptcli.artifacts.locations import resolve_model
from gptcli.artifacts.manifest import MANIFEST, Input, Inputs, Manifest, manifest_of, read_manifest, verify_files
from gptcli.artifacts.project import Project
from gptcli.checkpoint.registry import (
    LATEST,
    figures_of,
    highest_version,
    require_name,
    require_version,
)
from gptcli.console import Report, human_bytes
from gptcli.errors import ArtifactError, SpecError

TRAINER = "trainer/"


def tag(
    project: Project,
    ref: str,
    version: str,
    *,
    model: str | None = None,
    alias: str | None = None,
    with_trainer: bool = False,
) -> Report:
    """Make models/MODEL/VERSION of a run's checkpoint: weights, configs and tokenizer hard-linked, or copied where
    linking fails; `trainer/` (the optimizer's state) with `with_trainer`.

    The same checkpoint under the same version again changes nothing. Raises SpecError for what is no version or no
    name, ArtifactError when the version stands with another content or the checkpoint is damaged.
    """
    require_version(version)
    model = model or project.name
    require_name(model, "a model (--as)")
    _require_alias(alias)
    source = resolve_model(project, ref).directory
    checkpoint = read_manifest(source, "checkpoint")
    place = project.place("models", model) / version
    with project.lock("models", model):
        repair(place)
        wanted = _spec(model, version, checkpoint, with_trainer)
        manifest = _standing(project, place, wanted, checkpoint, source)
        is_new = manifest is None
        if manifest is None:
            manifest = _build(project, place, wanted, checkpoint, source)
        aliases = _point(project, model, {alias: version} if alias else {})
    pointing = sorted(name for name, target in aliases.items() if target == version)
    stats = {key: value for key, value in manifest.stats.items() if value is not None}
    figures = {
        "model": model,
        "version": version,
        "aliases": aliases,
        "from": project.relative(source),
        "bytes": manifest.total_bytes(),
        "content_sha256": manifest.content_sha256,
        **stats,
    }
    rows = [
        ("from", f"{project.relative(source)} (step {stats.get('step', 'unknown')})"),
        ("size", f"{human_bytes(manifest.total_bytes())} in {len(manifest.files)} files"),
        ("aliases", ", ".join(pointing) or "none"),
    ]
    title = f"{model}:{version} " + ("tagged" if is_new else "stands already")
    return Report(title, project.relative(place), figures, rows)


def _spec(model: str, version: str, checkpoint: Manifest, with_trainer: bool) -> dict[str, Any]:
    return {"model": model, "version": version, "with_trainer": with_trainer, "training": checkpoint.spec}


def _standing(
    project: Project, place: Path, wanted: dict[str, Any], checkpoint: Manifest, source: Path
) -> Manifest | None:
    """The version when it stands with this very content, None when there is none; ArtifactError otherwise."""
    manifest = manifest_of(place)
    if manifest is None:
        return None
    origin = {entry.content_sha256 for entry in manifest.inputs if entry.role == "checkpoint"}
    if manifest.spec == wanted and origin == {checkpoint.content_sha256}:
        return manifest
    made_from = ", ".join(entry.path for entry in manifest.inputs if entry.role == "checkpoint")
    difference = (
        f"was tagged from {made_from}, not from {project.relative(source)}"
        if origin != {checkpoint.content_sha256}
        else "was tagged " + ("with" if manifest.spec.get("with_trainer") else "without") + " its trainer/"
    )
    raise ArtifactError(
        f"{wanted['model']}:{wanted['version']} stands and {difference}", "a version never changes: choose the next one"
    )


def _build(
    project: Project,
    place: Path,
    spec: dict[str, Any],
    checkpoint: Manifest,
    source: Path,
) -> Manifest:
    problems = verify_files(source, checkpoint)
    if problems:
        raise ArtifactError(
            f"{project.relative(source)} is damaged: {problems[0]}", "tag another checkpoint: gptcli checkpoint list"
        )
    # The checkpoint's own inputs too: the version's lineage then outlives the run.
    origin = Input("checkpoint", project.relative(source), checkpoint.content_sha256)
    inputs = Inputs((origin, *checkpoint.inputs), checkpoint.sources())
    build = Build.open(place, kind="version", spec=spec, inputs=inputs, say=lambda line: None)
    for entry in checkpoint.files:
        if spec["with_trainer"] or not entry.path.startswith(TRAINER):
            _link(source / entry.path, build.directory / entry.path)
    stats = {key: value for key, value in figures_of(source, checkpoint).items() if key != "lr"}
    created = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return build.commit(stats, {"created": created})


def _link(source: Path, target: Path) -> None:
    try:
        link(source, target)
    except FileNotFoundError as error:
        raise ArtifactError(f"{source} went away while it was tagged", "gptcli checkpoint list") from error


def point_alias(project: Project, ref: str, alias: str) -> Report:
    """Make models/MODEL's alias point at a version named MODEL:VERSION (or by another alias).

    Raises SpecError for what is no such reference or no name, ArtifactError when there is no such version.
    """
    model, colon, _ = ref.partition(":")
    if not colon or "/" in ref:
        raise SpecError(f"{ref} names no version", f"gptcli checkpoint alias MODEL:1.2.0 {alias}")
    _require_alias(alias)
    version = resolve_model(project, ref).directory.name
    with project.lock("models", model):
        aliases = _point(project, model, {alias: version})
    return Report(
        f"{model}:{alias} is {model}:{version}",
        project.relative(project.place("models", model) / version),
        {"model": model, "alias": alias, "version": version, "aliases": aliases},
    )


def _require_alias(alias: str | None) -> None:
    if alias is None:
        return
    require_name(alias, "an alias")
    if alias == LATEST:
        raise SpecError(f"{LATEST} follows the highest version by itself", "choose another alias")


def _point(project: Project, model: str, changes: dict[str, str]) -> dict[str, str]:
    """Write aliases.json with `changes` and the latest version, if that changes anything. The model's lock is held."""
    folder = project.place("models", model)
    before = read_aliases(project, model)
    latest = highest_version([path.name for path in folder.iterdir() if (path / MANIFEST).is_file()])
    after = {**before, **changes, **({LATEST: latest} if latest else {})}
    if after != before:
        write_json(folder / ALIASES, after)
    return after
