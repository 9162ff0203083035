from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptcli.artifacts.manifest import read_manifest
from gptcli.artifacts.packing import packing_path
from gptcli.artifacts.project import Project
from gptcli.errors import ArtifactError, SpecError
from gptcli.pretrain.explain import explain_step, print_shown
from gptcli.pretrain.spec import PretrainSpec
from gptcli.tokenizer import Tokenizer
from gptcli.training.batches import TokenBatches
from gptcli.training.open_rows import open_rows
from gptcli.training.pack import Pack
from gptcli.training.packing import write_packing

NASTY = "\x1b[31mred\x9b2J\u202egnp.exe [bold]x[/bold] <s> \u2028 end"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, gptcli: Any) -> Path:
    """A project with a corpus of some hundred documents, short and long, and its tokens."""
    root = tmp_path_factory.mktemp("explain") / "project"
    draw = np.random.default_rng(2)
    words = ["tree", "river", "of", "the", "light", "under", "seven", "stones", "and", "a", "quiet", "engine"]
    (root / "texts").mkdir(parents=True)
    for number in range(300):
        length = int(draw.choice([4, 30, 400]))
        text = f"Number {number}: " + " ".join(draw.choice(words, length))
        (root / "texts" / f"{number:03d}.txt").write_text(text, encoding="utf-8")
    (root / "texts" / "nasty.txt").write_text(f"{NASTY} " * 40, encoding="utf-8")
    gptcli(root, "corpus", "texts", "--set", "shard_bytes=60_000", expect=0)
    gptcli(root, "tokenize", "--vocab-size", "400", expect=0)
    return root


def begin_run(root: Path, rows: list[dict[str, Any]] | None = None, name: str = "base", **keys: Any) -> PretrainSpec:
    """A run's folder as training leaves it, with `rows` for its log."""
    spec = PretrainSpec(**{"seq_len": 64, "global_batch_tokens": 512, "seed": 7, **keys})
    digest = read_manifest(root / "tokens/main").content_sha256
    entry = {"role": "tokens", "path": "tokens/main", "content_sha256": digest}
    place = root / "runs" / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    (place / "spec.json").write_text(json.dumps({"kind": "run", "spec": spec.content(), "inputs": [entry]}))
    (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows or []))
    return spec


def batches_of(root: Path, spec: PretrainSpec) -> TokenBatches:
    tokens = root / "tokens/main"
    rows = open_rows(
        tokens,
        Tokenizer.load(tokens / "tokenizer"),
        packing=spec.packing,
        document_mask=spec.document_mask,
        seq_len=spec.seq_len,
        seed=spec.seed,
    )
    return TokenBatches(rows, spec.sequences, spec.seed)


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("packing", ["stream", "concat", "bestfit"])
def test_the_documents_named_are_those_whose_tokens_the_step_holds(made: Path, packing: str, masked: bool) -> None:
    spec = begin_run(made, packing=packing, document_mask=masked)
    data, project = batches_of(made, spec), Project.open(made)
    tokenizer = Tokenizer.load(made / "tokens/main/tokenizer")
    texts = {path.name: path.read_text(encoding="utf-8") for path in (made / "texts").iterdir()}
    an_epoch = data.count // spec.sequences
    for step in (1, 2, an_epoch + 1, 3 * an_epoch):  # the second but last over the end of an epoch
        told = explain_step(project, "base", step).figures
        (batch,) = data.step((step - 1) * spec.sequences, spec.sequences)
        assert (told["valid"], told["tokens"]) == (batch.valid, batch.tokens)
        assert [sample["sample"] for sample in told["samples"]] == list(
            range((step - 1) * spec.sequences, step * spec.sequences)
        )
        for row, sample in zip(batch.input_ids.tolist(), told["samples"], strict=True):
            held: list[int] = []
            for part in sample["documents"]:
                whole = tokenizer.document(texts[Path(part["source"]["path"]).name])
                assert len(whole) == part["document_tokens"]
                held += whole[part["begin"] : part["end"]]
                assert part["text"] == tokenizer.decode(whole[part["begin"] : part["end"]][:24])
            assert row[: len(held)] == held and len(held) == sample["tokens"]
            assert sample["epoch"] == sample["sample"] // data.count + 1
        assert told["not_told"] == []


