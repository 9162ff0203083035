"""Promotions: evaluations by the real command, on a model of 260,000 parameters."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gptcli.artifacts.manifest import Inputs, make_manifest, read_manifest, write_manifest
from gptcli.checkpoint import evaluating, promote, promotion_gates
from gptcli.checkpoint.command import checkpoint
from gptcli.checkpoint.evaluating import toml_value
from gptcli.errors import ArtifactError, GateError, ResourceError, SpecError, StoppedError
from gptcli.spec import parse_setting

TALE = "Once upon a time there was a little cat. It was happy.\n\nThe sun was warm.\n"


def call(root: Path, *words: str) -> None:
    checkpoint([*words, "-C", str(root)], standalone_mode=False)


def gates(root: Path, *conditions: str, head: str = "") -> None:
    text = (
        f"{head}\n[eval]\ntext = ['tale.txt']\nseparator = 'blank_lines'\n[gates]\nfail_if = {json.dumps(conditions)}\n"
    )
    (root / "gates.toml").write_text(text)


def log(root: Path, model: str = "my-gpt") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "models" / model / "log.jsonl").read_text().splitlines()]


def another_step(run: Path) -> None:
    """A second checkpoint, of the same weights and of another content."""
    place = run / "checkpoints" / "step-00000001"
    shutil.copytree(place.with_name("step-00000000"), place)
    made = read_manifest(place)
    write_manifest(
        place, make_manifest(made.kind, {**made.spec, "seed": 1}, Inputs(made.inputs), made.files, {"step": 1}, {})
    )


@pytest.fixture(scope="module")
def imported(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a trained model; nobody changes it."""
    root = tmp_path_factory.mktemp("promote") / "my-gpt"
    root.mkdir()
    call(root, "import", str(data_dir / "stories260K-hf"), "--name", "base")
    (root / "tale.txt").write_text(TALE)
    return root


@pytest.fixture
def trained(imported: Path, tmp_path: Path) -> Path:
    root = tmp_path / "my-gpt"
    shutil.copytree(imported, root)
    return root


@pytest.fixture
def played(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, float]]:
    """Figures by model that evaluations give, in place of the command; those asked for are under `asked`."""
    from gptcli.artifacts.locations import model_input
    from gptcli.artifacts.project import Project
    from gptcli.scoring.evaluations import Evaluation

    figures: dict[str, Any] = {"asked": []}

    def evaluate(project: Project, ref: str, keys: dict[str, Any], device: str, say: Any) -> Evaluation:
        figures["asked"].append(ref)
        return Evaluation(f"promote-{ref}", {"acc": figures[ref]}, inputs=(model_input(project, ref),))

    monkeypatch.setattr(promote, "evaluate", evaluate)
    monkeypatch.setattr(promote, "_cited", lambda project, measured: {"path": measured.name, "content_sha256": "0"})
    yield figures


