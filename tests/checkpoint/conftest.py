from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gptcli.artifacts.build import Build
from gptcli.artifacts.manifest import Input, Inputs, Source, read_manifest
from gptcli.models.config import config_from_hf
from gptcli.models.importers.fitting import expected_shapes

# Two layers of a qwen3, 380 parameters: all there is in half precision are the norms.
SHAPE = {
    "model_type": "qwen3",
    "num_hidden_layers": 2,
    "hidden_size": 4,
    "vocab_size": 8,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 9,
    "tie_word_embeddings": False,
}
LORA = {
    "peft_type": "LORA",
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["q_proj"],
    "base_model_name_or_path": "runs/base/checkpoints/step-00000300",
}
LOSSES = {100: 3.0, 200: 2.0, 300: 2.5, 400: 2.6}


def make(place: Path, kind: str, files: dict[str, bytes], inputs: Inputs, spec: dict[str, object]) -> Build:
    build = Build.open(place, kind=kind, spec=spec, inputs=inputs, say=print)
    for name, data in files.items():
        (build.directory / name).parent.mkdir(parents=True, exist_ok=True)
        (build.directory / name).write_bytes(data)
    return build


def input_of(root: Path, role: str, path: str) -> Input:
    return Input(role, path, read_manifest(root / path).content_sha256)


def weights_at(step: int, adapter: bool) -> dict[str, torch.Tensor]:
    """Tensors that fit SHAPE, or LORA on it, drawn by the step."""
    generator = torch.Generator().manual_seed(step)
    if adapter:
        layer = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"
        shapes = {layer.format(number, part): (4, 4) for number in (0, 1) for part in "AB"}
    else:
        shapes = expected_shapes(config_from_hf(SHAPE), "here")
    return {
        name: torch.randn(shape, generator=generator).to(torch.float16 if len(shape) == 1 else torch.float32)
        for name, shape in shapes.items()
    }


def make_run(root: Path, name: str, inputs: Inputs, losses: dict[int, float], adapter: bool = False) -> Path:
    run = root / "runs" / name
    for step in losses:
        place = run / "checkpoints" / f"step-{step:08d}"
        files = {"adapter_config.json" if adapter else "config.json": json.dumps(LORA if adapter else SHAPE).encode()}
        files |= {"tokenizer.model": b"pieces", "trainer/state.json": b"{}"}
        build = make(place, "checkpoint", files, inputs, {"lr": 0.1})
        name_of_weights = "adapter_model.safetensors" if adapter else "model.safetensors"
        save_file(weights_at(step, adapter), build.directory / name_of_weights, {"format": "pt"})
        build.commit({"step": step, "tokens": step * 10, "train_loss": losses[step] - 0.1}, {"created": "then"})
    rows = [{"step": step, "train_loss": loss - 0.1} for step, loss in losses.items()]
    rows += [{"step": step, "val_loss": loss, "val_bits_per_byte": loss / 2} for step, loss in losses.items()]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    inputs_written = [vars(entry) for entry in inputs.entries]
    (run / "spec.json").write_text(json.dumps({"kind": "run", "spec": {"lr": 0.1}, "inputs": inputs_written}))
    return run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project: two source files → corpus → tokens → a run of four checkpoints, the second of them the best."""
    root = tmp_path / "my-gpt"
    root.mkdir()
    sources = tuple(Source(f"books/{name}.txt", 1000, 5, "0" * 64) for name in "ab")
    corpus = Inputs((Input("source", "books", "1" * 64),), sources)
    make(root / "corpus" / "main", "corpus", {"val-00000.arrow": b"text"}, corpus, {}).commit({}, {})
    tokens = Inputs((input_of(root, "corpus", "corpus/main"),))
    make(root / "tokens" / "main", "tokens", {"val-00000.arrow": b"ids"}, tokens, {}).commit({}, {})
    make_run(root, "base", Inputs((input_of(root, "tokens", "tokens/main"),)), LOSSES)
    return root


@pytest.fixture
def adapter_run(root: Path) -> Path:
    """A run `chat` of adapters on the third checkpoint of `base`."""
    base = input_of(root, "base", "runs/base/checkpoints/step-00000300")
    return make_run(root, "chat", Inputs((base,)), {10: 1.0, 20: 0.9}, adapter=True)
