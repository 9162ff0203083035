"""A corpus that an older gptcli made: what follows reads it, what shows it names the rebuild, --update rebuilds it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gptcli.artifacts.manifest import (
    FORMAT_VERSIONS,
    Inputs,
    content_sha256,
    read_manifest,
    verify_files,
    write_manifest,
)
from gptcli.artifacts.project import Project
from gptcli.cli import app
from gptcli.errors import ArtifactError
from gptcli.tokenize.spec import TokenizeSpec
from gptcli.tokenize.spec import inputs as tokenize_inputs


@pytest.fixture
def old(project: Project) -> Project:
    rows = [{"text": f"document {number} of these, and some words"} for number in range(9)]
    (project.root / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command(project, "a.jsonl")
    place = project.place("corpus", "main")
    made = read_manifest(place)
    sha256 = content_sha256("corpus", 1, made.spec, made.files, Inputs(made.inputs))
    write_manifest(place, replace(made, format_version=1, content_sha256=sha256))
    assert verify_files(place, read_manifest(place)) == []
    return project


def command(project: Project, *words: str) -> None:
    app(["corpus", *words, "-q", "-C", str(project.root)], standalone_mode=False)


@pytest.mark.parametrize("words", [("--show", "1"), ("--explain", "a.jsonl:0")])
def test_what_shows_it_names_the_rebuild(old: Project, words: tuple[str, ...]) -> None:
    with pytest.raises(ArtifactError, match=r"^the corpus main was made by an older gptcli$") as caught:
        command(old, *words)
    assert caught.value.hint == "gptcli corpus --name main --update rebuilds it"


def test_it_is_rebuilt_when_that_is_asked_for(old: Project) -> None:
    place = old.place("corpus", "main")
    with pytest.raises(ArtifactError, match="was made otherwise: its format was 1, now 2") as caught:
        command(old, "a.jsonl")
    assert "--update" in caught.value.hint and read_manifest(place).format_version == 1
    command(old, "a.jsonl", "--update")
    assert read_manifest(place).format_version == FORMAT_VERSIONS["corpus"]
    command(old, "--show", "1")
    command(old, "a.jsonl")  # done already


def test_it_is_tokenized(old: Project) -> None:
    recorded = tokenize_inputs(TokenizeSpec.model_validate({}), old, None).entries[0]
    assert recorded.content_sha256 == read_manifest(old.place("corpus", "main")).content_sha256
