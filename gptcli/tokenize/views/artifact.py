"""A finished tokens artifact as its views open it, and the corpus it was made of, where that still is what it was."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from gptcli.artifacts.build import partial_path
from gptcli.artifacts.manifest import MANIFEST, Manifest, manifest_of, read_manifest
from gptcli.artifacts.project import Project
from gptcli.artifacts.schemas import SPLITS
from gptcli.artifacts.shards import shard_paths
from gptcli.errors import ArtifactError, GptcliError
from gptcli.tokenize.spec import DEFAULT_NAME, FOLDER, KIND

TOKENIZER = "tokenizer"  # the folder in the artifact
UNREADABLE = (OSError, ValueError, KeyError, AttributeError, pa.ArrowException)  # what reading a damaged shard raises


@dataclass(frozen=True)
class Behind:
    """The corpus behind tokens: its folder and manifest, or None for both and `missing`, which says why."""

    path: Path | None = None
    manifest: Manifest | None = None
    missing: str = ""


def finished(project: Project, name: str | None) -> tuple[Path, Manifest]:
    """tokens/NAME (`main` unless named) and its manifest; ArtifactError naming the command that makes it if not."""
    place = project.place(FOLDER, name or DEFAULT_NAME)
    option = f" --name {name}" if name else ""
    try:
        manifest = read_manifest(place, KIND)
        if not isinstance(manifest.stats.get("splits"), dict) or "trained" not in manifest.stats:
            raise ArtifactError(f"{place / MANIFEST} lacks its figures", f"gptcli tokenize{option} --force")
        return place, manifest
    except ArtifactError as error:
        if (place / MANIFEST).exists():
            raise
        if place.exists() or partial_path(place).exists():
            raise ArtifactError(
                f"{project.relative(place)} is not finished", f"gptcli tokenize{option} goes on with it"
            ) from error
        raise ArtifactError(f"there are no {project.relative(place)}", f"gptcli tokenize{option} makes them") from error


def corpus_behind(project: Project, manifest: Manifest) -> Behind:
    """The corpus that tokens were made of, if it stands where it stood and holds what it held."""
    recorded = next((entry for entry in manifest.inputs if entry.role == "corpus"), None)
    if recorded is None:
        return Behind(missing="the manifest names no corpus")
    path = project.path(recorded.path)
    try:
        found = manifest_of(path)
    except GptcliError as error:
        return Behind(missing=f"the corpus cannot be read: {error.message}")
    if found is None:
        return Behind(missing=f"the corpus {recorded.path} is gone")
    if found.content_sha256 != recorded.content_sha256:
        return Behind(missing=f"the corpus {recorded.path} has changed since; gptcli tokenize --update follows it")
    return Behind(path, found)


def splits_of(place: Path) -> dict[str, list[Path]]:
    """The token shards of every split that has some."""
    found = {split: shard_paths(place, split) for split in SPLITS}
    return {split: paths for split, paths in found.items() if paths}
