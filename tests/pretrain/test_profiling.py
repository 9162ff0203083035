from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from gptcli.training.profile import CATEGORIES

SMALL = ["hidden_size=64", "num_heads=2", "head_dim=32", "num_layers=1", "seq_len=64", "global_batch_tokens=256"]
SET = [word for pair in SMALL for word in ("--set", pair)]


def test_profile_touches_no_run(tmp_path: Path, chain: Any, gptcli: Any, snapshot: Any) -> None:
    root = chain.copy(tmp_path / "project")
    before = snapshot(root, whole=True)
    figures = gptcli(root, "pretrain", "--profile", "2", "--json", "-q", "--device", "cpu", *SET, expect=0).figures
    trace = root / figures["path"]
    assert snapshot(root, whole=True).keys() - before.keys() == {figures["path"]}
    assert before.items() <= snapshot(root, whole=True).items()
    assert tuple(figures["shares"]) == CATEGORIES
    assert sum(figures["shares"].values()) == pytest.approx(1, abs=0.001)
    assert all(figures["shares"][name] > 0 for name in ("matmuls", "attention", "loss", "optimizer"))
    assert figures["tokens_per_second"] == pytest.approx(256 / figures["seconds_per_step"], rel=0.01)
    assert 0 < figures["share_of_matmul_peak"] < 1.5
    assert "mfu" not in figures  # a CPU's data sheet says nothing of the kind
    with gzip.open(trace) as file:
        assert json.load(file)["traceEvents"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--profile", "0"], ["--profile 0", "1 to 1000"]),
        (["--profile", "2", "--force", "--steps", "3"], ["--steps and --force would do nothing"]),
        (["--profile", "2", "--set", "hidden=3"], ["hidden"]),
    ],
    ids=["no steps", "options it does not read", "unknown key"],
)
def test_profile_refuses(project: Any, gptcli: Any, words: list[str], named: list[str]) -> None:
    gptcli(project.root, "pretrain", *words).failed(2, *named)


def test_profile_without_tokens(project: Any, gptcli: Any) -> None:
    gptcli(project.root, "pretrain", "--profile", "2").failed(3, "there is no tokens/main")
