"""architecture = "gpt2" through the command line: pretrained, measured, tuned, exported, opened by others."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path

import pytest
import torch

from gptcli.cli import app
from gptcli.errors import ArtifactError
from gptcli.models.load import load_adapter, load_model

transformers = pytest.importorskip("transformers")

RECIPE = """\
[corpus.main]
source = "texts"
separator = "blank_lines"

[tokenize.main]
vocab_size = 400

[pretrain.base]
architecture = "gpt2"
dtype = "float32"
hidden_size = 32
num_layers = 2
num_heads = 2
head_dim = 16
seq_len = 64
global_batch_tokens = 512
steps = 6
save_every = 3
tie_embeddings = true
sample_tokens = 4
threads = 1

[eval.base]
dtype = "float32"

[finetune-lora.chat]
chats = "chats.jsonl"
dtype = "float32"
val_share = 0.2
seq_len = 64
sequences = 4
steps = 3
threads = 1
"""


def run(root: Path, *words: str) -> None:
    """A command in this process: the whole way but the start of an interpreter."""
    assert not app([*words, "-C", str(root)], prog_name="gptcli", standalone_mode=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, gptcli) -> Path:
    """A project whose base is a GPT-2, with a tuned adapter on it."""
    home = tmp_path_factory.mktemp("gpt2") / "project"
    (home / "texts").mkdir(parents=True)
    shutil.copy(ast.__file__, home / "texts" / "ast.txt")
    turns = [
        {"messages": [{"role": "user", "content": f"count to {n}"}, {"role": "assistant", "content": "1 " * n}]}
        for n in range(1, 13)
    ]
    (home / "chats.jsonl").write_text("".join(json.dumps(turn) + "\n" for turn in turns), encoding="utf-8")
    (home / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    run(home, "corpus", "-q")
    run(home, "tokenize", "-q")
    gptcli(home, "pretrain", "-q", expect=0)
    run(home, "finetune-lora", "--base", "base", "-q")
    return home


def latest(root: Path, run: str) -> Path:
    return sorted((root / "runs" / run / "checkpoints").iterdir())[-1]


def logits(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.arange(48).mul(7).remainder(400)[None]
    with torch.no_grad():
        out = model(ids)
    return out if isinstance(out, torch.Tensor) else out.logits


def test_a_checkpoint_is_a_gpt2_that_learned(root):
    rows = [json.loads(line) for line in (root / "runs/base/metrics.jsonl").read_text().splitlines()]
    losses = [row["train_loss"] for row in rows if "train_loss" in row]
    assert len(losses) == 6 and losses[-1] < losses[0] - 0.1
    checkpoint = latest(root, "base")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    assert type(theirs).__name__ == "GPT2LMHeadModel"
    assert (logits(theirs) - logits(load_model(checkpoint))).abs().max() < 1e-4


def test_it_is_measured_as_in_training(root, capsys):
    run(root, "eval", "base", "--json")
    rows = [json.loads(line) for line in (root / "runs/base/metrics.jsonl").read_text().splitlines()]
    validated = [row["val_loss"] for row in rows if "val_loss" in row]
    assert json.loads(capsys.readouterr().out)["loss"] == pytest.approx(validated[-1], abs=1e-4)


def test_an_export_opens_elsewhere(root):
    run(root, "export", "base", "--to", "hf", "-q")
    export = root / "exports/main"
    theirs = transformers.AutoModelForCausalLM.from_pretrained(export).eval()
    assert torch.equal(logits(theirs), logits(transformers.AutoModelForCausalLM.from_pretrained(latest(root, "base"))))
    assert "architecture: gpt2" in (export / "README.md").read_text(encoding="utf-8")


def test_a_bound_on_the_logits_is_not_exported_in_silence(root, tmp_path):
    capped = tmp_path / "capped"
    shutil.copytree(latest(root, "base"), capped)
    (capped / "manifest.json").unlink()
    raw = json.loads((capped / "config.json").read_text(encoding="utf-8"))
    (capped / "config.json").write_text(json.dumps({**raw, "final_logit_softcapping": 2.0}), encoding="utf-8")
    with pytest.raises(ArtifactError, match="final_logit_softcapping=2"):
        run(root, "export", f"{capped}/", "--name", "capped", "-q")
    assert not (root / "exports/capped").exists()


def test_its_adapter_opens_elsewhere_merged_and_apart(root):
    peft = pytest.importorskip("peft")
    ours = load_model(latest(root, "base"))
    untouched = logits(ours)
    load_adapter(ours, latest(root, "chat"))
    run(root, "export", "chat", "--name", "merged", "-q")
    run(root, "export", "chat", "--name", "apart", "--set", "merge=false", "-q")
    merged = transformers.AutoModelForCausalLM.from_pretrained(root / "exports/merged").eval()
    base = transformers.AutoModelForCausalLM.from_pretrained(root / "exports/apart/base")
    apart = peft.PeftModel.from_pretrained(base, root / "exports/apart").eval()
    assert (logits(ours) - untouched).abs().max() > 1e-3
    assert (logits(merged) - logits(ours)).abs().max() < 1e-4
    assert (logits(apart) - logits(ours)).abs().max() < 1e-4


def test_it_writes(root, capsys):
    for model in ("base", "chat"):
        run(root, "chat", model, "--prompt", "def visit", "--max-tokens", "4", "--json")
        assert json.loads(capsys.readouterr().out)["tokens"] <= 4
