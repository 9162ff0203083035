"""--show: a table of the sources for a person, plain in a pipe and ruled on a terminal, and everything with --json."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from gptcli.artifacts.build import partial_path
from gptcli.artifacts.project import Project
from gptcli.cli import app
from gptcli.corpus import run
from gptcli.corpus.inspect import print_shown, show
from gptcli.corpus.spec import CorpusSpec, inputs
from gptcli.errors import ArtifactError, SpecError
from gptcli.job import Job
from gptcli.progress import Silent


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project.open(tmp_path_factory.mktemp("inspect"))
    rows = [{"text": f"document {number} of these, and some words"} for number in range(9)]
    rows += [{"text": word} for word in ("a b", "c", "d e f")] + rows[:1]
    (project.root / "[bold]rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (project.root / "empty.txt").write_text(" \n")
    keys: dict[str, Any] = {"source": ["[[]bold]rows.jsonl", {"path": "empty.txt", "license": "MIT"}]}
    spec = CorpusSpec.model_validate({**keys, "dedup": "exact", "filters": [{"name": "length", "min_words": 3}]})
    place = project.place("corpus", "main")
    place.parent.mkdir()
    run.run(spec, Job(project, "main", place, inputs(spec, project, None), Silent()))
    return project


def test_plain_in_a_pipe(made: Project, capsys: pytest.CaptureFixture[str]) -> None:
    print_shown(show(made, "main", 2), as_json=False)
    out = capsys.readouterr().out
    lines = {line.split("  ")[0]: " ".join(line.split()) for line in out.splitlines()}
    assert lines["[[]bold]rows.jsonl"] == (
        "[[]bold]rows.jsonl unknown 13 10 76.9 % 320 B 5 / 35 / 35 – 2 filter:length:too_few_words, 1 duplicate"
    )
    assert lines["empty.txt"] == "empty.txt MIT 1 0 0.0 % 0 B – – 1 empty"
    assert "[1m" not in out and sum(line.startswith("  train ") for line in out.splitlines()) == 3  # one: its figures
    assert out.splitlines()[0] == "corpus main" and out.splitlines()[-1] == "  → corpus/main"


def test_ruled_on_a_terminal(
    made: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_shown(show(made, "main", 0), as_json=False)
    out = capsys.readouterr().out
    assert "[[]bold]rows.jsonl" in out, "a name is no markup"
    assert "─" * 20 in out and "2 filter:length:too_few_words" in out


def test_json_has_everything(made: Project, capsys: pytest.CaptureFixture[str]) -> None:
    print_shown(show(made, "main", 1), as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["path"] == "corpus/main" and told["documents_read"] == 14
    assert told["sources"][0]["left_out"] == {"duplicate": 1, "filter:length:too_few_words": 2}
    assert all(document["text"] and document["split"] for document in told["shown"])
    assert show(made, "main", 0).figures["shown"] == []


def test_what_is_not_there(made: Project) -> None:
    with pytest.raises(ArtifactError, match=r"^there is no corpus other$") as caught:
        show(made, "other", 1)
    assert caught.value.hint == "gptcli corpus SOURCE --name other makes it"
    begun = partial_path(made.place("corpus", "begun"))
    begun.mkdir()
    with pytest.raises(ArtifactError, match="the corpus begun is not finished"):
        show(made, "begun", 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--show", "0", "--explain", "abcdef"), "--show and --explain do not go together"),
        (("a.txt", "b", "--show", "1"), "--show shows a corpus that is finished, and reads no sources: a.txt b"),
        (("a.txt", "--explain", "abcdef"), "--explain shows a corpus that is finished, and reads no sources: a.txt"),
        *(
            (
                ("--show", "1", *words),
                f"--show shows a corpus that is finished, and makes none: {told} would do nothing",
            )
            for words, told in [
                (("--force",), "--force"),
                (("--update",), "--update"),
                (("--dry-run",), "--dry-run"),
                (("--offline",), "--offline"),
                (("--set", "min_chars=2", "--force"), "--set and --force"),
            ]
        ),
        (
            ("--explain", "abcdef", "--update"),
            "--explain shows a corpus that is finished, and makes none: --update would do nothing",
        ),
    ],
)
def test_what_does_not_go_together(made: Project, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        app(["corpus", *words, "-C", str(made.root)], standalone_mode=False)
    assert caught.value.message == message
