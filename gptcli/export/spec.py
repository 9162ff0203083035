"""What to export of which model and how; what the stage reads and needs, told without torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from gptcli.artifacts.locations import model_input, resolve_model
from gptcli.artifacts.manifest import Inputs, Manifest
from gptcli.artifacts.project import Project
from gptcli.console import human_bytes, human_count
from gptcli.errors import SpecError
from gptcli.export.ancestors import with_ancestors
from gptcli.inference.adapter_base import adapter_base
from gptcli.spec import Spec

STAGE = "export"
KIND = "export"
FOLDER = "exports"
DEFAULT_NAME = "main"
TRAINED = False

_TOKENIZER_BYTES = 32 << 20


class ExportSpec(Spec):
    """Write a model in the format other programs open."""

    model: str = Field("base", min_length=1, description="run, RUN@best, RUN@1000, MODEL:1.2.0 or a directory")
    to: Literal["hf"] = Field("hf", description="format: hf, a Hugging Face model directory")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="stored type of the weights; auto: as the model, or the adapter's base, has them"
    )
    merge: bool = Field(True, description="fold an adapter into its base; false: base and adapter side by side")


SPEC = ExportSpec


def inputs(spec: ExportSpec, project: Project, previous: Manifest | None) -> Inputs:
    """The model, under an adapter its base, and what still stands of all that they were made from.

    Raises ArtifactError when model or base isn't there, SpecError when a key means nothing for this model.
    """
    found = resolve_model(project, spec.model)
    models = [model_input(project, spec.model)]
    if found.kind == "adapter":
        models.append(model_input(project, f"{adapter_base(project, found.directory).resolve()}/", "base"))
    elif not spec.merge:
        raise SpecError(
            f"merge = false, but {spec.model} is no adapter: there is nothing to keep apart", "leave it out"
        )
    return Inputs(with_ancestors(project, models))


def disk_needed(spec: ExportSpec, project: Project, inputs: Inputs) -> int:
    """Bytes, generous: the weights of model and base, twice over where they may be widened."""
    directories = [project.path(entry.path) for entry in inputs.entries if entry.role in ("model", "base")]
    stored = sum(path.stat().st_size for directory in directories for path in directory.glob("*.safetensors"))
    return stored * (2 if spec.dtype == "float32" else 1) + _TOKENIZER_BYTES


def summary(stats: dict[str, Any]) -> list[tuple[str, str]]:
    """The rows a person reads."""
    return [
        ("format", f"{stats['format']}, {stats['layout']}"),
        ("weights", f"{human_count(stats['parameters'])} in {stats['dtype']}, {human_bytes(stats['weight_bytes'])}"),
        (
            "compared",
            f"{stats['compared_tokens']:,} tokens after reloading, logits differ by at most "
            f"{stats['max_logit_difference']:.2g} (they reach {stats['largest_logit']:.1f})",
        ),
    ]
