"""All seven stages on small text, through the command line, each result opened and compared."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.ipc
import pytest
import torch

from gptcli.artifacts.manifest import read_manifest
from gptcli.models.load import load_adapter, load_model
from gptcli.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

KINDS = {
    "corpus/main": "corpus",
    "tokens/main": "tokens",
    "runs/base": "run",
    "runs/chat": "run",
    "evals/base": "evaluation",
    "exports/main": "export",
}
TEXT = "def decode(self, s):\n    '''Return the <|im_end|> of naïve text.'''\n"


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def checkpoints(run: Path) -> dict[int, Path]:
    return {int(path.name.removeprefix("step-")): path for path in sorted((run / "checkpoints").iterdir())}


def token_ids(directory: Path) -> torch.Tensor:
    return torch.tensor([Tokenizer.load(directory).document(TEXT)])


@pytest.fixture
def copied(chain, tmp_path) -> Path:
    """The whole project, to be changed."""
    return chain.copy(tmp_path / "project")


def test_every_stage_prints_one_object_and_leaves_whole_artifacts(chain, finished_names):
    for name, done in chain.stages.items():
        assert done.out.count("\n") == 1, name
        assert done.figures["stage"] == name
        assert "Traceback" not in done.err and "warning" not in done.err, done.err
    for place, kind in KINDS.items():
        assert read_manifest(chain.root / place).kind == kind
    assert len(finished_names(chain.root)) == 4 + len(checkpoints(chain.root / "runs/base")) + len(
        checkpoints(chain.root / "runs/chat")
    )


def test_counts_add_up_and_shards_match_row_for_row(chain):
    figures = chain.stages["corpus"].figures
    assert figures["documents"] + sum(figures["left_out"].values()) == figures["documents_read"] > 2000
    assert sum(split["documents"] for split in figures["splits"].values()) == figures["documents"]
    shards = sorted((chain.root / "corpus/main").glob("*-*.arrow"))
    assert len(shards) > 5
    dropped = pyarrow.ipc.open_file(chain.root / "corpus/main/dropped.arrow").read_all()
    assert Counter(dropped["reason"].to_pylist()) == figures["left_out"]
    assert {path.name for path in (chain.root / "corpus/main/ngrams").iterdir()} == {path.name for path in shards}
    seen = 0
    for shard in shards:
        documents = pyarrow.ipc.open_file(shard).read_all()
        tokens = pyarrow.ipc.open_file(chain.root / "tokens/main" / shard.name).read_all()
        assert documents["id"].to_pylist() == tokens["document"].to_pylist()
        assert [len(text.encode()) for text in documents["text"].to_pylist()] == tokens["bytes"].to_pylist()
        seen += documents.num_rows
    assert seen == figures["documents"]


def test_inputs_are_the_hashes_of_what_came_before(chain):
    hashes = {place: read_manifest(chain.root / place).content_sha256 for place in KINDS}
    chat = checkpoints(chain.root / "runs/chat")[8]
    base = checkpoints(chain.root / "runs/base")[18]
    base_hash, chat_hash = (read_manifest(path).content_sha256 for path in (base, chat))

    def inputs(place: str | Path) -> dict[str, str]:
        return {entry.role: entry.content_sha256 for entry in read_manifest(chain.root / place).inputs}

    assert inputs("tokens/main") == {"corpus": hashes["corpus/main"]}
    assert inputs("runs/base") == inputs(base) == {"tokens": hashes["tokens/main"]}
    assert inputs("evals/base") == {"model": base_hash, "tokens": hashes["tokens/main"]}
    assert inputs(chat)["base"] == base_hash
    ancestors = {"tokens": hashes["tokens/main"], "corpus": hashes["corpus/main"]}  # which the card tells of
    assert inputs("exports/main") == {"model": chat_hash, "base": base_hash, **ancestors}


def test_the_runs_metrics(chain):
    base, chat = chain.root / "runs/base", chain.root / "runs/chat"
    rows = rows_of(base / "metrics.jsonl")
    assert [row["step"] for row in rows if "train_loss" in row] == list(range(1, 19))
    assert [row["step"] for row in rows if "val_loss" in row] == [6, 12, 18]
    assert set(checkpoints(base)) == {15, 18}
    assert rows[-1]["val_loss"] < rows[0]["train_loss"] - 0.5
    figures = chain.stages["finetune-lora"].figures
    looked = [row["val_loss"] for row in rows_of(chat / "metrics.jsonl") if "val_loss" in row]
    assert looked[0] == figures["val_loss_before"] and looked[-1] == figures["val_loss"]
    assert figures["val_loss"] < figures["val_loss_before"] - 0.2


def test_eval_gives_the_loss_that_training_saw(chain):
    seen = [row for row in rows_of(chain.root / "runs/base/metrics.jsonl") if row.get("step") == 18][-1]
    figures = chain.stages["eval"].figures
    assert figures["loss"] == pytest.approx(seen["val_loss"], abs=2e-6)
    assert figures["bits_per_byte"] == pytest.approx(seen["val_bits_per_byte"], abs=2e-6)
    report = json.loads((chain.root / "evals/base/report.json").read_text())
    assert report["figures"]["loss"] == figures["loss"]


def test_transformers_opens_every_checkpoint_and_the_export(chain):
    places = [*checkpoints(chain.root / "runs/base").values(), chain.root / "exports/main"]
    for place in places:
        ids = token_ids(place)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(place, attn_implementation="eager").eval()
        with torch.no_grad():
            difference = (theirs(ids).logits - load_model(place)(ids)).abs().max()
        assert difference < 1e-4, place
        tokenizer = transformers.AutoTokenizer.from_pretrained(place)
        wanted = tokenizer(TEXT, split_special_tokens=True, add_special_tokens=False)["input_ids"]
        assert wanted == Tokenizer.load(place).encode(TEXT)
        assert tokenizer.decode(wanted) == TEXT


def test_peft_opens_every_adapter(chain):
    base = checkpoints(chain.root / "runs/base")[18]
    for place in checkpoints(chain.root / "runs/chat").values():
        ids = token_ids(place)
        whole = transformers.AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager")
        theirs = peft.PeftModel.from_pretrained(whole, place).eval()
        ours = load_model(base)
        with torch.no_grad():
            untouched = ours(ids)
            load_adapter(ours, place)
            assert (theirs(ids).logits - ours(ids)).abs().max() < 1e-4
            assert (untouched - ours(ids)).abs().max() > 1e-3


def test_the_export_answers_as_the_adapter_does(chain):
    base, chat = checkpoints(chain.root / "runs/base")[18], checkpoints(chain.root / "runs/chat")[8]
    adapted, merged = load_model(base), load_model(chain.root / "exports/main")
    load_adapter(adapted, chat)
    ids = token_ids(chain.root / "exports/main")
    with torch.no_grad():
        assert (adapted(ids) - merged(ids)).abs().max() < 1e-4
    tokenizer = transformers.AutoTokenizer.from_pretrained(chain.root / "exports/main")
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What?"}], add_generation_prompt=True, tokenize=False
    )
    assert "<|im_start|>assistant" in rendered


def test_chat_answers_once_and_alike(chain, gptcli):
    words = ("chat", "chat", "--prompt", "What is 3 and 4?", "--temperature", "0", "--max-tokens", "12")
    plain = gptcli(chain.root, *words, expect=0)
    again = gptcli(chain.root, *words, "--json", expect=0)
    assert plain.out.endswith("\n")
    assert plain.out == again.figures["text"] + "\n"
    assert 0 < again.figures["tokens"] <= 12


def test_checkpoint_verbs(copied, gptcli):
    listed = gptcli(copied, "checkpoint", "list", "--json", expect=0).figures
    assert {run["run"]: [entry["step"] for entry in run["checkpoints"]] for run in listed["runs"]} == {
        "base": [15, 18],
        "chat": [6, 8],
    }
    shown = gptcli(copied, "checkpoint", "show", "chat", "--json", expect=0)
    for ancestor in ("runs/base/checkpoints/step-00000018", "tokens/main", "corpus/main", "texts", "chats.jsonl"):
        assert ancestor in json.dumps(shown.figures["lineage"]), ancestor
    verified = gptcli(copied, "checkpoint", "verify", "--json", expect=0).figures
    assert verified["damaged"] == 0 and len(verified["artifacts"]) == 10
    tagged = gptcli(copied, "checkpoint", "tag", "base@best", "0.1.0", "--as", "small", "--json", expect=0)
    assert (copied / tagged.figures["path"] / "model.safetensors").samefile(
        checkpoints(copied / "runs/base")[18] / "model.safetensors"
    )
    measured = gptcli(copied, "eval", "small:0.1.0", "--set", "dtype=float32", "--json", expect=0).figures
    assert measured["loss"] == json.loads((copied / "evals/base/report.json").read_text())["figures"]["loss"]
    gptcli(copied, "checkpoint", "tag", "base@15", "0.1.0", "--as", "small").failed(3, "0.1.0")


def test_gates_are_judged_again_on_the_stored_report(copied, gptcli):
    held = gptcli(copied, "eval", "base", "--fail-if", "bits_per_byte>0.1")
    held.failed(5, "bits_per_byte")
    assert "torch" not in held.heavy
    passed = gptcli(copied, "eval", "base", "--fail-if", "bits_per_byte>100", expect=0)
    assert "torch" not in passed.heavy


def test_status_tells_what_is_done_and_stale(copied, gptcli):
    def states() -> dict[str, str]:
        rows = gptcli(copied, "status", "--json", expect=0).figures["stages"]
        return {f"{row['stage']}.{row['name']}": row["state"] for row in rows}

    assert set(states().values()) == {"done"}
    recipe = copied / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("vocab_size = 600", "vocab_size = 500"))
    assert states()["tokenize.main"] == "stale"
    table = gptcli(copied, "status", expect=0)
    assert "stale" in table.out and "torch" not in table.heavy


def test_a_dry_run_says_where_values_come_from_and_changes_nothing(chain, gptcli, snapshot):
    before = snapshot(chain.root, whole=True)
    done = gptcli(chain.root, "pretrain", "--steps", "30", "--set", "lr=0.01", "--dry-run", "--json", expect=0)
    origins = done.figures["origins"]
    assert origins["steps"] == "flag" and origins["lr"] == "--set" and origins["seed"] == "default"
    assert origins["hidden_size"].startswith("recipe.toml")
    assert "steps was 18, now 30" in done.figures["plan"]
    assert "torch" not in done.heavy
    assert snapshot(chain.root, whole=True) == before
