"""What a model was made from, as far as it still stands. Reads JSON only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gptcli.artifacts.manifest import Input, Manifest, manifest_of
from gptcli.artifacts.project import Project
from gptcli.errors import ArtifactError


@dataclass(frozen=True)
class Ancestor:
    """One artifact the model comes from; `manifest` is None when it isn't there any more, or never had one."""

    entry: Input
    manifest: Manifest | None


def ancestors(project: Project, entries: Sequence[Input]) -> list[Ancestor]:
    """`entries` and all that they were made from, nearest first, each once."""
    found: dict[str, Ancestor] = {}
    waiting = list(entries)
    while waiting:
        entry = waiting.pop(0)
        if entry.content_sha256 in found:
            continue
        manifest = manifest_of(project.path(entry.path))
        if manifest is not None and manifest.content_sha256 != entry.content_sha256:
            manifest = None  # rebuilt since: what stands there now is not what the model was made from
        found[entry.content_sha256] = Ancestor(entry, manifest)
        waiting += manifest.inputs if manifest else ()
    return list(found.values())


def with_ancestors(project: Project, entries: Sequence[Input]) -> tuple[Input, ...]:
    """`entries`, and those of their ancestors whose manifests stand: what a card tells of them is then an input too."""
    line = ancestors(project, entries)
    return *entries, *(each.entry for each in line if each.manifest and each.entry not in entries)


def require_standing(line: Sequence[Ancestor], inputs: Sequence[Input], models: int) -> None:
    """Raise ArtifactError when an input behind the first `models` went away after it was counted as one."""
    standing = [each.entry for each in line if each.manifest]
    for entry in inputs[models:]:
        if entry not in standing:
            raise ArtifactError(f"{entry.path} went away or changed meanwhile", "run the same command again")
