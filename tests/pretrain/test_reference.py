from __future__ import annotations

import json
from pathlib import Path

import pytest

from gptcli.artifacts.project import Project
from gptcli.pretrain import reference
from gptcli.pretrain.reference import FOLDER, Reference, reference_for
from gptcli.pretrain.spec import PRESETS, PretrainSpec

CURVE = Reference([10, 20, 40], [5.0, 4.0, 3.0], [0.5, 0.3, 0.1])


@pytest.mark.parametrize(
    ("step", "loss", "told"),
    [
        (10, 5.4, "within the expected 5.00 ± 0.50"),
        (15, 4.6, "within the expected 4.50 ± 0.40"),
        (15, 5.0, "above the expected 4.50 ± 0.40"),
        (30, 3.2, "below the expected 3.50 ± 0.20"),
        (40, 3.05, "within the expected 3.00 ± 0.10"),
        (9, 5.0, ""),
        (41, 3.0, ""),
    ],
)
def test_where_a_loss_lies_is_told_in_words(step: int, loss: float, told: str) -> None:
    assert CURVE.tells(step, loss) == told


def spec(**settings: object) -> PretrainSpec:
    return PretrainSpec(preset="3m", **{**PRESETS["3m"], **settings})  # type: ignore[arg-type]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose text is the reference's."""
    (tmp_path / "recipe.toml").touch()
    text = json.loads((FOLDER / "3m.json").read_text())["text"]
    monkeypatch.setattr(reference, "text_of", lambda spec, project: text)
    return Project.open(tmp_path)


def test_a_run_of_the_same_recipe_on_the_same_text_has_a_reference(project: Project) -> None:
    found = reference_for(spec(), project)
    assert found is not None and found.losses == sorted(found.losses, reverse=True)
    assert reference_for(spec(seed=7, val_every=10, steps=300), project) == found


@pytest.mark.parametrize(
    "settings", [{"lr": 0.01}, {"steps": 200}, {"num_layers": 5}, {"preset": ""}, {"preset": "350m"}], ids=str
)
def test_a_run_of_another_recipe_has_none(project: Project, settings: dict[str, object]) -> None:
    assert reference_for(spec().model_copy(update=settings), project) is None


def test_a_run_on_another_text_or_none_has_none(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").touch()
    assert reference_for(spec(), Project.open(tmp_path)) is None
