from __future__ import annotations

import json

import pytest

from gptcli.artifacts.aliases import ALIASES, read_aliases
from gptcli.artifacts.build import Build
from gptcli.artifacts.durable import write_bytes
from gptcli.artifacts.locations import best_step, model_input, resolve_model
from gptcli.artifacts.manifest import Inputs
from gptcli.artifacts.project import Project
from gptcli.errors import ArtifactError


def checkpoint(project: Project, run: str, step: int) -> None:
    place = project.place("runs", run) / "checkpoints" / f"step-{step:08d}"
    made = Build.open(place, kind="checkpoint", spec={"step": step}, inputs=Inputs(), say=print)
    write_bytes(made.directory / "config.json", b"{}")
    made.commit({"step": step}, {})


@pytest.fixture
def trained(project: Project) -> Project:
    for step in (100, 200, 300):
        checkpoint(project, "base", step)
    losses = {100: 3.0, 200: 2.0, 250: 1.0, 300: 2.5}
    lines = [json.dumps({"step": step, "val_loss": loss}) for step, loss in losses.items()]
    (project.place("runs", "base") / "metrics.jsonl").write_text("\n".join(lines))
    return project


@pytest.mark.parametrize(("ref", "step"), [("base", 300), ("base@best", 200), ("base@100", 100)])
def test_runs(trained: Project, ref: str, step: int) -> None:
    assert resolve_model(trained, ref).directory.name == f"step-{step:08d}"
    assert best_step(trained.place("runs", "base")) == 200


@pytest.mark.parametrize(
    ("ref", "match"),
    [
        ("bass", "there is no run bass \\(runs: base\\)"),
        ("base@150", "no checkpoint 150 \\(steps: 100, 200, 300\\)"),
        ("base@²", "no checkpoint ² \\(steps"),
        ("m:1.0.0", "there is no model m"),
        ("./nowhere", "is no model directory"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(trained: Project, ref: str, match: str) -> None:
    with pytest.raises(ArtifactError, match=match):
        resolve_model(trained, ref)


def test_the_hash_of_a_foreign_directory_follows_its_files(project: Project) -> None:
    folder = project.root / "theirs"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    first = model_input(project, "./theirs")
    (folder / "model.safetensors").write_bytes(b"x")
    assert model_input(project, "./theirs").content_sha256 != first.content_sha256


def test_a_damaged_line_of_metrics_hides_no_other(trained: Project) -> None:
    (trained.place("runs", "base") / "checkpoints" / "step-3²").mkdir()
    path = trained.place("runs", "base") / "metrics.jsonl"
    path.write_bytes(b'{"step": 100, "val_loss": \xff}\n[1]\n' + path.read_bytes()[:-5])
    assert best_step(trained.place("runs", "base")) == 200


def test_a_broken_alias_file_is_named(trained: Project) -> None:
    (trained.root / "models" / "m").mkdir(parents=True)
    (trained.root / "models" / "m" / ALIASES).write_text("[]")
    with pytest.raises(ArtifactError, match=r"aliases\.json cannot be read"):
        resolve_model(trained, "m:production")
    with pytest.raises(ArtifactError, match=r"aliases\.json cannot be read"):
        read_aliases(trained, "m")
