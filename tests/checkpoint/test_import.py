from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gptcli.artifacts.locations import model_input, resolve_model
from gptcli.artifacts.manifest import read_manifest, verify_files
from gptcli.artifacts.project import Project
from gptcli.checkpoint import imported, importing, one_step_run
from gptcli.checkpoint.command import checkpoint
from gptcli.errors import ArtifactError, ResourceError, SpecError
from gptcli.inference.open import open_model
from gptcli.models import weights

AT = "runs/base/checkpoints/step-00000000"


def call(project: Project, *words: str) -> None:
    checkpoint([*words, "-C", str(project.root)], standalone_mode=False)


def ask(project: Project, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    call(project, *words, "--json")
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture
def stories(data_dir: Path) -> str:
    return str(data_dir / "stories260K-hf")


@pytest.fixture
def copied(data_dir: Path, tmp_path: Path) -> Path:
    """The same directory where it may be changed."""
    return Path(shutil.copytree(data_dir / "stories260K-hf", tmp_path / "copied"))


def files_of(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def test_an_imported_model_is_named_listed_and_checked_as_any_checkpoint(project, stories, capsys):
    found = ask(project, capsys, "import", stories)
    assert (found["name"], found["checkpoint"], found["imported"]) == ("base", AT, True)
    assert (found["parameters"], found["dtype"], found["vocab_size"]) == (260_032, "float32", 512)
    for ref in ("base", "base@0", "base@best"):
        assert resolve_model(project, ref).directory == project.root / AT
    assert model_input(project, "base").path == AT
    listed = ask(project, capsys, "list")["runs"][0]
    assert (listed["run"], listed["latest"], listed["checkpoints"][0]["step"]) == ("base", 0, 0)
    assert ask(project, capsys, "verify")["damaged"] == 0
    call(project, "show", "base")
    assert "stories260K-hf (llama, Hugging Face directory, safetensors)" in capsys.readouterr().out
    call(project, "tag", "base", "1.0.0", "--as", "mine")
    assert ask(project, capsys, "show", "mine:1.0.0")["parameters"] == 260_032


def test_weights_keep_their_bytes_and_the_manifest_says_whence(project, stories, capsys):
    call(project, "import", stories)
    kept = load_file(project.root / AT / "model.safetensors")
    want = load_file(Path(stories) / "model.safetensors")
    assert kept.keys() == want.keys() and all(torch.equal(kept[name], want[name]) for name in want)
    manifest, run = read_manifest(project.root / AT, "checkpoint"), read_manifest(project.root / "runs/base", "run")
    assert verify_files(project.root / "runs/base", run) == []
    assert manifest.inputs == () and manifest.spec == run.spec
    assert manifest.spec["form"] == "llama, Hugging Face directory, safetensors"
    assert project.path(manifest.spec["path"]).samefile(stories)
    sums = {entry["name"]: entry["sha256"] for entry in manifest.spec["files"]}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.model"} <= sums.keys()
    assert [source.sha256 for source in manifest.sources()] == [entry["sha256"] for entry in manifest.spec["files"]]
    model, tokenizer, _ = open_model(project, "base", torch.device("cpu"))
    assert tokenizer.bos_id == 1
    ids = torch.tensor([[1, 403, 407]])
    assert int(model(ids)[0, -1].argmax()) == 261


def test_llama2c_s_file_makes_the_same_checkpoint(project, stories, data_dir):
    call(project, "import", stories)
    call(project, "import", str(data_dir / "ckpt-stories260K" / "stories260K.bin"), "--name", "c")
    for name in ("config.json", "model.safetensors"):
        assert (project.root / AT / name).read_bytes() == (project.root / AT.replace("base", "c") / name).read_bytes()


def test_vocabularies_in_two_files_become_a_tokenizer(project, data_dir):
    call(project, "import", str(data_dir / "ckpt-hf-tiny-gpt2"))
    _, tokenizer, _ = open_model(project, "base", torch.device("cpu"))
    assert tokenizer.decode(tokenizer.encode(" lowest newer")) == " lowest newer"
    assert (tokenizer.vocab_size, tokenizer.eos_id) == (21, 20)


def test_the_same_command_again_changes_nothing(project, copied, capsys):
    call(project, "import", str(copied))
    before, times = files_of(project.root), (project.root / AT / "model.safetensors").stat().st_mtime_ns
    assert ask(project, capsys, "import", str(copied))["imported"] is False
    moved = copied.rename(copied.with_name("moved"))  # the same files from elsewhere are the same model
    assert ask(project, capsys, "import", str(moved))["imported"] is False
    assert files_of(project.root) == before
    assert (project.root / AT / "model.safetensors").stat().st_mtime_ns == times


def test_nothing_that_stands_is_overwritten(project, copied, stories, capsys):
    call(project, "import", stories)
    state = load_file(copied / "model.safetensors")
    save_file({**state, "model.norm.weight": state["model.norm.weight"] * 2}, copied / "model.safetensors")
    with pytest.raises(ArtifactError, match=r"stands already and is an import of .*stories260K-hf \(files differ\)"):
        call(project, "import", str(copied))
    with pytest.raises(ArtifactError, match="dtype differ"):
        call(project, "import", stories, "--dtype", "bfloat16")
    before = files_of(project.root / "runs/base")
    call(project, "import", str(copied), "--force")
    assert files_of(project.root / "runs/base.1") == before
    assert files_of(project.root / "runs/base") != before
    assert resolve_model(project, "base.1").directory.is_dir()


def test_a_run_that_was_trained_is_not_touched(project, stories):
    run = project.root / "runs/base"
    run.mkdir(parents=True)
    (run / "spec.json").write_text(json.dumps({"kind": "run", "spec": {"steps": 3}, "inputs": []}))
    with pytest.raises(ArtifactError, match="a run that was trained"):
        call(project, "import", stories)
    (run / "spec.json").unlink()
    (run / "notes.txt").write_text("mine")
    for words in ((), ("--force",)):
        with pytest.raises(ArtifactError, match="no run of gptcli's"):
            call(project, "import", stories, *words)


class Killed(BaseException):
    """The process ends here."""


CUTS = {
    "spec": (one_step_run, "write_json"),
    "weights": (importing, "write_model"),
    "read back": (importing, "check_written"),
    "metrics": (one_step_run, "write_bytes"),
    "manifest": (one_step_run, "write_manifest"),
}


def cut(project, monkeypatch, where, *words):
    """A command that is killed there."""

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(*CUTS[where], die)
        with pytest.raises(Killed):
            call(project, *words)


@pytest.mark.parametrize("where", CUTS)
def test_an_import_cut_short_anywhere_goes_on(where, project, stories, monkeypatch, tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    call(Project.open(whole), "import", stories)
    cut(project, monkeypatch, where, "import", stories)
    call(project, "import", stories)
    there, want = files_of(project.root), files_of(whole)
    places = {path for path in want if not path.startswith(".gptcli") and not path.endswith("spec.json")}
    assert {path: there[path] for path in places} == {path: want[path] for path in places}
    assert not list((project.root / "runs").rglob("*.partial"))


@pytest.mark.parametrize("where", CUTS)
def test_the_run_that_stands_stays_until_the_import_is_whole(where, project, stories, monkeypatch):
    call(project, "import", stories)
    before = files_of(project.root / "runs/base")
    again = ("import", stories, "--dtype", "bfloat16", "--force")
    cut(project, monkeypatch, where, *again)
    assert files_of(project.root / "runs/base") == before and not (project.root / "runs/base.1").exists()
    call(project, *again)
    assert files_of(project.root / "runs/base.1") == before
    assert not [path for path in (project.root / "runs").iterdir() if path.name not in ("base", "base.1")]


def test_an_import_that_failed_stands_in_no_other_s_way(project, stories, data_dir, tmp_path):
    with pytest.raises(ArtifactError, match="the tokenizer has 512 ids, the model 21"):
        call(project, "import", str(data_dir / "ckpt-hf-tiny-gpt2"), "--tokenizer", stories)
    call(project, "import", stories)
    assert verify_files(project.root / "runs/base", read_manifest(project.root / "runs/base")) == []


def test_weights_are_stored_as_asked(project, stories, capsys):
    found = ask(project, capsys, "import", stories, "--dtype", "bfloat16")
    assert (found["dtype"], found["weight_bytes"]) == ("bfloat16", 2 * 260_032)
    kept, want = load_file(project.root / AT / "model.safetensors"), load_file(Path(stories) / "model.safetensors")
    assert all(torch.equal(kept[name], want[name].bfloat16()) for name in want)
    assert json.loads((project.root / AT / "config.json").read_text())["dtype"] == "bfloat16"
    with pytest.raises(SpecError, match="int4 is no type"):
        call(project, "import", stories, "--dtype", "int4")


def test_a_model_without_a_tokenizer_needs_one_named(project, copied, stories, capsys):
    for name in ("tokenizer.model", "tokenizer_config.json"):
        (copied / name).unlink()
    with pytest.raises(ArtifactError, match="there is no tokenizer in") as caught:
        call(project, "import", str(copied))
    assert "--tokenizer" in caught.value.hint
    with pytest.raises(ArtifactError, match="there is no tokenizer at"):
        call(project, "import", str(copied), "--tokenizer", str(copied))
    assert not (project.root / "runs").exists()
    assert ask(project, capsys, "import", str(copied), "--tokenizer", stories)["vocab_size"] == 512
    model_file = str(Path(stories) / "tokenizer.model")
    assert ask(project, capsys, "import", str(copied), "--name", "b", "--tokenizer", model_file)["vocab_size"] == 512
    assert ask(project, capsys, "import", str(copied), "--name", "c", "--tokenizer", "none")["vocab_size"] == 0


def test_what_is_written_is_read_back(project, stories, monkeypatch):
    def damaged(path: Path, tensors: dict[str, Any], advance: Any) -> None:
        weights.write_streamed(path, tensors, advance)
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)

    monkeypatch.setattr(imported, "write_streamed", damaged)
    with pytest.raises(ArtifactError, match="read back is not what was written"):
        call(project, "import", stories)
    assert not (project.root / AT).exists()


def test_a_source_that_changes_meanwhile_is_noticed(project, copied, monkeypatch):
    def slow(path: Path, tensors: dict[str, Any], advance: Any) -> None:
        weights.write_streamed(path, tensors, advance)
        (copied / "config.json").write_text((copied / "config.json").read_text() + "\n")

    monkeypatch.setattr(imported, "write_streamed", slow)
    with pytest.raises(ArtifactError, match=r"config\.json changed while it was imported"):
        call(project, "import", str(copied))
    assert not (project.root / AT).exists()


def test_too_small_a_disk_is_told_before_anything_is_written(project, stories, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 10))  # type: ignore[attr-defined]
    with pytest.raises(ResourceError, match="10 B are free"):
        call(project, "import", stories)
    assert not (project.root / "runs").exists()


def test_an_adapter_is_no_whole_model(project, copied):
    (copied / "config.json").rename(copied / "adapter_config.json")
    with pytest.raises(ArtifactError, match="is an adapter"):
        call(project, "import", str(copied))


def test_torch_s_own_files_are_shown_and_verified(project, data_dir, tmp_path, capsys):
    directory = tmp_path / "tiny"
    shutil.copytree(data_dir / "ckpt-hf-tiny-gpt2", directory)
    state = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    torch.save(state, directory / "pytorch_model.bin")
    shown = ask(project, capsys, "show", str(directory))
    assert (shown["parameters"], shown["parameters_by_dtype"]) == (2168, {"F32": 2168})
    call(project, "show", str(directory))
    assert "gpt2, 1 layers, width 2, 1 heads, MLP 8, vocabulary 21, context 1024, tied head" in capsys.readouterr().out
    assert ask(project, capsys, "verify", str(directory))["damaged"] == 0
    state["wte.weight"][3] = torch.inf
    torch.save(state, directory / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match=r"wte\.weight holds values that are not finite"):
        call(project, "verify", str(directory))
    call(project, "verify", str(directory), "--no-finite")
    (directory / "pytorch_model.bin").write_bytes(b"PK")
    with pytest.raises(ArtifactError, match="no archive"):
        call(project, "verify", str(directory), "--no-finite")


def test_a_file_named_as_a_model_leads_to_the_import(project, data_dir):
    with pytest.raises(ArtifactError) as caught:
        resolve_model(project, str(data_dir / "ckpt-stories260K" / "stories260K.bin"))
    assert "checkpoint import" in caught.value.hint


def test_help_is_cold():
    code = (
        "import sys, contextlib, io, gptcli.cli; sys.argv = ['gptcli', 'checkpoint', 'import', '--help']\n"
        "out = io.StringIO()\n"
        "with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit): gptcli.cli.main()\n"
        "assert 'gptcli checkpoint import' in out.getvalue()\n"
        "assert not {'torch', 'pyarrow', 'pydantic', 'numba', 'numpy', 'tokenizers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.faults
def test_every_stage_takes_an_imported_model(project, stories, gptcli):
    (project.root / "texts.txt").write_text("Once upon a time there was a girl named Lily.\n" * 20)
    rows = [[{"role": "user", "content": f"Hi {n}"}, {"role": "assistant", "content": "Hello there"}] for n in range(4)]
    lines = "".join(json.dumps({"messages": row}) + "\n" for row in rows)
    (project.root / "chats.jsonl").write_text(lines)
    gptcli(project.root, "checkpoint", "import", stories, expect=0)
    said = gptcli(
        project.root,
        *("chat", "base", "--complete", "--prompt", "Once upon", "--temperature", "0", "--max-tokens", "9"),
        expect=0,
    )
    assert said.out.strip()
    scored = gptcli(project.root, "eval", "base", "--set", 'text=["texts.txt"]', "--json", expect=0)
    assert scored.figures["loss"] < 4
    small = [word for key in ("val_share=0", "seq_len=64", "sequences=2") for word in ("--set", key)]
    gptcli(project.root, "finetune-lora", "chats.jsonl", "--base", "base", "--steps", "2", *small, expect=0)
    gptcli(project.root, "export", "base", "--to", "hf", expect=0)
    gptcli(project.root, "export", "chat", "--to", "hf", "--name", "tuned", expect=0)
    gptcli(project.root, "checkpoint", "verify", expect=0)
