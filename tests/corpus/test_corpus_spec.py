"""What the corpus stage's spec refuses, and its filters' files as sources are found: globs, folders, ~."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gptcli.artifacts.project import Project
from gptcli.corpus.spec import CorpusSpec, inputs, located
from gptcli.errors import SpecError


@pytest.fixture
def lists(project: Project) -> Project:
    for name in ("lists/b.txt", "lists/a.txt", "good/only.txt", "rows.txt"):
        path = project.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{name}\n")
    return project


def spec_of(**keys: Any) -> CorpusSpec:
    return CorpusSpec.model_validate({"source": "rows.txt", **keys})


@pytest.mark.parametrize("typed", ["lists", "lists/*.txt", ["lists/a.txt", "lists/b.txt"], "~/lists"])
def test_a_blocklist_is_what_was_hashed(lists: Project, typed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(lists.root))
    spec = spec_of(filters=[{"name": "blocklist", "words": typed, "urls": typed}])
    found = [str(lists.root / "lists" / name) for name in ("a.txt", "b.txt")]
    ready: Any = located(spec, lists).filters[0]
    assert ready.words == found and ready.urls == found
    hashed = [source.path for source in inputs(spec, lists, None).sources if source.path != "rows.txt"]
    assert [Path(path).name for path in hashed] == ["a.txt", "b.txt"]
    assert located(located(spec, lists), lists) == located(spec, lists)


@pytest.mark.parametrize("typed", ["good", "good/*", "~/good/only.txt"])
def test_examples_of_quality(lists: Project, typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(lists.root))
    ready = located(spec_of(quality={"like": typed, "unlike": typed}), lists).quality
    assert ready and ready.like == ready.unlike == str(lists.root / "good" / "only.txt")


@pytest.mark.parametrize("key", ["like", "unlike"])
def test_examples_of_quality_are_one_file(lists: Project, key: str) -> None:
    with pytest.raises(SpecError, match=rf"^quality.{key} = lists is 2 files, and takes one$"):
        inputs(spec_of(quality={"like": "rows.txt", key: "lists"}), lists, None)


def test_a_list_that_is_not_there(lists: Project) -> None:
    with pytest.raises(SpecError, match=r"none\.txt"):
        inputs(spec_of(filters=[{"name": "blocklist", "words": "none.txt"}]), lists, None)


@pytest.mark.parametrize(
    "second",
    ["https://me:two@a.example/x", {"path": "https://me:one@a.example/x", "weight": 2}],
    ids=["password", "weight"],
)
def test_a_source_stands_once(second: Any) -> None:
    with pytest.raises(SpecError, match="stands twice among the sources") as caught:
        spec_of(source=["https://me:one@a.example/x", second])
    assert ":one@" not in str(caught.value) and ":two@" not in str(caught.value)
    assert len(spec_of(source=["https://me:one@a.example/x"] * 2).tables()) == 1