def test_an_index_among_the_tokens_changes_nothing(tmp_path: Path, made: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(made, root)
    begin_run(root, packing="bestfit")
    project = Project.open(root)
    before = explain_step(project, None, 3).figures
    tokens = root / "tokens/main"
    write_packing(tokens, "train", Pack(seq_len=64, seed=7), packing_path(tokens, "train", "bestfit", 64, 7))
    assert explain_step(project, None, 3).figures == before


def test_the_log_tells_what_became_of_a_step_and_where_it_began(made: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"step": 1, "train_loss": 5.0, "grad_norm": 1.5, "lr": 0.1},
        {"step": 2, "train_loss": 9.0, "grad_norm": 80.0, "lr": 0.1, "skipped": "spike"},
        {"step": 2, "val_loss": 4.0, "sample": "text that the model wrote"},
        {"step": 3, "train_loss": 4.5, "grad_norm": 1.0, "lr": 0.1, "sample": 48},
        {"step": 4, "train_loss": 4.4, "grad_norm": 1.0, "lr": 0.1},
    ]
    begin_run(made, rows)
    project = Project.open(made)
    found = [explain_step(project, None, step).figures for step in range(1, 7)]
    assert [one["first_sample"] for one in found] == [0, 8, 48, 56, 64, 72]
    assert [one["outcome"] for one in found[:4]] == ["taken", "skipped: spike", "taken", "taken"]
    assert found[4]["outcome"].startswith("not taken yet") and found[4]["metrics"] == []
    assert found[1]["metrics"] == [rows[1]] and found[0]["metrics"] == [rows[0]]
    assert found[1]["first_sample_from"] != found[2]["first_sample_from"] == "metrics.jsonl"


def test_texts_and_names_cannot_play_with_the_terminal(
    made: Path, gptcli: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = begin_run(made)
    steps = batches_of(made, spec).count // spec.sequences + 1
    project = Project.open(made)
    reports = (explain_step(project, "base", step) for step in range(1, steps + 1))
    report = next(one for one in reports if "nasty.txt" in json.dumps(one.figures))
    for as_json in (False, True):
        print_shown(report, as_json)
        printed = capsys.readouterr().out
        assert all(line.isprintable() for line in printed.split("\n"))
    assert json.loads(printed)["samples"] == report.figures["samples"] and printed.isascii()
    done = gptcli(made, "pretrain", "--explain-step", str(report.figures["step"]), expect=0)
    assert "texts/nasty.txt" in done.out and "targets" in done.out and "torch" not in done.heavy
    shown = gptcli(made, "pretrain", "--explain-step", "2", "--name", "base", "--json", expect=0).figures
    assert shown["step"] == 2 and len(shown["samples"]) == spec.sequences


def test_a_corpus_that_is_gone_leaves_the_ids(tmp_path: Path, made: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(made, root)
    begin_run(root)
    project = Project.open(root)
    whole = explain_step(project, None, 1).figures
    shutil.rmtree(root / "corpus/main")
    left = explain_step(project, None, 1).figures
    assert left["not_told"] == ["the corpus corpus/main is gone"]
    parts = [part for sample in left["samples"] for part in sample["documents"]]
    assert all(part["source"] is None and part["text"] for part in parts)
    assert [part["document"] for part in parts] == [
        part["document"] for sample in whole["samples"] for part in sample["documents"]
    ]


@pytest.mark.parametrize("step", [0, -3, 1 << 60])
def test_a_number_that_is_no_step(made: Path, step: int) -> None:
    begin_run(made)
    with pytest.raises(SpecError, match="counted from 1"):
        explain_step(Project.open(made), None, step)


def test_what_cannot_be_explained_says_why(tmp_path: Path, made: Path, gptcli: Any) -> None:
    root = tmp_path / "project"
    shutil.copytree(made, root)
    begin_run(root)
    project = Project.open(root)
    gptcli(root, "pretrain", "--explain-step", "1", "--name", "other").failed(3, "there is no run runs/other")
    gptcli(root, "pretrain", "--explain-step", "1", "--set", "lr=1", "--force").failed(2, "--set and --force")
    started = root / "runs/base/spec.json"
    content = json.loads(started.read_text())
    for change, match in (
        ({"inputs": []}, "was not trained on tokens"),
        ({"spec": {**content["spec"], "colour": "red"}}, "not one of this gptcli"),
        ({"inputs": [{**content["inputs"][0], "content_sha256": "0"}]}, "is no longer what runs/base was trained on"),
        ({"spec": None, "inputs": 3}, "cannot be read"),
    ):
        started.write_text(json.dumps({**content, **change}))
        with pytest.raises(ArtifactError, match=match):
            explain_step(project, None, 1)
    begin_run(root)
    shard = sorted((root / "tokens/main").glob("train-*.arrow"))[0]
    shard.write_bytes(shard.read_bytes()[:-50])
    with pytest.raises(ArtifactError, match=shard.name):
        explain_step(project, None, 1)
