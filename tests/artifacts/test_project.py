from __future__ import annotations

import os
from pathlib import Path

import pytest

from gptcli.artifacts.project import Project
from gptcli.errors import SpecError


def test_a_path_is_recorded_alike_however_it_and_the_project_were_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, outside = tmp_path / "a" / "project", tmp_path / "models" / "theirs"
    (root / "runs").mkdir(parents=True)
    outside.mkdir(parents=True)
    (tmp_path / "link").symlink_to(root)
    for here, typed in ((tmp_path, "a/project"), (root, "."), (tmp_path, root), (tmp_path, "link")):
        monkeypatch.chdir(here)
        project = Project.open(Path(typed))
        for way in (outside, Path(os.path.relpath(outside)), project.path("../../models/theirs")):
            assert project.relative(way) == "../../models/theirs"
        assert project.path(project.relative(outside)).samefile(outside)
        assert project.relative(project.place("runs", "base")) == "runs/base"


@pytest.mark.parametrize(
    ("recipe", "message", "hint"),
    [
        ("[pretran.base]", "the table [pretran] is read by no stage", "did you mean [pretrain]?"),
        ("[zebra]", "the table [zebra] is read by no stage", "corpus, tokenize"),
        ("[pretrain]\nlr = -1\n[pretrain.wide]", "pretrain.lr = -1 is in no table", "[pretrain.wide]"),
        ("pretrain = 3", "pretrain = 3 is no table", "[pretrain.NAME]"),
        ('project = "x"', "project = 'x' is no table", "[project]"),
        ('[project]\nnmae = "x"', "unknown key project.nmae", "name"),
    ],
)
def test_what_would_be_ignored_is_refused(project: Project, recipe: str, message: str, hint: str) -> None:
    (project.root / "recipe.toml").write_text(recipe)
    opened = Project.open(project.root)
    with pytest.raises(SpecError) as caught:
        opened.require_sound_recipe()
    assert message in caught.value.message and hint in caught.value.hint
    assert opened.name == "project" and opened.table("pretrain", "lr") == {}


def test_a_sound_recipe_has_no_faults(project: Project) -> None:
    (project.root / "recipe.toml").write_text('[project]\nname = "a"\n[pretrain.base]\nlr = 1\n[eval]\n')
    Project.open(project.root).require_sound_recipe()


def test_a_name_leaves_room_for_the_names_made_of_it(project: Project) -> None:
    assert project.place("runs", "é" * 100).name
    with pytest.raises(SpecError, match="too long"):
        project.place("runs", "é" * 101)
