"""Rates that follow the width, and training that goes on from another model's weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from gptcli.errors import SpecError
from gptcli.models.config import LlamaConfig
from gptcli.pretrain.rates import peak_rates
from gptcli.pretrain.spec import PretrainSpec
from gptcli.spec import resolve


def config(width: int, tied: bool = False) -> LlamaConfig:
    return LlamaConfig("qwen3", 100, width, 64, 1, 2, 2, 16, 32, tie_word_embeddings=tied)


def test_rates_left_to_the_rule_follow_the_width() -> None:
    narrow, wide = (peak_rates(PretrainSpec(), config(width)) for width in (256, 1024))
    assert (narrow.matrix, narrow.embedding, narrow.head, narrow.gain) == (0.02, 0.1, 0.004, 0.01)
    assert (wide.matrix, wide.gain) == (narrow.matrix, narrow.gain)
    assert wide.embedding == pytest.approx(narrow.embedding / 2) and wide.head == pytest.approx(narrow.head / 2)
    adamw = [peak_rates(PretrainSpec(optimizer="adamw"), config(width)).matrix for width in (256, 1024)]
    assert adamw[0] == pytest.approx(4 * adamw[1])


def test_rates_that_are_set_are_taken_as_they_are() -> None:
    spec = PretrainSpec(lr=0.5, embedding_lr=0.4, head_lr=0.3, gain_lr=0.2)
    rates = peak_rates(spec, config(1024))
    assert (rates.matrix, rates.embedding, rates.head, rates.gain) == (0.5, 0.4, 0.3, 0.2)
    assert peak_rates(spec, config(1024, tied=True)).embedding == 0.3


@pytest.mark.parametrize("key", ["hidden_size", "preset", "architecture"])
def test_a_base_decides_its_own_shape(key: str) -> None:
    given = {"hidden_size": 256, "preset": "3m", "architecture": "llama"}[key]
    with pytest.raises(SpecError, match=f"{key}=.*base=theirs has its own shape"):
        resolve(PretrainSpec, [("recipe", {"base": "theirs", key: given})])
    assert "hidden_size" not in PretrainSpec(base="theirs").content()


def settings(*pairs: str) -> list[str]:
    common = ("base=base", "seq_len=64", "global_batch_tokens=512", "val_first=true", "sample_tokens=0")
    return [word for pair in (*common, *pairs) for word in ("--set", pair)]


def test_going_on_from_a_run_starts_at_its_loss(tmp_path: Path, chain: Any, gptcli: Any) -> None:
    root = chain.copy(tmp_path / "project", until="eval")
    done = gptcli(root, "pretrain", "--name", "more", "--steps", "3", *settings("dtype=float32"), "--json", expect=0)
    before = chain.stages["pretrain"].figures
    assert done.figures["val_loss_before"] == pytest.approx(before["val_loss"], abs=2e-3)
    assert done.figures["val_loss"] < before["val_loss"] + 0.05
    ours, theirs = (json.loads((last(root, name) / "config.json").read_text()) for name in ("more", "base"))
    assert ours == theirs
    assert (
        load_file(last(root, "more") / "model.safetensors").keys()
        == load_file(last(root, "base") / "model.safetensors").keys()
    )
    inputs = json.loads((root / "runs/more/manifest.json").read_text())["inputs"]
    assert [entry["role"] for entry in inputs] == ["tokens", "base"]


def last(root: Path, run: str) -> Path:
    return max((root / "runs" / run / "checkpoints").glob("step-*"))


def test_another_tokenizer_or_a_longer_sequence_is_refused(tmp_path: Path, chain: Any, gptcli: Any) -> None:
    root = chain.copy(tmp_path / "project", until="eval")
    longer = gptcli(root, "pretrain", "--name", "more", *settings("seq_len=128", "global_batch_tokens=1024"), expect=2)
    assert "seq_len=128 is longer than the context of base, 64 tokens" in longer.err
    gptcli(root, "tokenize", "--name", "other", "--set", "vocab_size=590", expect=0)
    other = gptcli(root, "pretrain", "--name", "more", *settings("tokens=other"), expect=2)
    assert "tokens/other and base have different tokenizers: id" in other.err
    assert not (root / "runs/more").exists()
