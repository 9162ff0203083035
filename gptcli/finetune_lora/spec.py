"""What to fine-tune: the base, the chats and the size of the update."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from pydantic import Field

from gptcli.artifacts.locations import model_input, resolve_model
from gptcli.artifacts.manifest import Inputs, Manifest
from gptcli.artifacts.project import Project
from gptcli.console import human_count
from gptcli.errors import ArtifactError
from gptcli.models.config import config_from_hf
from gptcli.records.sources import expand, fingerprint, source_inputs
from gptcli.spec import OneOrMore
from gptcli.training.spec import TrainingSpec

STAGE = "finetune-lora"
KIND = "run"
FOLDER = "runs"
DEFAULT_NAME = "chat"
TRAINED = True


class FinetuneSpec(TrainingSpec):
    """[finetune-lora.NAME]"""

    default_steps: ClassVar[int] = 200

    base: str = Field("base", description="the model to adapt")
    chats: OneOrMore = Field(min_length=1, description="files of chats, or python:docstrings")
    val_share: float = Field(0.05, ge=0, lt=1, description="share of the questions held out, by content hash")
    sequences: int = Field(16, ge=1, description="chats a step")
    rank: int = Field(8, ge=1, description="rank of the update")
    alpha: float = Field(16.0, gt=0, description="scale of the update, over rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the update's input dropped in training")
    target_modules: list[str] = Field(["all-linear"], min_length=1, description="linear layers to adapt, by name")
    train_markers: bool = Field(True, description="train the chat markers' rows in embedding and head")
    val_first: bool = Field(True, description="validate before the first step too")
    lr: float = Field(0.002, gt=0, description="peak learning rate")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's first-moment decay")
    beta2: float = Field(0.99, ge=0, lt=1, description="AdamW's second-moment decay")
    warmup_steps: int = Field(10, ge=0, description="steps of linear warmup")
    grad_clip: float = Field(1.0, ge=0, description="largest gradient norm; 0: none")


SPEC = FinetuneSpec


def inputs(spec: FinetuneSpec, project: Project, previous: Manifest | None) -> Inputs:
    if resolve_model(project, spec.base).kind == "adapter":
        raise ArtifactError(
            f"{spec.base} is an adapter, not a whole model",
            f"gptcli export {spec.base} --to hf merges it; then --base exports/main",
        )
    files = expand(spec.chats, project.root)
    sources = fingerprint(files, previous.sources() if previous else ())
    return Inputs((model_input(project, spec.base, "base"), *source_inputs(files, sources, "chats")), sources)


def disk_needed(spec: FinetuneSpec, project: Project, inputs: Inputs) -> int:
    """Bytes of the checkpoints: an adapter and its two states each, for all linear layers."""
    directory = resolve_model(project, spec.base).directory
    config = config_from_hf(json.loads((directory / "config.json").read_text(encoding="utf-8")))
    width = config.hidden_size + config.intermediate_size
    parameters = 7 * spec.rank * width * config.num_hidden_layers
    return int(spec.checkpoints_at_once * 12 * parameters)


def summary(stats: dict[str, Any]) -> list[tuple[str, str]]:
    share = 100 * stats["trainable_parameters"] / stats["parameters"]
    trainable, parameters = human_count(stats["trainable_parameters"]), human_count(stats["parameters"])
    rows = [
        ("trainable", f"{trainable} of {parameters} parameters ({share:.2f} %)"),
        ("chats", f"{stats['train_chats']:,} to learn from, {stats['val_chats']:,} held out"),
        ("steps", f"{stats['step']:,} ({human_count(stats['tokens'])} answer tokens)"),
        ("train loss", f"{stats['train_loss']:.4f}"),
    ]
    rows += [(f"left out: {reason}", f"{count:,}") for reason, count in stats["left_out"].items()]
    if "val_loss" in stats:
        before = f"{stats['val_loss_before']:.4f} before, " if "val_loss_before" in stats else ""
        rows.append(("validation loss", f"{before}{stats['val_loss']:.4f} after"))
    return rows
