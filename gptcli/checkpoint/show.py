"""gptcli checkpoint show"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gptcli.artifacts.locations import ADAPTER_CONFIG, resolve_model
from gptcli.artifacts.manifest import Manifest, manifest_of
from gptcli.artifacts.project import Project
from gptcli.checkpoint.lineage import all_licences, all_tools, licence_text, lineage, lineage_rows, tools
from gptcli.checkpoint.registry import TRAINER, figures_of
from gptcli.checkpoint.weights import TORCH_FILES, parameters
from gptcli.console import Report, human_bytes, human_count
from gptcli.errors import ArtifactError

TOKENIZER_FILES = ("tokenizer.model", "tokenizer.json", "vocab.json", "merges.txt", "chat_template.jinja")
_GPT2_NAMES = {
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "intermediate_size": "n_inner",
}


def show(project: Project, ref: str) -> Report:
    """All that is known of a model without opening its weights: shape, size, figures, and its lineage down to the raw
    files, with their licences and the versions of the tools. ArtifactError when it isn't there or broken."""
    model = resolve_model(project, ref)
    manifest = manifest_of(model.directory)
    line = lineage(project, manifest) if manifest else []
    counted = parameters(model.directory) or _other_parameters(model.directory)
    figures: dict[str, Any] = {
        "model": ref,
        "path": project.relative(model.directory),
        "kind": model.kind,
        "content_sha256": manifest.content_sha256 if manifest else None,
        "config": _config(model.directory, "config.json"),
        "adapter": _config(model.directory, ADAPTER_CONFIG),
        "parameters": sum(counted.values()),
        "parameters_by_dtype": counted,
        "bytes": _sizes(model.directory),
        "figures": figures_of(model.directory, manifest),
        "spec": manifest.spec if manifest else None,
        "records": {key: value for key, value in manifest.records.items() if key != "sources"} if manifest else {},
        "tokenizer": [name for name in TOKENIZER_FILES if (model.directory / name).is_file()],
        "tools": all_tools(tools(model.directory, manifest), line) if manifest else {},
        "licences": all_licences(line),
        "lineage": line,
    }
    return Report(f"{ref}: {model.kind}", figures["path"], figures, _table(figures, manifest))


def _config(directory: Path, name: str) -> dict[str, Any] | None:
    path = directory / name
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path} cannot be read: {error}", "gptcli checkpoint verify names what is damaged"
        ) from error
    if not isinstance(found, dict):
        raise ArtifactError(f"{path} holds no JSON object", "gptcli checkpoint verify names what is damaged")
    return found


def _sizes(directory: Path) -> dict[str, int]:
    """Bytes of the weights, of the optimizer's state, and of everything."""
    files = {path.relative_to(directory): path.stat().st_size for path in directory.rglob("*") if path.is_file()}
    return {
        "weights": sum(size for path, size in files.items() if path.suffix == ".safetensors" and len(path.parts) == 1),
        "trainer": sum(size for path, size in files.items() if path.parts[0] == TRAINER),
        "total": sum(files.values()),
    }


def _table(figures: dict[str, Any], manifest: Manifest | None) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    if figures["config"]:
        rows.append(("architecture", _architecture(figures["config"])))
    if figures["adapter"]:
        rows.append(("adapter", _adapter(figures["adapter"])))
    dtypes = ", ".join(figures["parameters_by_dtype"])
    rows.append(("parameters", f"{figures['parameters']:,} ({human_count(figures['parameters'])}, {dtypes})"))
    sizes = figures["bytes"]
    trainer = f", optimizer {human_bytes(sizes['trainer'])}" if sizes["trainer"] else ""
    rows.append(("size", f"{human_bytes(sizes['total'])}: weights {human_bytes(sizes['weights'])}{trainer}"))
    if figures["tokenizer"]:
        rows.append(("tokenizer", ", ".join(figures["tokenizer"])))
    rows += [(label, _figure(figures["figures"][key])) for key, label in _FIGURES if key in figures["figures"]]
    if manifest is None:
        return [*rows, ("lineage", "unknown: this directory has no manifest")]
    origin = manifest.spec.get("training", manifest.spec)  # a version carries its checkpoint's spec so
    if "form" in origin and "path" in origin:
        rows.append(("imported from", f"{origin['path']} ({origin['form']})"))
    if origin.get("made"):
        rows.append(("made by", f"checkpoint {origin['made']} {origin.get('method', '')}".rstrip()))
    rows.append(("made with", f"gptcli {manifest.gptcli_version}, {manifest.records.get('created', 'time unknown')}"))
    rows += lineage_rows(figures["lineage"])
    if figures["licences"]:
        rows.append(("licences", licence_text(figures["licences"])))
    rows.append(("tools", ", ".join(f"{name} {', '.join(found)}" for name, found in figures["tools"].items())))
    return rows


_FIGURES = (
    ("step", "step"),
    ("tokens", "tokens seen"),
    ("train_loss", "train loss"),
    ("val_loss", "validation loss"),
    ("val_bits_per_byte", "bits per byte"),
)


def _figure(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}" if isinstance(value, float) else str(value)


def _other_parameters(directory: Path) -> dict[str, int]:
    """Parameters by dtype of weights that only torch opens."""
    if not any(directory.glob(TORCH_FILES)):
        return {}
    from gptcli.checkpoint.torch_weights import parameters_of

    return parameters_of(directory)


def _architecture(config: dict[str, Any]) -> str:
    config = {name: config.get(other, config.get(name)) for name, other in _GPT2_NAMES.items()} | {
        name: value for name, value in config.items() if name not in _GPT2_NAMES
    }
    heads, kv_heads = config.get("num_attention_heads"), config.get("num_key_value_heads")
    parts = [
        str(config.get("model_type")),
        f"{config.get('num_hidden_layers')} layers",
        f"width {config.get('hidden_size')}",
        f"{heads} heads" + (f" ({kv_heads} of keys)" if kv_heads and kv_heads != heads else ""),
        f"MLP {config.get('intermediate_size') or 4 * (config.get('hidden_size') or 0)}",
        f"vocabulary {config.get('vocab_size')}",
        f"context {config.get('max_position_embeddings')}",
        "tied head" if config.get("tie_word_embeddings", config.get("model_type") == "gpt2") else "untied head",
    ]
    return ", ".join(parts)


def _adapter(config: dict[str, Any]) -> str:
    modules = config.get("target_modules")
    named = ", ".join(modules) if isinstance(modules, list) else str(modules)
    return (
        f"rank {config.get('r')}, alpha {config.get('lora_alpha')}, on {named}; "
        f"base {config.get('base_model_name_or_path')}"
    )
