"""Names that point at versions of a model: models/MODEL/aliases.json."""

from __future__ import annotations

import json

from gptcli.artifacts.project import Project
from gptcli.errors import ArtifactError

ALIASES = "aliases.json"


def read_aliases(project: Project, model: str) -> dict[str, str]:
    """The version that each alias of a model points at; ArtifactError when their file is broken."""
    path = project.place("models", model) / ALIASES
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_bytes())
        return {str(name): str(version) for name, version in found.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"{path} cannot be read: {error}", "delete it and set its names again: gptcli checkpoint alias"
        ) from error
