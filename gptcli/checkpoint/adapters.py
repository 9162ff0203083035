"""What an adapter says of its base, without opening either."""

from __future__ import annotations

import json
from pathlib import Path

from gptcli.artifacts.locations import ADAPTER_CONFIG
from gptcli.artifacts.project import Project


def base_of(directory: Path) -> str | None:
    """The base that an adapter names; None for what is no adapter, or names none that can be read."""
    try:
        settings = json.loads((directory / ADAPTER_CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    named = settings.get("base_model_name_or_path") if isinstance(settings, dict) else None
    return named if isinstance(named, str) and named else None


def missing_base(project: Project, directory: Path) -> str | None:
    """The base that an adapter names and that isn't there; None where it is, and for what names none."""
    named = base_of(directory)
    if named is None or any((base / "config.json").is_file() for base in (directory / named, project.path(named))):
        return None
    return named
