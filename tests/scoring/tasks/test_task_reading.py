"""A task's TOML: read, or refused with the file and the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptcli.errors import SpecError
from gptcli.scoring.tasks import TASKS
from gptcli.scoring.tasks.multiple_choice import MultipleChoice
from gptcli.scoring.tasks.reading import read_task, task_inputs
from gptcli.scoring.tasks.rows import read_rows

CHOICE = 'kind = "multiple_choice"\ndata = "a.jsonl"\nchoices = "choices"\n'
CLOZE = 'kind = "cloze"\ndata = "a.txt"\n'


def written(folder: Path, toml: str | bytes, name: str = "easy.toml") -> Path:
    path = folder / name
    path.write_bytes(toml.encode() if isinstance(toml, str) else toml)
    return path


def test_a_few_lines_are_a_task(tmp_path: Path) -> None:
    task = read_task(written(tmp_path, "\ufeff" + CHOICE))
    assert isinstance(task, MultipleChoice) and task.name == "easy" and task.data == ["a.jsonl"]
    assert (task.delimiter, task.shots, task.chat, task.answer) == (" ", 0, "auto", "answer")
    assert read_task(written(tmp_path, CHOICE + 'name = "mine"')).name == "mine"
    assert read_task(written(tmp_path, CHOICE, "2 arc-easy.v1.toml")).name == "task_2_arc_easy_v1"


def test_every_kind_is_known_by_its_name() -> None:
    assert [task.model_fields["kind"].default for task in TASKS] == [
        "multiple_choice",
        "minimal_pairs",
        "cloze",
        "classification",
        "generation",
    ]


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ('data = "a"', "kind is missing"),
        ('kind = "multiple_chioce"', "unknown kind multiple_chioce: did you mean multiple_choice"),
        ("kind = 3", "unknown kind 3"),
        ('kind = "cloze"\ntext = "{text}"', "data is missing"),
        ('kind = "cloze"\ntext = "{text}"\ndata = []', "data = "),
        (CHOICE + 'promt = "x"', "unknown key promt: did you mean prompt"),
        (CHOICE + 'prompt = "{q"', "prompt = '{q': has a { at character 1"),
        (CHOICE + 'name = "a.b"', "name = 'a.b'"),
        (CHOICE + "shots = -1", "shots = -1"),
        (CHOICE + 'shots_data = "b.jsonl"', "shots_data is given, and shots = 0"),
        (CHOICE + "seed = 1", "seed is given, and shots = 0"),
        (CHOICE + 'labels = "l"\nindex_from = 1', "labels says how the answer tells"),
        ('kind = "multiple_choice"\ndata = "a"\nchoices = ["{a}"]', "choices has fewer than two"),
        ('kind = "multiple_choice"\ndata = "a"\nchoices = ["{a}", "{"]', "choices"),
        ('kind = "minimal_pairs"\ndata = "a"\ngood = "{a}"', "bad is missing"),
        (CLOZE, "needs prompt and answer, or text"),
        (CLOZE + 'text = "{text}"\nprompt = "x"', "text takes the place of prompt"),
        (CLOZE + 'text = "{text}"\nparallel = {"" = "l.txt"}', "a name of a field is empty"),
        ("kind = ", "no valid TOML"),
        (b"kind = '\xff'", "no UTF-8"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, toml: str | bytes, told: str) -> None:
    path = written(tmp_path, toml)
    with pytest.raises(SpecError) as caught:
        read_task(path)
    assert str(path) in caught.value.message and told in caught.value.message
    assert caught.value.hint and "--set" not in caught.value.hint and "gptcli schema" not in caught.value.hint


def test_a_task_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"there is no file .*none\.toml"):
        read_task(tmp_path / "none.toml")
    with pytest.raises(SpecError, match="cannot read"):
        read_task(tmp_path)


def test_files_are_taken_from_the_tasks_folder(tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name in ("a.txt", "b.txt", "labels_a.txt", "labels_b.txt"):
        (folder / name).write_text("one two\n")
    task = read_task(
        written(folder, CLOZE.replace('"a.txt"', '"[ab].txt"') + 'text = "{text}"\nparallel = {label = "labels_*.txt"}')
    )
    files = task_inputs(task, folder, tmp_path)
    assert [file.name for file in files.data] == ["tasks/a.txt", "tasks/b.txt"]
    assert [file.name for file in files.parallel["label"]] == ["tasks/labels_a.txt", "tasks/labels_b.txt"]
    assert len(files.every) == 4
    assert [row.where for row in read_rows(task, files).items] == ["tasks/a.txt:1", "tasks/b.txt:1"]
    elsewhere = tmp_path / "project"
    elsewhere.mkdir()
    assert task_inputs(task, folder, elsewhere).data[0].name == str(folder / "a.txt")
    with pytest.raises(SpecError, match=r"tasks/c\.txt"):
        task_inputs(task.model_copy(update={"data": ["c.txt"]}), folder, tmp_path)


def test_a_header_needs_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two\n")
    task = read_task(written(tmp_path, CLOZE + 'text = "{text}"\nheader = true'))
    with pytest.raises(SpecError, match="none of its files is csv or tsv"):
        read_rows(task, task_inputs(task, tmp_path, tmp_path))
