from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gptcli.errors import SpecError
from gptcli.pretrain.spec import PRESETS, PretrainSpec, count_parameters
from gptcli.spec import resolve

SMALL = ["hidden_size=64", "num_heads=2", "head_dim=32", "num_layers=1", "seq_len=64", "global_batch_tokens=512"]


def small(*pairs: str) -> list[str]:
    return [word for pair in [*SMALL, "val_every=0", "save_every=0", *pairs] for word in ("--set", pair)]


@pytest.mark.parametrize(("name", "vocab_size"), [("3m", 8192), ("10m", 8192), ("30m", 8192), ("124m", 50257)])
def test_a_preset_has_about_the_size_of_its_name(name: str, vocab_size: int) -> None:
    spec = PretrainSpec(preset=name, **PRESETS[name])  # type: ignore[arg-type]
    assert abs(count_parameters(spec, vocab_size) / 1e6 / float(name[:-1]) - 1) < 0.06


def test_the_count_of_parameters_is_the_models(chain: Any) -> None:
    figures = chain.stages["pretrain"].figures
    manifest = json.loads((chain.root / "runs/base/manifest.json").read_text())
    spec = PretrainSpec(**manifest["spec"])
    assert figures["parameters"] == count_parameters(spec, 600)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (
            {"global_batch_tokens": 10000, "micro_batch_size": 64},
            r"global_batch_tokens=10000 is not a multiple of micro_batch_size\*seq_len=16384; nearest: 16384",
        ),
        ({"global_batch_tokens": 1000}, "is not a multiple of seq_len=256; nearest: 768, 1024"),
        ({"steps": 5, "epochs": 1}, "steps and epochs are both a budget"),
        ({"architecture": "llama", "hidden_size": 33}, "hidden_size=33 is no multiple of num_heads=4"),
        ({"preset": "4m"}, "preset = '4m'"),
        ({"seed": 2**40}, "seed = "),
        ({"packing": "bestfit", "seq_len": 8}, "packing=bestfit has rows of 16 to"),
    ],
)
def test_spec_errors_say_what_to_do(values: dict[str, Any], match: str) -> None:
    with pytest.raises(SpecError, match=match):
        resolve(PretrainSpec, [("recipe", values)])


@pytest.mark.parametrize(
    ("budget", "steps"), [("epochs=0.05", None), ("budget_tokens=5000", 10), ("seconds=0.5", None)], ids=str
)
def test_budgets_become_steps(tmp_path: Path, chain: Any, gptcli: Any, budget: str, steps: int | None) -> None:
    root = chain.copy(tmp_path / "project", until="pretrain")
    figures = gptcli(root, "pretrain", "--name", "b", "--json", *small(budget), expect=0).figures
    if budget.startswith("epochs"):
        assert figures["epochs"] >= 0.05 > (figures["step"] - 1) / figures["step"] * figures["epochs"]
    elif budget.startswith("seconds"):
        assert figures["step"] == json.loads((root / "runs/b/budget.json").read_text())["steps"]
    else:
        assert figures["step"] == steps


def test_a_validation_comes_with_a_sample_and_the_end_with_a_curve(tmp_path: Path, chain: Any, gptcli: Any) -> None:
    root = chain.copy(tmp_path / "project", until="pretrain")
    words = ["pretrain", "--steps", "12", *small("schedule=cosine", "sample_tokens=8")]
    done = gptcli(root, *words, "--name", "b", expect=0)
    rows = [json.loads(line) for line in (root / "runs/b/metrics.jsonl").read_text().splitlines()]
    assert isinstance(rows[-1]["sample"], str) and rows[-1]["step"] == 12
    assert all({"train_loss", "lr", "grad_norm"} <= row.keys() for row in rows[:-1])
    assert "it writes" in done.err and "└──" in done.err and "└──" not in done.out


@pytest.mark.parametrize("save_every", [0, 1])
def test_a_run_that_blows_up_ends_with_6_and_keeps_no_broken_weights(
    tmp_path: Path, chain: Any, gptcli: Any, save_every: int
) -> None:
    root = chain.copy(tmp_path / "project", until="pretrain")
    rates = [f"{name}=1e30" for name in ("lr", "embedding_lr", "head_lr", "gain_lr")]
    words = ["pretrain", "--steps", "4", "--name", "b", *small(*rates, f"save_every={save_every}")]
    gptcli(root, *words).failed(6, "diverged")
    kept = sorted((root / "runs/b/checkpoints").glob("step-*"))
    assert len(kept) <= save_every
    for path in kept:
        assert all(torch.isfinite(tensor).all() for tensor in load_file(path / "model.safetensors").values())
    gptcli(root, *words).failed(6, "diverged")
