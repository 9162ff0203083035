"""average and merge killed anywhere and run again: the run they make is the one an undisturbed command makes."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gptcli.artifacts.manifest import read_manifest, verify_files
from gptcli.artifacts.project import Project
from gptcli.checkpoint.verify import verify
from gptcli.models.load import load_model, save_adapter
from gptcli.models.lora import LoraConfig, apply_lora

VERBS = {
    "average": ("average", "./one", "./other", "--weights", "1,3", "--name", "made"),
    "merge": ("merge", "./tuned", "--name", "made"),
}
KILLS = 2
MANY_KILLS = 20


@dataclass(frozen=True)
class Undisturbed:
    """What the verbs make of a project nobody changes: their files, and fsyncs and renames on the way."""

    root: Path
    files: dict[str, dict[str, str]]
    events: dict[str, tuple[tuple[str, str, float], ...]]

    def copy(self, target: Path) -> Path:
        shutil.copytree(self.root, target)
        return target


@pytest.fixture(scope="module")
def undisturbed(data_dir: Path, gptcli: Any, snapshot: Any, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    home = tmp_path_factory.mktemp("weights")
    root = home / "project"
    one = Path(shutil.copytree(data_dir / "stories260K-hf", root / "one"))
    other = Path(shutil.copytree(one, root / "other"))
    state = load_file(one / "model.safetensors")
    save_file({name: tensor * 1.25 for name, tensor in state.items()}, other / "model.safetensors")
    model, lora = load_model(one), LoraConfig(rank=2, alpha=4)
    torch.manual_seed(2)
    apply_lora(model, lora, torch.Generator())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    (root / "tuned").mkdir()
    save_adapter(model, lora, "one", root / "tuned")
    files, events = {}, {}
    for verb, words in VERBS.items():
        copy = home / verb
        shutil.copytree(root, copy)
        events[verb] = gptcli(copy, "checkpoint", *words, expect=0).events
        files[verb] = snapshot(copy, below="runs")
        assert "runs/made/checkpoints/step-00000000/model.safetensors" in files[verb]
    return Undisturbed(root, files, events)


def go_on(root: Path, verb: str, undisturbed: Undisturbed, gptcli: Any, snapshot: Any, names: Any) -> None:
    """To exist is to be whole; and the same command again makes what was never killed, and nothing beside it."""
    names(root)
    gptcli(root, "checkpoint", *VERBS[verb], expect=0)
    assert snapshot(root, below="runs") == undisturbed.files[verb]
    assert not [entry for entry in verify(Project.open(root), "all") if entry["problems"]]


def kill_after(
    number: int, verb: str, root: Path, undisturbed: Undisturbed, gptcli: Any, snapshot: Any, names: Any
) -> None:
    gptcli(root, "checkpoint", *VERBS[verb], expect=-9, GPTCLI_TEST_KILL_AT=str(number))
    go_on(root, verb, undisturbed, gptcli, snapshot, names)


@pytest.mark.parametrize("kill", range(KILLS))
@pytest.mark.parametrize("verb", VERBS)
def test_killed_after_an_event(
    verb: str,
    kill: int,
    undisturbed: Undisturbed,
    gptcli: Any,
    snapshot: Any,
    finished_names: Callable[[Path], list[Path]],
    tmp_path: Path,
) -> None:
    number = random.Random(f"{verb} {kill}").randint(1, len(undisturbed.events[verb]))
    kill_after(number, verb, undisturbed.copy(tmp_path / "project"), undisturbed, gptcli, snapshot, finished_names)


@pytest.mark.faults
@pytest.mark.parametrize("verb", VERBS)
def test_killed_after_every_event(
    verb: str, undisturbed: Undisturbed, gptcli: Any, snapshot: Any, finished_names: Any, tmp_path: Path
) -> None:
    for number in range(1, len(undisturbed.events[verb]) + 1):
        root = undisturbed.copy(tmp_path / str(number))
        kill_after(number, verb, root, undisturbed, gptcli, snapshot, finished_names)


@pytest.mark.faults
@pytest.mark.parametrize("verb", VERBS)
def test_killed_at_many_moments(
    verb: str, undisturbed: Undisturbed, gptcli: Any, snapshot: Any, finished_names: Any, tmp_path: Path
) -> None:
    draw = random.Random(verb)
    span = undisturbed.events[verb][-1][2]
    for moment in range(MANY_KILLS):
        root = undisturbed.copy(tmp_path / str(moment))
        ready = tmp_path / f"{moment}.ready"
        process = gptcli.start(root, "checkpoint", *VERBS[verb], GPTCLI_TEST_READY=str(ready))
        deadline = time.monotonic() + 120
        while not ready.is_file() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(draw.random() * span)
        process.kill()
        process.communicate(timeout=60)
        assert ready.is_file()
        go_on(root, verb, undisturbed, gptcli, snapshot, finished_names)


@pytest.mark.faults
def test_force_killed_after_every_event_keeps_what_stood_once(
    undisturbed: Undisturbed, gptcli: Any, snapshot: Any, finished_names: Any, tmp_path: Path
) -> None:
    """--force sets the run that stands aside when the new one is whole, and no half of the new one is kept."""
    words = ("checkpoint", *VERBS["average"])
    last = len(undisturbed.events["average"]) + 2  # two more: what stands steps aside
    for number in range(last, 0, -3):
        root = undisturbed.copy(tmp_path / str(number))
        gptcli(root, "checkpoint", *VERBS["merge"], expect=0)
        stood = snapshot(root, below="runs/made")
        gptcli(root, *words, "--force", expect=-9, GPTCLI_TEST_KILL_AT=str(number))
        finished_names(root)
        made, aside = root / "runs/made", root / "runs/made.1"
        for place in (made if made.exists() else aside, *([aside] if aside.exists() else [])):
            assert verify_files(place, read_manifest(place, "run")) == []  # the new one or the old, and whole
        assert made.exists() or (root / "runs/.made.partial/manifest.json").is_file()
        gptcli(root, *words, "--force", expect=0)
        assert sorted(path.name for path in (root / "runs").iterdir()) == ["made", "made.1"], number
        kept = snapshot(root, below="runs/made.1")
        assert {name.replace("made.1", "made"): hashed for name, hashed in kept.items()} == stood
        after = snapshot(root, below="runs/made")
        assert after == undisturbed.files["average"]