def test_what_passes_is_tagged_and_the_alias_moves(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gates(trained, "bits_per_byte > 5", "bits_per_byte > baseline + 0.1")
    capsys.readouterr()
    call(trained, "promote", "base", "--gate", "gates.toml", "-m", "the first", "--json")
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert (found["version"], found["aliases"]) == ("0.1.0", {"latest": "0.1.0", "production": "0.1.0"})
    assert "bits_per_byte > baseline + 0.1: left out, for my-gpt:production points at nothing yet" in shown.err
    (entry,) = log(trained)
    assert (entry["verb"], entry["to"], entry["message"]) == ("promote", "0.1.0", "the first")
    (cited,) = entry["evaluations"]
    manifest = json.loads((trained / cited["path"] / "manifest.json").read_text())
    assert manifest["content_sha256"] == cited["content_sha256"] and manifest["spec"]["model"] == "base@0"
    call(trained, "promote", "base", "--gate", "gates.toml")
    assert (
        "my-gpt:production is my-gpt:0.1.0 already: nothing to do" in capsys.readouterr().out and len(log(trained)) == 1
    )
    gates(trained, "bits_per_byte > 0.001", "bits_per_byte > baseline + 0.1", "no_such > 1")
    with pytest.raises(GateError, match=r"fails if bits_per_byte > 0\.001; no_such > 1 cannot be judged") as caught:
        call(trained, "promote", "base", "1.0.0", "--gate", "gates.toml")
    assert caught.value.hint.startswith("nothing was promoted") and len(log(trained)) == 1
    assert not (trained / "models/my-gpt/1.0.0").exists()


def test_compared_with_what_the_alias_points_at(trained: Path, played: dict[str, Any]) -> None:
    gates(trained, "acc < baseline - 0.01", head='model = "mine"\nalias = "live"\nbump = "patch"')
    played |= {"base@0": 0.8, "mine:0.0.1": 0.8}
    call(trained, "promote", "base", "--gate", "gates.toml")
    call(trained, "promote", "base", "--gate", "gates.toml", "--bump", "major")
    assert played["asked"] == ["base@0", "base@0"]  # what mine:0.0.1 was made of is measured once
    assert [(entry["alias"], entry["from"], entry["to"]) for entry in log(trained, "mine")] == [
        ("live", None, "0.0.1"),
        ("live", "0.0.1", "1.0.0"),
    ]
    call(trained, "rollback", "mine:live")
    another_step(trained / "runs" / "base")
    played["base@1"] = 0.7
    with pytest.raises(GateError, match=r"acc is 0\.7, fails if acc < baseline - 0\.01"):
        call(trained, "promote", "base", "2.0.0", "--gate", "gates.toml")
    assert played["asked"][-2:] == ["base@1", "mine:0.0.1"]
    played["base@0"] = 0.9
    call(trained, "promote", "base@0", "--gate", "gates.toml", "--alias", "next")
    assert log(trained, "mine")[-1]["to"] == "1.0.0"  # the highest that stands of this checkpoint


def test_what_is_promoted_already_is_judged_all_the_same(
    trained: Path, played: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    gates(trained, "acc < 0.5", "acc < baseline - 0.01")
    played["base@0"] = 0.8
    call(trained, "promote", "base", "--gate", "gates.toml")
    call(trained, "alias", "my-gpt:0.1.0", "staging")
    before = log(trained)
    capsys.readouterr()
    call(trained, "promote", "base", "--gate", "gates.toml", "--json")
    found = json.loads(capsys.readouterr().out)
    assert [each["verdict"] for each in found["outcomes"]] == ["passed", "passed"] and len(found["evaluations"]) == 1
    assert found["aliases"] == {"latest": "0.1.0", "production": "0.1.0", "staging": "0.1.0"}
    played["base@0"] = 0.4
    with pytest.raises(GateError, match=r"acc is 0\.4, fails if acc < 0\.5"):
        call(trained, "promote", "base", "--gate", "gates.toml")
    assert log(trained) == before


def test_an_alias_that_was_moved_meanwhile(
    trained: Path, played: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = promote.judged

    def slowly(*arguments: Any) -> Any:
        """Judge, while somebody else tags."""
        call(trained, "tag", "base", "1.0.0", "--alias", "production")
        return judged(*arguments)

    gates(trained, "acc < 0.1")
    played["base@0"] = 0.5
    monkeypatch.setattr(promote, "judged", slowly)
    with pytest.raises(ArtifactError, match=r"was moved from nothing to 1\.0\.0 meanwhile"):
        call(trained, "promote", "base", "2.0.0", "--gate", "gates.toml")
    assert [entry["verb"] for entry in log(trained)] == ["tag"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[gates]\nfail_if = []", "fail_if"),
        ("[gates]\nfail_fi = ['a > 1']", "fail_fi"),
        ("[gates]\nfail_if = 'acc >> 1'", r"gates\.toml: gates\.fail_if 'acc >> 1': expected"),
        ("[eval]\nlimit = 1", "gates"),
        ("bump = 'huge'\n[gates]\nfail_if = 'acc > 1'", "bump"),
        ("[eval]\nmodel = 'base'\n[gates]\nfail_if = 'acc > 1'", "eval.model is what promote is called with"),
        ("gates", "no valid TOML|not valid TOML"),
    ],
)
def test_a_gates_file_that_is_none(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "gates.toml").write_text(content)
    with pytest.raises(SpecError, match=message):
        promotion_gates.read_gates(tmp_path / "gates.toml")


def test_no_gates_file(trained: Path) -> None:
    with pytest.raises(SpecError, match=r"none\.toml cannot be read"):
        call(trained, "promote", "base", "--gate", "none.toml")


def test_an_evaluation_that_fails_says_so_once(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (trained / "gates.toml").write_text("[eval]\nsplti = 'val'\n[gates]\nfail_if = 'loss > 1'\n")
    with pytest.raises(SpecError, match=r"unknown key splti \(\[eval\] of the gates file\)"):
        call(trained, "promote", "base", "--gate", "gates.toml")
    assert "error:" not in capfd.readouterr().err and not (trained / "models").exists()


@pytest.mark.parametrize(("code", "kind"), [(3, ArtifactError), (4, ResourceError), (75, StoppedError)])
def test_an_evaluations_exit_code_is_kept(code: int, kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    script = f"echo 'warning: slow' >&2; echo 'error: it broke' >&2; echo '  hint: mend it' >&2; exit {code}"
    real = subprocess.Popen
    monkeypatch.setattr(evaluating.subprocess, "Popen", lambda command, **how: real(["/bin/sh", "-c", script], **how))
    said: list[str] = []
    with pytest.raises(kind, match="it broke") as caught:
        evaluating._run(["eval", "base"], said.append)
    assert said == ["warning: slow"] and caught.value.hint == "mend it"  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", ['a "b" \\ c\n\x7f é 😀', 3, -2.5, True, ["x", ["y"]], {"a b": {"c": [1, False]}}])
def test_values_reach_the_evaluation_as_they_are(value: Any) -> None:
    assert parse_setting(f"key={toml_value(value)}") == ("key", value)
