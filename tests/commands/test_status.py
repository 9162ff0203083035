from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from gptcli.artifacts.build import Build
from gptcli.artifacts.manifest import Input, Inputs, read_manifest
from gptcli.artifacts.project import Project
from gptcli.checkpoint.command import checkpoint
from gptcli.commands.status import status
from gptcli.corpus.spec import CorpusSpec, inputs
from gptcli.tokenize.spec import TokenizeSpec

app = typer.Typer()
app.command()(status)

RECIPE = """
[project]
name = "mine"
[corpus.main]
source = ["book.txt"]
[tokenize.main]
vocab_size = 400
[pretrain.base]
[pretran.typo]
"""


def ask(root: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    app(["-C", str(root), "--json"], standalone_mode=False)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def states(root: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    return {f"{row['stage']} {row['name']}": row["state"] for row in ask(root, capsys)["stages"]}


def detail(root: Path, capsys: pytest.CaptureFixture[str], stage: str) -> str:
    return next(row["detail"] for row in ask(root, capsys)["stages"] if row["stage"] == stage)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A recipe of three stages; corpus and tokens stand, made as the recipe says."""
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "book.txt").write_text("once upon a time")
    corpus = CorpusSpec(source=["book.txt"])
    made_of = inputs(corpus, Project.open(tmp_path), None)
    make(tmp_path, "corpus/main", "corpus", corpus.content(), made_of)
    tokens_of = Inputs((Input("corpus", "corpus/main", read_manifest(tmp_path / "corpus" / "main").content_sha256),))
    make(tmp_path, "tokens/main", "tokens", TokenizeSpec(vocab_size=400).content(), tokens_of)
    return tmp_path


def make(root: Path, path: str, kind: str, spec: dict[str, Any], made_of: Inputs) -> None:
    build = Build.open(root / path, kind=kind, spec=spec, inputs=made_of, say=print)
    (build.directory / "data").write_bytes(b"0123456789")
    build.commit({"step": 1}, {"created": "2026-01-01T00:00:00Z"})


def test_done_and_missing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert states(root, capsys) == {"corpus main": "done", "tokenize main": "done", "pretrain base": "missing"}
    found = ask(root, capsys)
    assert found["notes"] == ["recipe.toml: the table [pretran] is read by no stage; did you mean [pretrain]?"]
    assert found["bytes"]["tokens"] > 10 and found["free_bytes"] > 0
    app(["-C", str(root)], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "2026-01-01 00:00:00" in shown and "missing" in shown and "[pretrain]?" in shown


def test_a_changed_source_makes_the_corpus_stale(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "book.txt").write_text("once upon another time")
    assert states(root, capsys)["corpus main"] == "stale"
    assert detail(root, capsys, "corpus") == "source book.txt has changed"
    (root / "book.txt").unlink()
    assert "there is no file book.txt" in detail(root, capsys, "corpus")


def test_a_new_mtime_alone_makes_nothing_stale(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "book.txt").write_text("once upon a time")
    assert states(root, capsys)["corpus main"] == "done"


def test_a_changed_recipe_makes_its_artifact_stale(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "recipe.toml").write_text(RECIPE.replace("400", "500"))
    assert detail(root, capsys, "tokenize") == "vocab_size was 400, now 500"
    (root / "recipe.toml").write_text(RECIPE.replace("vocab_size", "vocab_sise"))
    assert "did you mean vocab_size" in detail(root, capsys, "tokenize")


def test_a_rebuilt_input_makes_what_was_made_of_it_stale(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = CorpusSpec(source=["book.txt"], min_chars=2)
    make(root, "corpus/main", "corpus", spec.content(), inputs(spec, Project.open(root), None))
    assert states(root, capsys) == {"corpus main": "done", "tokenize main": "stale", "pretrain base": "missing"}


def test_what_stands_without_a_table_is_seen(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "recipe.toml").unlink()
    assert states(root, capsys) == {"corpus main": "done", "tokenize main": "done"}


def test_running_and_interrupted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Build.open(root / "corpus" / "other", kind="corpus", spec={}, inputs=Inputs(), say=print)
    run = root / "runs" / "base"
    (run / "checkpoints" / "step-00000030").mkdir(parents=True)
    (run / "spec.json").write_text(json.dumps({"spec": {"steps": 90}, "inputs": []}))
    chat = root / "runs" / "chat"
    chat.mkdir()
    (chat / "spec.json").write_text(
        json.dumps({"spec": {}, "inputs": [{"role": "base", "path": "x", "content_sha256": "0"}]})
    )
    with Project.open(root).lock("corpus", "main"):
        found = states(root, capsys)
        assert detail(root, capsys, "corpus").startswith("pid ")
    assert found == {
        "corpus main": "running",
        "corpus other": "interrupted",
        "tokenize main": "done",
        "pretrain base": "interrupted",
        "finetune-lora chat": "interrupted",
    }
    assert detail(root, capsys, "pretrain") == "saved up to step 30 of 90"


def test_a_broken_manifest_is_told_and_hides_nothing_else(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "corpus" / "main" / "manifest.json").write_text("{")
    rows = {row["stage"]: row for row in ask(root, capsys)["stages"]}
    assert rows["corpus"]["state"] == "stale" and "cannot be read" in rows["corpus"]["detail"]
    assert rows["tokenize"]["state"] == "stale"


def test_versions_and_hard_links(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(root, "runs/base/checkpoints/step-00000001", "checkpoint", {}, Inputs())
    before = ask(root, capsys)["bytes"]
    checkpoint(["tag", "base", "1.0.0", "--alias", "production", "-C", str(root)], standalone_mode=False)
    found = ask(root, capsys)
    assert found["models"] == [
        {
            "model": "mine",
            "versions": ["1.0.0"],
            "aliases": {"latest": "1.0.0", "production": "1.0.0"},
            "problems": [],
        }
    ]
    assert found["bytes"]["runs"] == before["runs"]
    app(["-C", str(root)], standalone_mode=False)
    assert "mine: 1.0.0 (latest, production)" in capsys.readouterr().out


def test_nothing_at_all(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    app(["-C", str(project.root)], standalone_mode=False)
    assert "nothing yet" in capsys.readouterr().out


def test_no_torch_is_imported(root: Path) -> None:
    script = (
        "import sys, typer; from gptcli.commands.status import status\n"
        f"app = typer.Typer(); app.command()(status); app(['-C', {str(root)!r}], standalone_mode=False)\n"
        "assert not {'torch', 'pyarrow', 'transformers'} & set(sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("recipe", "note"),
    [
        ('project = "x"\n', "project = 'x' is no table"),
        ("pretrain = 3\n", "pretrain = 3 is no table"),
        ("[pretrain]\nlr = 3\n", "pretrain.lr = 3 is in no table"),
    ],
)
def test_a_recipe_that_is_wrong_is_told_and_hides_nothing(
    root: Path, capsys: pytest.CaptureFixture[str], recipe: str, note: str
) -> None:
    (root / "recipe.toml").write_text(recipe)
    (root / "runs" / "base").mkdir(parents=True)
    (root / "runs" / "base" / "spec.json").write_text(json.dumps({"spec": {"steps": 90}, "inputs": []}))
    found = ask(root, capsys)
    assert [row["name"] for row in found["stages"]] == ["main", "main", "base"]
    assert note in found["notes"][0] and found["project"] == root.name


def test_a_table_that_names_no_folder_hides_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "recipe.toml").write_text(f'{RECIPE}[eval."a/b"]\n')
    assert states(root, capsys)["corpus main"] == "done"
    assert "'a/b' is no name" in detail(root, capsys, "eval")


def test_a_table_that_takes_a_tokenizer_where_one_was_trained(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Project.open(root).place("tokens", "other").joinpath("tokenizer").mkdir(parents=True)
    (root / "tokens" / "other" / "tokenizer" / "tokenizer.model").write_bytes(b"")
    (root / "recipe.toml").write_text(RECIPE.replace("vocab_size = 400", 'tokenizer = "other"'))
    rows = {(row["stage"], row["name"]): row for row in ask(root, capsys)["stages"]}
    assert rows["tokenize", "main"]["state"] == "stale"
    assert rows["tokenize", "main"]["detail"].startswith("tokenizer was '', now 'other'")
