from __future__ import annotations

import json
from pathlib import Path

import pytest

from gptcli.artifacts import durable
from gptcli.artifacts.build import Build
from gptcli.artifacts.manifest import Input, Inputs
from gptcli.artifacts.project import Project
from gptcli.artifacts.usage import checkpoints_in_use
from gptcli.errors import ArtifactError

STEP = "runs/base/checkpoints/step-{:08d}"


def make(project: Project, path: str, kind: str, *inputs: str) -> None:
    entries = tuple(Input("base", each, "0" * 64) for each in inputs)
    Build.open(project.root / path, kind=kind, spec={}, inputs=Inputs(entries), say=print).commit({}, {})


def test_checkpoints_that_adapters_versions_and_unfinished_runs_stand_on(project: Project) -> None:
    for step in range(1, 6):
        make(project, STEP.format(step), "checkpoint", "tokens/main")
    make(project, "runs/chat/checkpoints/step-00000001", "checkpoint", STEP.format(1))
    make(project, "models/m/1.0.0", "version", STEP.format(2))
    make(project, "evals/base", "evaluation", STEP.format(3))
    make(project, "exports/main", "export", STEP.format(3))
    (project.root / "runs" / "new").mkdir()
    started = project.root / "runs" / "new" / "spec.json"
    started.write_text(json.dumps({"inputs": [{"path": STEP.format(4)}]}))
    wanted = {(project.root / STEP.format(step)).resolve() for step in (1, 2, 4)}
    assert checkpoints_in_use(project) == wanted
    started.write_text("half")
    with pytest.raises(ArtifactError, match="what it needs is not known"):
        checkpoints_in_use(project)


def test_a_deletion_cut_short_leaves_nothing_under_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path, **_: object) -> None:
        raise KeyboardInterrupt

    (tmp_path / "one" / "inside").mkdir(parents=True)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(durable.shutil, "rmtree", lambda path, ignore_errors=False: ignore_errors or killed(path))
        durable.discard(tmp_path / "one")
    assert [path.name for path in tmp_path.iterdir()] == [".one.discarded"]
    (tmp_path / "one").mkdir()
    durable.discard(tmp_path / "one")  # over what the last one left
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".two.discarded").mkdir()
    durable.clear_discarded(tmp_path)
    assert list(tmp_path.iterdir()) == []
