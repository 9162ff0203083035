"""gptcli checkpoint merge: an adapter and its base as one whole model, a run of its own."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

from gptcli.artifacts.locations import model_input, resolve_model
from gptcli.artifacts.project import Project
from gptcli.checkpoint.bars import OpenBar
from gptcli.checkpoint.derived import Derivation, derive
from gptcli.checkpoint.one_step_run import CHECKPOINT
from gptcli.console import Report, human_bytes, human_count
from gptcli.errors import ArtifactError
from gptcli.inference.adapter_base import adapter_base
from gptcli.models.importers import ForeignModel
from gptcli.models.importers.hugging_face import HuggingFaceDirectory
from gptcli.models.importers.tokenizer_files import tokenizer_files
from gptcli.models.load import check_files
from gptcli.models.merging import merged_tensors
from gptcli.tokenizer import Tokenizer


def merge(project: Project, ref: str, name: str, force: bool, open_bar: OpenBar) -> Report:
    """Make runs/NAME of an adapter folded into its base in fp32, stored in the base's types; the same command again
    changes nothing.

    Raises ArtifactError when the model is no adapter, or it or its base is missing, damaged or does not fit, and as
    `derive`.
    """
    found = resolve_model(project, ref)
    if found.kind != "adapter":
        raise ArtifactError(f"{ref} is a whole model, there is nothing to merge", "name an adapter's run or directory")
    base = adapter_base(project, found.directory)
    inputs = (model_input(project, ref, "adapter"), model_input(project, str(base.absolute()), "base"))
    wanted = Derivation({"made": "merge"}, inputs, partial(_open, found.directory, base))
    manifest, is_new = derive(project, wanted, name, force, open_bar)
    place, stats = project.place("runs", name), manifest.stats
    figures = {
        "name": name,
        "merged": is_new,
        "checkpoint": project.relative(place / CHECKPOINT),
        "content_sha256": manifest.content_sha256,
        "adapter": dataclasses.asdict(manifest.inputs[0]),
        "base": dataclasses.asdict(manifest.inputs[1]),
        **stats,
    }
    rows = [
        ("adapter", manifest.inputs[0].path),
        ("base", manifest.inputs[1].path),
        ("changed", f"{stats['changed_tensors']} of {stats['tensors']} tensors"),
        ("parameters", f"{stats['parameters']:,} ({human_count(stats['parameters'])}), {stats['dtype']}"),
        ("size", human_bytes(stats["weight_bytes"])),
    ]
    return Report(f"{name}: merged" + ("" if is_new else " already"), figures["checkpoint"], figures, rows)


def _open(adapter: Path, base: Path) -> tuple[ForeignModel, dict[str, Any]]:
    """The whole model, its tensors computed when they are read; it ends turns as the adapter was tuned to."""
    check_files(adapter)
    check_files(base)
    model = HuggingFaceDirectory().open(base)
    tensors, changed = merged_tensors(model.tensors, model.config, adapter)
    tokenizer = tokenizer_files(adapter) or model.tokenizer
    generation = dict(model.generation)
    if tokenizer is not None:
        home = adapter if tokenizer_files(adapter) else base
        own = generation.get("eos_token_id", model.config.eos_ids)
        stops = [*(own if isinstance(own, list | tuple) else [own]), Tokenizer.load(home).eot_id]
        generation["eos_token_id"] = list(dict.fromkeys(each for each in stops if each is not None))
    merged = dataclasses.replace(
        model, form="merge", tensors=tensors, tokenizer=tokenizer, generation=generation, no_tokenizer=""
    )
    return merged, {"tensors": len(tensors), "changed_tensors": changed}
