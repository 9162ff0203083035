from __future__ import annotations

import pytest

from gptcli.artifacts.manifest import Inputs
from gptcli.artifacts.project import Project
from gptcli.job import Job
from gptcli.progress import Silent


@pytest.mark.parametrize(("replaces", "left"), [(True, ["base.1"]), (False, ["base"])])
def test_only_a_run_that_is_replaced_steps_aside_and_only_when_the_new_one_begins(
    project: Project, replaces: bool, left: list[str]
) -> None:
    place = project.place("runs", "base")
    job = Job(project, "base", place, Inputs(), Silent(), replaces=replaces)
    job.begin_place()  # nothing stands yet
    place.mkdir(parents=True)
    assert [path.name for path in place.parent.iterdir()] == ["base"]
    job.begin_place()
    assert [path.name for path in place.parent.iterdir()] == left
