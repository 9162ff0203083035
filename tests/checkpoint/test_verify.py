from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gptcli.artifacts.manifest import (
    Inputs,
    Manifest,
    content_sha256,
    list_files,
    make_manifest,
    own_sum,
    read_manifest,
    verify_files,
    write_manifest,
)
from gptcli.artifacts.project import Project
from gptcli.checkpoint import soundness
from gptcli.checkpoint.command import checkpoint
from gptcli.checkpoint.verify import bytes_to_check, verify
from gptcli.errors import ArtifactError
from gptcli.inference.reader import ModuleReader

LATEST = "runs/base/checkpoints/step-00000400"


def call(root: Path, *words: str) -> None:
    checkpoint([*words, "-C", str(root)], standalone_mode=False)


def problems(root: Path, ref: str = "base", **how: Any) -> list[str]:
    (entry,) = verify(Project.open(root), ref, **how)
    found: list[str] = entry["problems"]
    return found


def flipped(path: Path, at: int, bit: int) -> bytes:
    """Flip one bit of a file in place; returns the bytes it had."""
    before = path.read_bytes()
    data = bytearray(before)
    data[at] ^= 1 << bit
    path.write_bytes(data)
    return before


def test_every_byte_of_a_manifest_is_watched(root: Path) -> None:
    """Each byte with one of its bits, drawn by its place, flipped."""
    path, draw = root / LATEST / "manifest.json", random.Random(5)
    for at in range(path.stat().st_size):
        before = flipped(path, at, draw.randrange(8))
        found = problems(root, finite=False)
        path.write_bytes(before)
        assert any(problem.startswith("manifest.json: ") for problem in found), (at, before[at])
    assert problems(root) == []


@pytest.mark.faults
def test_every_bit_of_a_manifest_is_watched(root: Path) -> None:
    path = root / LATEST / "manifest.json"
    for at in range(path.stat().st_size):
        for bit in range(8):
            before = flipped(path, at, bit)
            found = problems(root, finite=False)
            path.write_bytes(before)
            assert any(problem.startswith("manifest.json: ") for problem in found), (at, bit, before[at])


def test_every_file_s_bits_are_watched(root: Path) -> None:
    draw = random.Random(6)
    names = [path for path in (root / LATEST).rglob("*") if path.is_file() and path.name != "manifest.json"]
    assert len(names) == 4
    for path in names:
        name = path.relative_to(root / LATEST).as_posix()
        for _ in range(12):
            before = flipped(path, draw.randrange(path.stat().st_size), draw.randrange(8))
            assert any(problem.startswith(f"{name}: ") for problem in problems(root)), name
            path.write_bytes(before)


def test_a_spelling_that_means_the_same_is_another_file(root: Path) -> None:
    """One bit apart, and the same number to whoever reads JSON: the values alone would not tell."""
    directory = root / LATEST
    manifest = read_manifest(directory)
    stats = {**manifest.stats, "tiny": 5e-05, "long": 0.30000000000000004}
    write_manifest(directory, Manifest(**{**vars(manifest), "stats": stats}))
    assert problems(root) == []
    text = (directory / "manifest.json").read_text()
    for was, now in (("5e-05", "5E-05"), ("0.30000000000000004", "0.30000000000000005")):
        assert json.loads(text) == json.loads(text.replace(was, now)) and was in text
        (directory / "manifest.json").write_text(text.replace(was, now))
        assert problems(root) == ["manifest.json: its bytes do not match its manifest_sha256"]


def test_a_manifest_from_before_it_had_a_checksum_is_read(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = root / LATEST / "manifest.json"
    raw = json.loads(path.read_text())
    assert own_sum(path) is True
    del raw["manifest_sha256"]
    path.write_text(json.dumps(raw, sort_keys=True, indent=1) + "\n")
    assert own_sum(path) is None and problems(root) == []
    call(root, "verify", "base")
    assert "an older gptcli wrote it" in capsys.readouterr().out


def test_a_number_out_of_range_is_a_damaged_manifest(root: Path) -> None:
    path = root / LATEST / "manifest.json"
    path.write_text(path.read_text().replace('"lr": 0.1', '"lr": 1e999'))
    assert problems(root) == ["manifest.json: content_sha256 does not match its own fields"]


def test_a_file_that_no_manifest_lists_is_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / LATEST / "trainer/notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"step-00000400/trainer/notes\.txt: not in the manifest"):
        call(root, "verify", "base")
    (root / LATEST / "trainer/notes.txt").unlink()
    run = root / "runs/base"
    content = content_sha256("run", 1, {}, (), Inputs())
    write_manifest(run, Manifest("run", 1, "0", content, {}, (), (), {}, {}))
    capsys.readouterr()
    (run / "timings.jsonl").write_text('{"time": 1.0}\n')
    call(root, "prune", "base", "--keep", "1")
    capsys.readouterr()
    call(root, "verify")  # a run's folder is a container: what training measured of itself is only noted
    shown = capsys.readouterr().out
    assert "metrics.jsonl: not in the manifest" in shown
    assert "timings.jsonl" not in shown and "log.jsonl" not in shown and "its log is whole" in shown


def rewritten(directory: Path, change: Any, adapter: bool = False) -> None:
    """Change a checkpoint's tensors and list its files anew, as if it had been made so."""
    path = directory / ("adapter_model.safetensors" if adapter else "model.safetensors")
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})
    relisted(directory)


