"""Which base model an adapter belongs to. Reads JSON only, so that specs can ask without torch."""

from __future__ import annotations

import json
from pathlib import Path

from gptcli.artifacts.locations import ADAPTER_CONFIG
from gptcli.artifacts.manifest import manifest_of
from gptcli.artifacts.project import Project
from gptcli.errors import ArtifactError


def adapter_base(project: Project, directory: Path) -> Path:
    """The directory of the base model of the adapter in `directory`.

    adapter_config.json names it by a path from the adapter's own folder (an export) or from the project's root
    (a run). Raises ArtifactError when it isn't there or has changed since the adapter was trained.
    """
    path = directory / ADAPTER_CONFIG
    try:
        named = json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} doesn't say which base model it belongs to: {error}") from error
    if not named:
        raise ArtifactError(f"{path} names no base model", 'set "base_model_name_or_path" in it')
    for base in (directory / named, project.path(named)):
        if (base / "config.json").is_file():
            _check_unchanged(project, directory, base)
            return base
    raise ArtifactError(
        f"the base model {named} of the adapter {project.relative(directory)} is missing",
        f"restore it, or set base_model_name_or_path in {path} to where it is",
    )


def _check_unchanged(project: Project, directory: Path, base: Path) -> None:
    adapter, found = manifest_of(directory), manifest_of(base)
    if adapter is None or found is None:
        return
    for entry in adapter.inputs:
        if entry.path == project.relative(base) and entry.content_sha256 != found.content_sha256:
            raise ArtifactError(
                f"{entry.path} isn't the base model that {project.relative(directory)} was trained on: it has changed",
                "fine-tune again on it, or restore the base",
            )
