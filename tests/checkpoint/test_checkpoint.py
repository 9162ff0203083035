from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gptcli.artifacts import build, durable
from gptcli.artifacts.locations import resolve_model
from gptcli.artifacts.manifest import read_manifest, verify_files
from gptcli.artifacts.project import Project
from gptcli.checkpoint.command import checkpoint
from gptcli.errors import ArtifactError, SpecError

LATEST = "runs/base/checkpoints/step-00000400"


class Killed(BaseException):
    """The process ends here."""


def call(root: Path, *words: str) -> None:
    checkpoint([*words, "-C", str(root)], standalone_mode=False)


def ask(root: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """The verb's JSON object."""
    capsys.readouterr()
    call(root, *words, "--json")
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def bytes_of(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def steps(root: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in (root / "runs/base/checkpoints").glob("step-*"))


def test_list_names_steps_losses_and_versions(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(root, "tag", "base@best", "1.0.0", "--alias", "production")
    found = ask(root, capsys, "list")
    run = found["runs"][0]
    assert (run["run"], run["best"], run["latest"], run["running"]) == ("base", 200, 400, None)
    assert [(entry["step"], entry["val_loss"]) for entry in run["checkpoints"]] == [
        (100, 3.0),
        (200, 2.0),
        (300, 2.5),
        (400, 2.6),
    ]
    assert run["checkpoints"][1]["versions"] == ["my-gpt:1.0.0"]
    assert found["models"][0]["aliases"] == {"latest": "1.0.0", "production": "1.0.0"}
    assert found["models"][0]["versions"][0]["val_loss"] == 2.0
    call(root, "list")
    shown = capsys.readouterr().out
    assert "base@200" in shown and "best, my-gpt:1.0.0" in shown and "latest, production" in shown


def test_list_goes_on_past_a_broken_manifest(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / LATEST / "manifest.json").write_text("{")
    entries = ask(root, capsys, "list")["runs"][0]["checkpoints"]
    assert "cannot be read" in entries[3]["problem"] and "problem" not in entries[2]


def test_list_of_an_empty_project(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(project.root, capsys, "list") == {"runs": [], "models": []}


def test_show_follows_the_lineage_to_the_source_files(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = ask(root, capsys, "show", "base@best")
    assert found["path"] == "runs/base/checkpoints/step-00000200"
    assert found["parameters"] == 380 and found["parameters_by_dtype"] == {"F16": 28, "F32": 352}
    assert found["figures"] == {
        "step": 200,
        "tokens": 2000,
        "train_loss": 1.9,
        "val_loss": 2.0,
        "val_bits_per_byte": 1.0,
    }
    assert found["config"]["model_type"] == "qwen3" and found["bytes"]["trainer"] == 2
    tokens = found["lineage"][0]
    assert (tokens["path"], tokens["state"]) == ("tokens/main", "unchanged")
    books = tokens["inputs"][0]["inputs"][0]
    assert books["state"] == "source" and [one["path"] for one in books["sources"]] == ["books/a.txt", "books/b.txt"]
    call(root, "show", "base@best")
    shown = capsys.readouterr().out
    assert "books: 2 files, 2.0 kB (books/a.txt, books/b.txt)" in shown and "width 4" in shown


def test_show_says_what_has_changed_since(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(root / "corpus" / "main")
    tokens = ask(root, capsys, "show", "base")["lineage"][0]
    assert tokens["inputs"][0]["state"] == "gone"


def test_show_of_a_foreign_directory(data_dir: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = ask(root, capsys, "show", str(data_dir / "stories260K-hf"))
    assert found["parameters"] == 260_032 and found["lineage"] == [] and found["kind"] == "directory"


def test_show_of_an_adapter(adapter_run: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = ask(root, capsys, "show", "chat")
    assert found["kind"] == "adapter" and found["adapter"]["r"] == 4
    assert found["lineage"][0]["role"] == "base" and found["lineage"][0]["state"] == "unchanged"


def test_tag_links_the_files_and_leaves_the_optimizer(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = ask(root, capsys, "tag", "base", "1.2.0", "--as", "mine")
    place = root / "models" / "mine" / "1.2.0"
    assert found["path"] == "models/mine/1.2.0" and found["step"] == 400 and found["val_loss"] == 2.6
    assert sorted(path.name for path in place.iterdir()) == [
        "config.json",
        "manifest.json",
        "model.safetensors",
        "tokenizer.model",
    ]
    assert (place / "model.safetensors").samefile(root / LATEST / "model.safetensors")
    manifest = read_manifest(place, "version")
    assert verify_files(place, manifest) == []
    assert [(entry.role, entry.path) for entry in manifest.inputs] == [
        ("checkpoint", LATEST),
        ("tokens", "tokens/main"),
    ]
    assert resolve_model(Project.open(root), "mine:latest").directory == place
    call(root, "tag", "base", "1.2.1", "--with-trainer")
    assert (root / "models" / "my-gpt" / "1.2.1" / "trainer" / "state.json").is_file()


def test_tag_copies_where_linking_fails(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    call(root, "tag", "base", "1.0.0")
    place = root / "models" / "my-gpt" / "1.0.0"
    assert not (place / "model.safetensors").samefile(root / LATEST / "model.safetensors")
    assert (place / "model.safetensors").read_bytes() == (root / LATEST / "model.safetensors").read_bytes()


def test_a_version_is_never_overwritten(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = ask(root, capsys, "tag", "base@200", "1.0.0")
    before = bytes_of(root / "models")
    with pytest.raises(ArtifactError, match=r"my-gpt:1.0.0 stands and was tagged from .*200, not from .*400"):
        call(root, "tag", "base@400", "1.0.0")
    with pytest.raises(ArtifactError, match="without its trainer/"):
        call(root, "tag", "base@200", "1.0.0", "--with-trainer")
    assert bytes_of(root / "models") == before
    again = ask(root, capsys, "tag", "base@200", "1.0.0")
    assert again["content_sha256"] == first["content_sha256"] and again["title"].endswith("stands already")


def test_tag_of_an_adapter_keeps_its_base_in_the_lineage(adapter_run: Path, root: Path) -> None:
    call(root, "tag", "chat@best", "0.1.0", "--as", "chat")
    manifest = read_manifest(root / "models" / "chat" / "0.1.0", "version")
    assert [entry.role for entry in manifest.inputs] == ["checkpoint", "base"]
    assert resolve_model(Project.open(root), "chat:0.1.0").kind == "adapter"


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (("base", "1.2"), SpecError, "no semantic version"),
        (("base", "01.2.3"), SpecError, "no semantic version"),
        (("base", "1.2.3/x"), SpecError, "no semantic version"),
        (("base", "1.2.3", "--as", "../x"), SpecError, "can't name a model"),
        (("base", "1.2.3", "--alias", "2.0.0"), SpecError, "reads like a version"),
        (("base", "1.2.3", "--alias", "latest"), SpecError, "follows the highest version"),
        (("gone", "1.2.3"), ArtifactError, "no run gone"),
        (("./tokens/main", "1.2.3"), ArtifactError, "no model directory"),
    ],
)
def test_tag_refuses(root: Path, words: tuple[str, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(root, "tag", *words)
    assert not (root / "models").exists()


def test_a_damaged_checkpoint_is_not_tagged(root: Path) -> None:
    (root / LATEST / "tokenizer.model").write_bytes(b"pieceS")
    with pytest.raises(ArtifactError, match=r"is damaged: tokenizer\.model"):
        call(root, "tag", "base", "1.0.0")


def test_aliases_point_at_versions(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step, version in ((100, "1.9.0"), (200, "1.10.0"), (300, "2.0.0-rc.1")):
        call(root, "tag", f"base@{step}", version)
    assert ask(root, capsys, "list")["models"][0]["aliases"] == {"latest": "1.10.0"}
    call(root, "alias", "my-gpt:1.9.0", "production")
    call(root, "alias", "my-gpt:production", "stable")
    assert resolve_model(Project.open(root), "my-gpt:stable").directory.name == "1.9.0"
    with pytest.raises(ArtifactError, match=r"no version 3\.0\.0"):
        call(root, "alias", "my-gpt:3.0.0", "production")
    with pytest.raises(SpecError, match="names no version"):
        call(root, "alias", "base", "production")


def test_a_crash_while_tagging_leaves_the_old_state_or_the_new(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before every rename in turn: what stands is whole, and the same command ends it."""
    call(root, "tag", "base@100", "1.0.0", "--alias", "production")
    untouched = bytes_of(root / "models")
    real = durable.replace
    finished = False
    for survived in range(12):
        left = survived

        def die(source: Path, target: Path) -> None:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            real(source, target)

        copy = tmp_path / f"copy-{survived}" / "my-gpt"
        shutil.copytree(root, copy)
        with monkeypatch.context() as patch:
            patch.setattr(durable, "replace", die)
            patch.setattr(build, "replace", die)
            try:
                call(copy, "tag", "base@200", "1.1.0", "--alias", "production")
                finished = True
            except Killed:
                finished = False
        for path in (copy / "models" / "my-gpt").glob("[0-9]*"):
            assert verify_files(path, read_manifest(path, "version")) == []
        aliases = json.loads((copy / "models" / "my-gpt" / "aliases.json").read_text(encoding="utf-8"))
        assert (copy / "models" / "my-gpt" / aliases["production"]).is_dir()
        call(copy, "tag", "base@200", "1.1.0", "--alias", "production")
        after = bytes_of(copy / "models")
        assert after["my-gpt/aliases.json"] != untouched["my-gpt/aliases.json"]
        assert {name for name in after if name.startswith("my-gpt/.")} == set()
        changes = ("aliases.json", "log.jsonl")
        assert all(after[name] == untouched[name] for name in untouched if not name.endswith(changes))
        if finished:
            break
    assert finished and survived >= 3


def test_verify_names_every_damaged_file(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(root, "tag", "base@200", "1.0.0")
    whole = ask(root, capsys, "verify")
    assert whole["damaged"] == 0 and len(whole["artifacts"]) == 2 + 4 + 1 + 1  # the last: a log
    path = root / "runs/base/checkpoints/step-00000200/model.safetensors"  # hard-linked: the version is hit as well
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    (root / LATEST / "config.json").unlink()
    with pytest.raises(ArtifactError) as caught:
        call(root, "verify")
    for name in ("step-00000200/model.safetensors", "step-00000400/config.json: missing", "1.0.0/model.safetensors"):
        assert name in caught.value.message
    call(root, "verify", "base@300")
    with pytest.raises(ArtifactError, match=r"step-00000400/config\.json: missing"):
        call(root, "verify", "base")


def test_verify_finds_a_manifest_that_was_edited(root: Path) -> None:
    path = root / LATEST / "manifest.json"
    path.write_text(path.read_text().replace('"lr": 0.1', '"lr": 0.2'))
    with pytest.raises(ArtifactError, match=r"manifest\.json: content_sha256"):
        call(root, "verify", "base")


def test_prune_keeps_what_is_needed(adapter_run: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(root, "tag", "base@100", "1.0.0")
    planned = ask(root, capsys, "prune", "base", "--keep", "1", "--dry-run")
    assert planned["dropped"] == [] and steps(root) == [100, 200, 300, 400]
    assert planned["kept"]["runs/base/checkpoints/step-00000100"] == ["models/my-gpt/1.0.0 was made from it"]
    assert "best" in planned["kept"]["runs/base/checkpoints/step-00000200"]
    shutil.rmtree(adapter_run)
    shutil.rmtree(root / "models")
    planned = ask(root, capsys, "prune", "base", "--keep", "1", "--every", "100", "--dry-run")
    assert planned["dropped"] == []
    planned = ask(root, capsys, "prune", "base", "--keep", "1", "--dry-run")
    assert [path[-3:] for path in planned["dropped"]] == ["100", "300"] and steps(root) == [100, 200, 300, 400]
    done = ask(root, capsys, "prune", "base", "--keep", "1")
    assert steps(root) == [200, 400] and done["dropped"] == planned["dropped"] and done["freed_bytes"] > 0
    assert not list((root / "runs/base/checkpoints").glob(".*"))


def test_prune_waits_for_a_run_that_is_trained(root: Path) -> None:
    with Project.open(root).lock("runs", "base"), pytest.raises(ArtifactError, match="runs/base is busy"):
        call(root, "prune", "base", "--keep", "1")
    assert steps(root) == [100, 200, 300, 400]


def test_prune_of_no_run(root: Path) -> None:
    with pytest.raises(ArtifactError, match="there is no run other"):
        call(root, "prune", "other", "--keep", "1")


def test_the_verbs_import_no_torch(root: Path) -> None:
    words = [["list"], ["show", "base"], ["tag", "base", "1.0.0"], ["prune", "base", "--keep", "1"]]
    script = (
        "import sys; from gptcli.checkpoint.command import checkpoint\n"
        f"for words in {words!r}: checkpoint([*words, '-C', {str(root)!r}], standalone_mode=False)\n"
        "assert not {'torch', 'pyarrow', 'transformers', 'pydantic'} & set(sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_every_verb_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    verbs = "list show verify diff average merge import prune tag alias rollback promote log push pull"
    for verb in verbs.split():
        checkpoint([verb, "--help"], standalone_mode=False)
        assert f"gptcli checkpoint {verb}" in capsys.readouterr().out
