from __future__ import annotations

import json
from pathlib import Path

import pytest

from gptcli.artifacts.build import Build
from gptcli.artifacts.locations import step_directories
from gptcli.artifacts.manifest import Inputs
from gptcli.artifacts.project import Project
from gptcli.job import Job
from gptcli.progress import Silent
from gptcli.training.checkpoints import Checkpoints
from gptcli.training.metrics import Metrics

LOSSES = {5: 2.0, 10: 3.0, 12: 1.0, 15: 2.5, 20: 2.4}


@pytest.fixture
def checkpoints(project: Project) -> Checkpoints:
    job = Job(project, "base", project.place("runs", "base"), Inputs(), Silent())
    return Checkpoints(job, {"steps": 20}, 1)


def reach(checkpoints: Checkpoints, step: int) -> list[int]:
    """A checkpoint and a validation at this step, then what is kept."""
    place = checkpoints.directory / f"step-{step:08d}"
    build = Build.open(place, kind="checkpoint", spec={}, inputs=Inputs(), say=print)
    build.commit({"step": step}, {})
    Metrics(checkpoints.job.place).add([{"step": step, "val_loss": LOSSES[step]}])
    checkpoints.prune(lambda step: step % 5 == 0)
    return list(step_directories(checkpoints.job.place))


def test_the_latest_and_the_best_are_kept(checkpoints: Checkpoints) -> None:
    checkpoints.begin()
    assert [reach(checkpoints, step) for step in (5, 10, 15, 20)] == [[5], [5, 10], [5, 15], [5, 20]]


def test_what_a_signal_left_changes_nothing_in_the_end(checkpoints: Checkpoints) -> None:
    """Even where it is the best of all."""
    checkpoints.begin()
    assert [reach(checkpoints, step) for step in (5, 10, 12, 15)] == [[5], [5, 10], [5, 10, 12], [5, 15]]


def test_a_line_cut_short_is_forgotten(tmp_path: Path) -> None:
    rows = [{"step": step, "train_loss": 1.0} for step in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows)[:-9])
    metrics = Metrics(tmp_path)
    assert metrics.rows == rows[:2]
    metrics.cut(1)
    metrics.add(rows[1:])
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == rows


def test_a_checkpoint_that_an_adapter_stands_on_is_kept(checkpoints: Checkpoints) -> None:
    checkpoints.begin()
    reach(checkpoints, 5)
    reach(checkpoints, 10)
    adapter = checkpoints.job.project.place("runs", "chat")
    adapter.mkdir()
    used = {"role": "base", "path": "runs/base/checkpoints/step-00000010", "content_sha256": "00"}
    (adapter / "spec.json").write_text(json.dumps({"kind": "run", "spec": {}, "inputs": [used]}))
    assert reach(checkpoints, 15) == [5, 10, 15]
