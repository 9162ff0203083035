"""Tasks through the command: figures, what is kept of them, gates on them, comparisons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import typer
from safetensors.torch import load_file, save_file

from gptcli.artifacts.manifest import read_manifest, verify_files
from gptcli.artifacts.ngrams import NGRAM_SCHEMA, NGRAMS
from gptcli.errors import ArtifactError, GateError, SpecError, StoppedError
from gptcli.eval.command import evaluate
from gptcli.eval.kept import KeptItems
from gptcli.records.ngrams import ngram_hashes, sorted_unique
from gptcli.scoring.engine import Engine
from gptcli.scoring.evaluations import read_evaluation
from gptcli.scoring.tasks.running import GROUP

app = typer.Typer()
app.command()(evaluate)

PAIRS = """
kind = "minimal_pairs"
data = "pairs.jsonl"
good = "{good}"
bad = "{bad}"
"""
SORTS = """
kind = "classification"
name = "sort"
data = "sorts.csv"
prompt = "{text} is"
label = "sort"
"""


@pytest.fixture
def asked(made: Path) -> Path:
    """A project with two tasks: more pairs than a group, and a classification."""
    folder = made / "tasks"
    folder.mkdir()
    (folder / "pairs.toml").write_text(PAIRS)
    rows = [{"good": f"the cat sat on the mat {n}.", "bad": f"mat the on sat cat the {n}."} for n in range(GROUP + 40)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"good": "half"}]))
    (folder / "sort.toml").write_text(SORTS)
    (folder / "sorts.csv").write_text("text,sort\na cat,small\na tree,big\na dog,small\n")
    return made


def run(root: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    app([*words, "-C", str(root), "--json", "-q", "--device", "cpu", "--set", "dtype=float32"], standalone_mode=False)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_tasks_stand_in_every_file(asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = run(asked, capsys, "base", "--task", "tasks")
    assert report["pairs.items"] == GROUP + 40 and report["sort.items"] == 3
    low, high = report["intervals"]["pairs.acc"]
    assert low <= report["pairs.acc"] <= high
    place = asked / "evals" / "base"
    assert verify_files(place, read_manifest(place, "evaluation")) == []
    stored = json.loads((place / "report.json").read_text(encoding="utf-8"))
    assert sum(stored["tasks"]["pairs"]["left_out"].values()) == 1
    assert stored["tasks"]["sort"]["tables"]["confusion"]["columns"] == ["answer", "big", "small", "(invalid)"]
    found = read_evaluation(place)
    assert found.figures["pairs.acc"] == report["pairs.acc"] and len(found.tasks["pairs"]) == GROUP + 40
    page = (place / "report.html").read_text(encoding="utf-8")
    assert "confusion matrix" in page and "http" not in page.replace("http-equiv", "")
    assert {entry.role for entry in read_manifest(place).inputs} == {"model", "task", "items"}


def test_items_are_asked_once(asked: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(asked, capsys, "base", "--task", "tasks")

    def never(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("the model was asked again")

    monkeypatch.setattr(Engine, "answer", never)
    again = run(asked, capsys, "base", "--task", "tasks/pairs.toml", "--name", "again")
    assert again["pairs.acc"] == first["pairs.acc"]
    (asked / "tasks" / "sorts.csv").write_text("text,sort\na cat,small\na tree,big\na mat,small\n")
    with pytest.raises(AssertionError, match="asked again"):
        run(asked, capsys, "base", "--task", "tasks/sort.toml", "--name", "changed")
    with pytest.raises(AssertionError, match="asked again"):
        run(asked, capsys, "base@10", "--task", "tasks/pairs.toml", "--name", "another-model")


def test_a_stopped_evaluation_goes_on_with_the_next_group(
    asked: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(asked, capsys, "base", "--task", "tasks/pairs.toml", "--name", "whole")
    evals = asked / "evals"
    for path in (evals / ".judged").glob("*/*"):
        path.unlink()
    calls: list[int] = []
    answer = Engine.answer

    def stopped(engine: Engine, requests: Any, advance: Any = None) -> Any:
        calls.append(len(requests))
        if len(calls) == 2:
            raise StoppedError("stopped", "run it again")
        return answer(engine, requests, advance)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "answer", stopped)
        with pytest.raises(StoppedError):
            run(asked, capsys, "base", "--task", "tasks/pairs.toml")
    assert not (evals / "base").exists()
    with monkeypatch.context() as patch:
        calls.clear()
        calls.append(0)
        calls.append(0)
        patch.setattr(Engine, "answer", stopped)
        report = run(asked, capsys, "base", "--task", "tasks/pairs.toml")
    assert calls[2:] == [80]  # two sentences for each of the 40 items that were left
    assert report["content_sha256"] == whole["content_sha256"]


def test_a_damaged_kept_file_is_asked_again(asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(asked, capsys, "base", "--task", "tasks/pairs.toml")
    (kept,) = (asked / "evals" / ".judged").glob("*/*.arrow")
    data = bytearray(kept.read_bytes())
    data[len(data) // 2] ^= 4
    kept.write_bytes(data)
    folder = KeptItems(asked / "evals", None)
    folder.folder = kept.parent
    assert folder.read() == {}
    assert (
        run(asked, capsys, "base", "--task", "tasks/pairs.toml", "--name", "again")["pairs.acc"] == first["pairs.acc"]
    )


def test_gates_on_tasks_and_on_a_baseline(asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(asked, capsys, "base@10", "--task", "tasks", "--name", "before")
    words = ("base", "--task", "tasks", "--baseline", "before")
    run(asked, capsys, *words, "--fail-if", "pairs.acc < baseline - 1.5", "--junit", "gates.xml")
    assert 'failures="0"' in (asked / "gates.xml").read_text()
    with pytest.raises(GateError, match=r"pairs\.acc is .*, fails if pairs\.acc > baseline - 1\.5"):
        run(asked, capsys, *words, "--fail-if", "pairs.acc > baseline - 1.5", "--junit", "gates.xml")
    assert 'failures="1"' in (asked / "gates.xml").read_text()
    with pytest.raises(SpecError, match="no figure loss"):
        run(asked, capsys, *words, "--fail-if", "loss > baseline")
    run(asked, capsys, "base@10", "--task", "tasks/pairs.toml", "--name", "pairs")
    with pytest.raises(GateError, match=r"cannot be judged: the baseline pairs has no such figure"):
        run(asked, capsys, "base", "--task", "tasks", "--baseline", "pairs", "--fail-if", "sort.acc < baseline")
    with pytest.raises(SpecError, match=r"no figure pairs\.ac; did you mean pairs\.acc"):
        run(asked, capsys, "base", "--task", "tasks", "--name", "typo", "--fail-if", "pairs.ac < 0.1")
    assert not (asked / "evals" / "typo").exists()
    with pytest.raises(SpecError, match="there is no baseline"):
        run(asked, capsys, "base", "--task", "tasks", "--fail-if", "pairs.acc < baseline")


def test_evaluations_side_by_side(asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(asked, capsys, "base@10", "--task", "tasks", "--name", "one")
    run(asked, capsys, "base", "--task", "tasks", "--name", "other")
    capsys.readouterr()
    app(["--compare", "one", "other", "-C", str(asked)], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "pairs.acc" in shown and "other against one" in shown


def test_a_folder_without_tasks_and_two_of_one_name(asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (asked / "texts").mkdir()
    (asked / "texts" / "a.txt").write_text("a")
    with pytest.raises(SpecError, match="texts holds no task files"):
        run(asked, capsys, "base", "--task", "texts")
    (asked / "tasks" / "twin.toml").write_text(SORTS)
    with pytest.raises(SpecError, match="are both the task sort"):
        run(asked, capsys, "base", "--task", "tasks")


def test_items_of_the_train_split_are_told_apart(asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = " ".join(f"the cat sat on mat {n}" for n in range(4))
    rows = [
        {"good": long, "bad": long[::-1]},
        {"good": long.replace("cat", "dog"), "bad": long.upper()},
        {"good": "a cat", "bad": "cat a"},
    ]
    (asked / "tasks" / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = asked / "corpus" / "main" / NGRAMS
    folder.mkdir()
    hashes = sorted_unique([ngram_hashes(f"before {long} after")])
    with pa.OSFile(str(folder / "train-00000.arrow"), "wb") as file, pa.ipc.new_file(file, NGRAM_SCHEMA) as writer:
        writer.write_batch(pa.record_batch([pa.array(hashes)], schema=NGRAM_SCHEMA))
    report = run(asked, capsys, "base", "--task", "tasks/pairs.toml", "--set", "contamination=main")
    told = json.loads((asked / "evals/base/report.json").read_text())["tasks"]["pairs"]["contamination"]
    assert (told["dirty"], told["clean"], told["untold"]) == (1, 1, 1)
    assert report["pairs.acc_dirty"] in (0.0, 1.0) and report["pairs.acc_clean"] in (0.0, 1.0)


def test_a_model_whose_weights_are_no_numbers_is_told(asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = asked / "runs" / "base" / "checkpoints" / "step-00000020"
    weights = load_file(place / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, place / "model.safetensors", {"format": "pt"})
    (place / "manifest.json").unlink()  # a directory from elsewhere: nothing vouches for its bytes
    (asked / "tasks" / "cloze.toml").write_text('kind = "cloze"\ndata = "cloze.jsonl"\ntext = "{text}"\n')
    (asked / "tasks" / "cloze.jsonl").write_text('{"text": "the cat sat on the mat"}\n')
    for task in ("cloze", "pairs", "sort"):
        with pytest.raises(ArtifactError, match=rf"{task}: the likelihoods of .* are no numbers"):
            run(asked, capsys, f"./{place.relative_to(asked)}", "--task", f"tasks/{task}.toml")


@pytest.mark.parametrize("more", [("--fail-if", "loss>1"), ("--set", "limit=2"), ("--name", "x"), ("--split", "val")])
def test_comparing_measures_nothing(asked: Path, more: tuple[str, str]) -> None:
    with pytest.raises(SpecError, match="--compare takes evaluations alone"):
        app(["--compare", "one", "other", "-C", str(asked), *more], standalone_mode=False)


def test_a_damaged_evaluation_is_no_baseline(asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(asked, capsys, "base@10", "--task", "tasks", "--name", "before")
    items = asked / "evals" / "before" / "items.arrow"
    data = bytearray(items.read_bytes())
    data[len(data) // 2] ^= 1
    items.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"before is damaged: items\.arrow"):
        run(asked, capsys, "base", "--task", "tasks", "--baseline", "before", "--fail-if", "pairs.acc < baseline")
    with pytest.raises(SpecError, match="no gate names the baseline"):
        run(asked, capsys, "base", "--task", "tasks", "--baseline", "base", "--name", "after")


def test_a_long_prompt_keeps_most_of_itself(asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """More tokens are allowed than the context has: the answer ends with the context, the prompt stays."""
    (asked / "tasks" / "say.toml").write_text(
        'kind = "generation"\ndata = "say.jsonl"\nprompt = "{text}"\nanswer = "answer"\nmetrics = ["exact_match"]\n'
    )
    (asked / "tasks" / "say.jsonl").write_text('{"text": "the cat", "answer": "sat"}\n')
    run(asked, capsys, "base", "--task", "tasks/say.toml")
    assert json.loads((asked / "evals/base/report.json").read_text())["tasks"]["say"]["cut"] == 0


def test_other_toml_files_of_a_folder_are_no_tasks(asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (asked / "tasks" / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert set(run(asked, capsys, "base", "--task", "tasks")["tasks"]) == {"pairs", "sort"}
