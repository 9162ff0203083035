"""Every format there is. A new one: a file with its class beside this one, its name here and in spec.py's `to`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from gptcli.export.hf import HuggingFace
from gptcli.export.source import Source
from gptcli.export.spec import ExportSpec
from gptcli.models.family import CausalLM


class Format(Protocol):
    """What the stage asks of a format."""

    name: str

    def write(self, source: Source, spec: ExportSpec, directory: Path) -> dict[str, Any]: ...
    def reopen(self, directory: Path) -> CausalLM: ...
    def usage(self, source: Source, spec: ExportSpec) -> str: ...


FORMATS: tuple[Format, ...] = (HuggingFace(),)


def format_named(name: str) -> Format:
    """The format of that name; the spec has checked that there is one."""
    return next(each for each in FORMATS if each.name == name)
