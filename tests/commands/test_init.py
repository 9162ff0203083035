from __future__ import annotations

import importlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import typer

from gptcli.artifacts.project import Project
from gptcli.commands import recipes
from gptcli.commands.init import init
from gptcli.errors import GptcliError, SpecError
from gptcli.options import Shared
from gptcli.spec import resolve
from gptcli.stage import execute, spec_layers

ROOT = Path(__file__).parents[2]
RECIPES = ("fineweb-edu", "pystdlib")
app = typer.Typer()
app.command()(init)


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two templates, and what a folder may hold besides."""
    folder = tmp_path / "recipes"
    for name in ("pystdlib", "books"):
        (folder / name / "sub").mkdir(parents=True)
        (folder / name / "recipe.toml").write_text(f'[corpus.main]\nsource = ["{name}"]\n')
        (folder / name / "sub" / "Makefile").write_text("all:\n")
        (folder / name / "__pycache__").mkdir()
        (folder / name / "__pycache__" / "x.pyc").write_bytes(b"")
    (folder / "empty").mkdir()
    monkeypatch.setattr(recipes, "recipes_folder", lambda: folder)
    return folder


def test_a_template_is_copied(made_up: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app([str(tmp_path / "a" / "b"), "--template", "books", "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["files"] == ["recipe.toml", "sub/Makefile"]
    assert Project.open(tmp_path / "a" / "b").table("corpus", "main") == {"source": ["books"]}
    found = sorted(path.name for path in (tmp_path / "a" / "b").rglob("*"))
    assert found == ["Makefile", "recipe.toml", "sub"]


def test_nothing_is_overwritten(made_up: Path, tmp_path: Path) -> None:
    place = tmp_path / "mine"
    (place / "sub").mkdir(parents=True)
    (place / "sub" / "Makefile").write_text("mine:\n")
    with pytest.raises(SpecError, match="another content: sub/Makefile"):
        app([str(place)], standalone_mode=False)
    assert [path.name for path in place.iterdir()] == ["sub"]
    (place / "sub" / "Makefile").write_text("all:\n")  # the same bytes: an init that was cut short goes on
    app([str(place)], standalone_mode=False)
    assert (place / "recipe.toml").is_file()


def test_an_unknown_template_is_refused_with_those_there_are(made_up: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        app([str(tmp_path / "a"), "--template", "boks"], standalone_mode=False)
    assert "did you mean books" in caught.value.message and caught.value.hint == "templates: books, pystdlib"
    assert not (tmp_path / "a").exists()


def test_a_file_is_no_project_folder(made_up: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpecError, match="is no folder"):
        app([str(tmp_path / "file")], standalone_mode=False)


def test_the_checkout_has_the_default_template(tmp_path: Path) -> None:
    assert recipes.template_names() == list(RECIPES)
    app([str(tmp_path / "new")], standalone_mode=False)
    assert Project.open(tmp_path / "new").recipe["corpus"]


@pytest.mark.parametrize("template", RECIPES)
def test_every_table_of_a_recipe_is_one_its_stage_takes(template: str, tmp_path: Path) -> None:
    app([str(tmp_path / "new"), "--template", template], standalone_mode=False)
    project = Project.open(tmp_path / "new")
    project.require_sound_recipe()
    for stage, tables in project.recipe.items():
        module = importlib.import_module(f"gptcli.{stage.replace('-', '_')}.spec")
        for name in tables:
            resolve(module.SPEC, spec_layers(module, project, name, Shared(), {}, {}))


def test_a_recipe_whose_source_is_far_away_can_be_looked_at_offline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app([str(tmp_path / "new"), "--template", "fineweb-edu"], standalone_mode=False)
    capsys.readouterr()
    execute("corpus", Shared(project=tmp_path / "new", dry_run=True, as_json=True), {})
    told = json.loads(capsys.readouterr().out)
    assert told["plan"].startswith("cannot start yet: hf://datasets/HuggingFaceFW/fineweb-edu has not been downloaded")
    assert list(told["forecast"].values()) == ["not downloaded yet"]
    assert [path.name for path in (tmp_path / "new").iterdir() if path.is_dir()] == []


def test_an_installation_without_recipes_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes.gptcli, "__file__", str(tmp_path / "gptcli" / "__init__.py"))
    with pytest.raises(GptcliError, match="no recipes"):
        recipes.template_names()


def test_recipes_travel_in_the_wheel(tmp_path: Path) -> None:
    """Built as pip builds it, unpacked elsewhere, and asked for a project."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(tmp_path.glob("*.whl"))
    if not wheels:
        pytest.skip(f"no wheel can be built here: {built.stderr.strip().splitlines()[-1:]}")
    zipfile.ZipFile(wheels[0]).extractall(tmp_path / "site")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import gptcli; assert 'site' in gptcli.__file__, gptcli.__file__\n"
        "import typer; from gptcli.commands.init import init\n"
        f"app = typer.Typer(); app.command()(init); app([{str(tmp_path / 'new')!r}])"
    )
    subprocess.run([sys.executable, "-I", "-c", script], check=True, capture_output=True, cwd=tmp_path)
    for path in (ROOT / "recipes" / "pystdlib").glob("*.*"):
        assert (tmp_path / "new" / path.name).read_bytes() == path.read_bytes()
    packed = tmp_path / "site" / "gptcli" / "recipes"
    assert {path.parent.name for path in packed.glob("*/recipe.toml")} == set(RECIPES)