def relisted(directory: Path) -> None:
    old = read_manifest(directory)
    files = list_files(directory, {})
    write_manifest(directory, make_manifest(old.kind, old.spec, Inputs(old.inputs), files, old.stats, old.records))
    assert verify_files(directory, read_manifest(directory)) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tensors: tensors.pop("model.norm.weight"), "model.norm.weight is missing"),
        (lambda tensors: tensors.update(more=torch.zeros(1)), "more is not expected"),
        (
            lambda tensors: tensors.update({"lm_head.weight": torch.zeros(4, 8)}),
            "lm_head.weight has shape [4, 8], not [8, 4]",
        ),
        (lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"), "up_proj.weight is missing"),
    ],
    ids=["missing", "unexpected", "misshapen", "in a layer"],
)
def test_tensors_are_held_against_the_config(root: Path, change: Any, told: str) -> None:
    rewritten(root / LATEST, change)
    (found,) = problems(root)
    assert "the weights do not fit config.json" in found and told in found


def test_an_adapter_is_held_against_its_settings_and_its_base(adapter_run: Path, root: Path) -> None:
    assert problems(root, "chat") == []
    directory = adapter_run / "checkpoints/step-00000020"
    rewritten(directory, lambda tensors: tensors.popitem(), adapter=True)
    (found,) = problems(root, "chat")
    assert "does not fit its base model" in found and "is missing" in found
    shutil.rmtree(root / "runs/base/checkpoints/step-00000300")
    rewritten(directory, lambda tensors: None, adapter=True)
    (entry,) = verify(Project.open(root), "chat", deep=True)  # whole as far as it goes
    assert entry["problems"] == [] and entry["notes"] == [
        "its tensors can't be held against its base: runs/base/checkpoints/step-00000300 isn't here"
    ]


def test_a_manifest_that_is_gone_is_damage(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(root, "tag", "base@100", "1.0.0")
    (root / LATEST / "manifest.json").unlink()
    (root / "models/my-gpt/1.0.0/manifest.json").unlink()
    (root / "models/my-gpt/notes").mkdir()  # somebody's own
    assert problems(root) == ["manifest.json: missing"]
    with pytest.raises(ArtifactError) as caught:
        call(root, "verify")
    assert str(caught.value).startswith(f"{LATEST}/manifest.json: missing; models/my-gpt/1.0.0/manifest.json: missing")
    capsys.readouterr()


def test_the_bar_knows_its_end(root: Path) -> None:
    project, seen = Project.open(root), 0

    def advance(count: int) -> None:
        nonlocal seen
        seen += count

    for ref in ("all", "base@best"):
        seen = 0
        verify(project, ref, advance=advance)
        assert seen == bytes_to_check(project, ref) > 0


def test_weights_that_are_not_finite_are_named(root: Path) -> None:
    rewritten(root / LATEST, lambda tensors: tensors["model.norm.weight"].__setitem__(0, torch.inf))
    assert problems(root) == ["model.safetensors: model.norm.weight holds values that are not finite"]
    assert problems(root, finite=False) == []
    (root / LATEST / "tokenizer.model").unlink()  # the fixture's is none
    relisted(root / LATEST)
    assert problems(root, finite=False, deep=True) == ["its logits are not finite"]


def test_deep_loads_generates_and_compares_both_roads(
    root: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(root, "import", str(data_dir / "stories260K-hf"), "--name", "stories")
    assert problems(root, "stories", deep=True) == []

    class Forgetful(ModuleReader):
        """Loses a token that it has read."""

        def read(self, slots: Any, rows: Any) -> Any:
            if len(rows[0]) == 1 and self.lengths[0] > 12:
                self.copy(0, 0, self.lengths[0] - 1)
            return super().read(slots, rows)

    monkeypatch.setattr(soundness, "open_reader", Forgetful)
    (found,) = problems(root, "stories", deep=True)
    assert found.startswith("with a cache its logits are off by")


def test_deep_of_a_foreign_directory(root: Path, data_dir: Path) -> None:
    assert problems(root, str(data_dir / "ckpt-hf-tiny-gpt2"), deep=True) == []


def test_a_config_that_is_not_computed_here_is_no_damage_elsewhere(root: Path, data_dir: Path) -> None:
    target = Path(shutil.copytree(data_dir / "stories260K-hf", root / "scaled"))
    config = json.loads((target / "config.json").read_text())
    scaled = {"rope_type": "llama3", "factor": 8.0, "rope_theta": 10000.0}
    (target / "config.json").write_text(json.dumps({**config, "rope_scaling": scaled}))
    (entry,) = verify(Project.open(root), "./scaled")
    assert entry["problems"] == [] and "rope scaling" in entry["notes"][0]
