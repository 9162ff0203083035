"""What only a CUDA device can show; `make test-gpu` runs these with the torch that is there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from gptcli.artifacts.project import Project
from gptcli.inference.open import open_model
from gptcli.runtime.device import default_dtype, peak_device_bytes
from gptcli.training.loss import IGNORED, linear_cross_entropy

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
CUDA = torch.device("cuda")
SMALL = ["steps=30", "seq_len=64", "global_batch_tokens=1024", "hidden_size=128", "num_heads=2", "num_layers=2"]
VISIBLE = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0")}


def settings(*pairs: str) -> list[str]:
    return [word for pair in pairs for word in ("--set", pair)]


def test_the_loss_is_the_same_as_in_plain_torch() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(513, 64, device=CUDA, requires_grad=True)
    weight = torch.randn(1000, 64, device=CUDA, requires_grad=True)
    targets = torch.randint(0, 1000, (513,), device=CUDA)
    targets[::7] = IGNORED
    linear_cross_entropy(hidden, weight, targets)[0].backward()
    ours = hidden.grad, weight.grad
    hidden.grad = weight.grad = None
    F.cross_entropy(hidden @ weight.t(), targets, reduction="sum").backward()
    for mine, theirs in zip(ours, (hidden.grad, weight.grad), strict=True):
        assert mine is not None and theirs is not None
        assert torch.allclose(mine, theirs, atol=2e-2)


def test_a_run_learns_and_opens_on_a_cpu(tmp_path: Path, chain: Any, gptcli: Any) -> None:
    root = chain.copy(tmp_path / "project", until="pretrain")
    words = ("pretrain", "--name", "gpu", "--device", "cuda", *settings(*SMALL, "save_every=10", "val_every=10"))
    report = gptcli(root, *words, "--json", expect=0, **VISIBLE).figures
    assert report["val_loss"] < 5.5
    checkpoint = root / "runs/gpu/checkpoints/step-00000020"
    assert checkpoint.is_dir()

    project = Project.open(root)
    ids = torch.randint(0, 600, (2, 64), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        on_cpu = open_model(project, "gpu", torch.device("cpu"), torch.float32)[0](ids)
        on_gpu = open_model(project, "gpu", CUDA, torch.float32)[0](ids.to(CUDA)).cpu()
    assert (on_cpu - on_gpu).abs().max() < 5e-2 * on_cpu.abs().max()


def test_fine_tuning_and_evaluation_run_on_the_device(tmp_path: Path, chain: Any, gptcli: Any) -> None:
    root = chain.copy(tmp_path / "project", until="eval")
    gptcli(root, "eval", "base", "--device", "cuda", expect=0, **VISIBLE)
    tuned = gptcli(root, "finetune-lora", "--base", "base", "--device", "cuda", "--json", expect=0, **VISIBLE).figures
    assert tuned["val_loss"] < tuned["val_loss_before"]


def test_what_the_device_tells_of_itself() -> None:
    torch.ones(1 << 20, device=CUDA)
    memory = peak_device_bytes(CUDA)
    assert memory is not None and 4 << 20 <= memory[0] < memory[1]
    assert default_dtype(CUDA) in (torch.bfloat16, torch.float32)
