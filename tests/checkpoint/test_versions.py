"""Tags, aliases, rollbacks and the log of them all."""

from __future__ import annotations

import json
import os
import pwd
import shutil
from pathlib import Path
from typing import Any

import pytest

from gptcli.artifacts.aliases import read_aliases
from gptcli.artifacts.manifest import read_manifest
from gptcli.artifacts.project import Project
from gptcli.artifacts.versions import next_version
from gptcli.checkpoint import changing
from gptcli.checkpoint.command import checkpoint
from gptcli.errors import ArtifactError, SpecError

AT_ONCE = 8


def call(root: Path, *words: str) -> None:
    checkpoint([*words, "-C", str(root)], standalone_mode=False)


def lines(root: Path, model: str = "my-gpt") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "models" / model / "log.jsonl").read_text().splitlines()]


def pointed(root: Path, model: str = "my-gpt") -> dict[str, str]:
    """Aliases by the log, which aliases.json must agree with."""
    found = read_aliases(Project.open(root), model)
    assert json.loads((root / "models" / model / "aliases.json").read_text()) == found
    return found


def forget(root: Path, **names: str) -> None:
    """A registry as it was before there were logs."""
    folder = root / "models" / "my-gpt"
    (folder / "log.jsonl").unlink()
    (folder / "aliases.json").write_text(json.dumps(names))
    for path in folder.glob("*/manifest.json"):
        manifest = json.loads(path.read_text())
        del manifest["records"]["log"]
        path.write_text(json.dumps(manifest))


@pytest.fixture
def tagged(root: Path) -> Path:
    """Versions 1.0.0, 1.1.0 and 1.2.0; production has pointed at each in turn."""
    for step, version in ((100, "1.0.0"), (200, "1.1.0"), (300, "1.2.0")):
        call(root, "tag", f"base@{step}", version, "--alias", "production", "-m", f"step {step}")
    return root


@pytest.mark.parametrize(
    ("versions", "after"),
    [
        ([], ("1.0.0", "0.1.0", "0.0.1")),
        (["1.9.0", "1.10.3", "2.0.0-rc.1"], ("2.0.0", "1.11.0", "1.10.4")),
        (["1.0.0-rc.1"], ("1.0.0", "1.0.0", "1.0.0")),
        (["1.1.0-rc.1"], ("2.0.0", "1.1.0", "1.1.0")),
        (["0.9.9+build"], ("1.0.0", "0.10.0", "0.9.10")),
    ],
)
def test_the_next_version(versions: list[str], after: tuple[str, ...]) -> None:
    assert tuple(next_version(versions, bump) for bump in ("major", "minor", "patch")) == after


def test_bump_counts_on_from_the_highest(root: Path) -> None:
    for bump in ("minor", "patch", "minor", "major"):
        call(root, "tag", "base", "--bump", bump)
    made = sorted(path.name for path in (root / "models" / "my-gpt").glob("*/"))
    assert made == ["0.1.0", "0.1.1", "0.2.0", "1.0.0"] == [entry["version"] for entry in lines(root)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("base",), "no version was given"),
        (("base", "1.0.0", "--bump", "minor"), "both given"),
        (("base", "--bump", "big"), "no part of a version"),
    ],
)
def test_tag_takes_a_version_or_a_bump(root: Path, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        call(root, "tag", *words)


def test_the_log_says_who_what_when_and_why(tagged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(tagged, "alias", "staging", "1.1.0", "-m", "to try it")
    call(tagged, "rollback", "production", "--message", "too\nbold")
    call(tagged, "alias", "my-gpt:staging", "--delete")
    found = lines(tagged)
    told = [(entry["verb"], entry.get("version"), entry["alias"], entry["from"], entry["to"]) for entry in found]
    assert told == [
        ("tag", "1.0.0", "production", None, "1.0.0"),
        ("tag", "1.1.0", "production", "1.0.0", "1.1.0"),
        ("tag", "1.2.0", "production", "1.1.0", "1.2.0"),
        ("alias", None, "staging", None, "1.1.0"),
        ("rollback", None, "production", "1.2.0", "1.1.0"),
        ("alias", None, "staging", "1.1.0", None),
    ]
    who = pwd.getpwuid(os.getuid()).pw_name
    assert all(entry["by"].startswith(f"{who}@") and entry["time"].endswith("Z") for entry in found)
    assert read_manifest(tagged / "models/my-gpt/1.0.0").records["log"] == found[0]
    assert pointed(tagged) == {"latest": "1.2.0", "production": "1.1.0"}
    capsys.readouterr()
    call(tagged, "log", "my-gpt:staging")
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 2 + 2 and shown[2].endswith("staging: nothing → 1.1.0; to try it")
    call(tagged, "log")
    assert "production: 1.2.0 → 1.1.0; too bold" in capsys.readouterr().out
    with pytest.raises(ArtifactError, match="no model and no run other"):
        call(tagged, "log", "other")


def test_the_log_of_a_version(tagged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(tagged, "tag", "base@400", "2.0.0")
    for name, told in (
        ("my-gpt:1.0.0", ["tag", "tag"]),  # the second moved production away from it
        ("my-gpt:1.2.0", ["tag"]),
        ("my-gpt:latest", ["tag"]),
        ("my-gpt:production", ["tag"] * 3),
    ):
        capsys.readouterr()
        call(tagged, "log", name, "--json")
        found = json.loads(capsys.readouterr().out)["entries"]
        assert [entry["verb"] for entry in found] == told, name
    for name, message in (
        ("my-gpt:nosuch", r"no alias nosuch \(aliases: production\)"),
        ("my-gpt:9.9.9", r"no version 9\.9\.9, and never had"),
        (":production", "no model and no run"),
        ("base:production", "no model and no run base"),
    ):
        with pytest.raises(ArtifactError, match=message):
            call(tagged, "log", name)


def test_what_changes_nothing_is_no_line(tagged: Path) -> None:
    before = lines(tagged)
    call(tagged, "tag", "base@300", "1.2.0", "--alias", "production")
    call(tagged, "alias", "my-gpt:latest", "production")
    assert lines(tagged) == before


@pytest.mark.parametrize(
    "words", [("my-gpt:1.0.0", "live"), ("live", "my-gpt:1.0.0"), ("live", "1.0.0"), ("1.0.0", "live")], ids=str
)
def test_alias_takes_its_words_in_either_order(tagged: Path, words: tuple[str, str]) -> None:
    call(tagged, "alias", *words)
    assert pointed(tagged)["live"] == "1.0.0"


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (("live", "staging"), SpecError, "live names no version, nor does staging"),
        (("1.0.0", "1.1.0"), SpecError, "both 1.0.0 and 1.1.0 name a version"),
        (("live",), SpecError, "takes a version and an alias"),
        (("live", "1.0.0", "--delete"), SpecError, "takes an alias alone"),
        (("live", "--delete"), ArtifactError, r"no alias live \(aliases: production\)"),
        (("latest", "--delete"), SpecError, "follows the highest"),
        (("latest", "1.0.0"), SpecError, "follows the highest"),
        (("other:live", "--delete"), ArtifactError, "no model other"),
        (("live", "other:1.0.0"), ArtifactError, "no model other"),
    ],
)
def test_alias_refuses(tagged: Path, words: tuple[str, ...], error: type[Exception], message: str) -> None:
    before = lines(tagged)
    with pytest.raises(error, match=message):
        call(tagged, "alias", *words)
    assert lines(tagged) == before and not (tagged / "models" / "other").exists()


def test_rollback_goes_back_step_by_step(tagged: Path) -> None:
    for target in ("1.1.0", "1.0.0"):
        call(tagged, "rollback", "production")
        assert pointed(tagged)["production"] == target
    with pytest.raises(ArtifactError, match=r"nothing but 1\.0\.0: there is nothing before it"):
        call(tagged, "rollback", "production")
    call(tagged, "alias", "production", "1.2.0")
    call(tagged, "rollback", "my-gpt:production")
    assert pointed(tagged)["production"] == "1.0.0"
    call(tagged, "rollback", "production", "--to", "1.1.0")
    call(tagged, "alias", "production", "--delete")
    call(tagged, "rollback", "production")
    assert pointed(tagged)["production"] == "1.1.0"


def test_rollback_refuses(tagged: Path) -> None:
    with pytest.raises(ArtifactError, match="no alias staging"):
        call(tagged, "rollback", "staging")
    with pytest.raises(ArtifactError, match=r"no version 3\.0\.0"):
        call(tagged, "rollback", "production", "--to", "3.0.0")
    shutil.rmtree(tagged / "models/my-gpt/1.1.0")
    with pytest.raises(ArtifactError, match=r"1\.1\.0 before, which isn't there any more"):
        call(tagged, "rollback", "production")
    call(tagged, "rollback", "production", "--to", "1.0.0")
    assert [entry["verb"] for entry in lines(tagged)][-2:] == ["gone", "rollback"]


def test_a_registry_from_before_there_was_a_log(tagged: Path) -> None:
    forget(tagged, latest="1.2.0", production="1.1.0")
    assert read_aliases(Project.open(tagged), "my-gpt") == {"latest": "1.2.0", "production": "1.1.0"}
    call(tagged, "alias", "production", "1.2.0")
    assert [entry["verb"] for entry in lines(tagged)] == ["alias", "tag", "tag", "tag", "alias"]
    call(tagged, "rollback", "production")
    assert pointed(tagged)["production"] == "1.1.0"


def test_a_version_that_comes_back_brings_no_alias(tagged: Path, tmp_path: Path) -> None:
    folder = tagged / "models/my-gpt"
    call(tagged, "alias", "production", "1.0.0")
    (folder / "1.2.0").rename(tmp_path / "1.2.0")
    call(tagged, "alias", "staging", "1.0.0")  # which writes down that it is gone
    (tmp_path / "1.2.0").rename(folder / "1.2.0")
    there = {"latest": "1.2.0", "production": "1.0.0", "staging": "1.0.0"}
    assert read_aliases(Project.open(tagged), "my-gpt") == there
    call(tagged, "alias", "my-gpt:production", "1.0.0")
    assert pointed(tagged) == there
    assert [(entry["verb"], entry.get("version")) for entry in lines(tagged)][-3:] == [
        ("gone", "1.2.0"),
        ("alias", None),
        ("returned", "1.2.0"),
    ]
    shutil.rmtree(folder / "1.2.0")
    call(tagged, "tag", "base@400", "1.2.0", "--alias", "production")  # another, which does move it
    assert pointed(tagged)["production"] == "1.2.0" and lines(tagged)[-1]["from"] == "1.0.0"


@pytest.mark.parametrize("before", [None, "1.0.0"])
def test_a_version_that_was_copied_in_moves_no_alias(root: Path, tmp_path: Path, before: str | None) -> None:
    """Its line says that it moved production, from nothing or from 1.0.0, in a registry elsewhere, and earlier."""
    if before:
        call(root, "tag", "base@100", before, "--alias", "production")
    call(root, "tag", "base@200", "1.1.0", "--alias", "production")
    (root / "models/my-gpt/1.1.0").rename(tmp_path / "1.1.0")
    shutil.rmtree(root / "models")
    call(root, "tag", "base@300", "1.0.0", "--alias", "production")
    path = root / "models/my-gpt/log.jsonl"
    path.write_text(path.read_text().replace(lines(root)[0]["time"], "2999-01-01T00:00:00Z"))
    (tmp_path / "1.1.0").rename(root / "models/my-gpt/1.1.0")
    call(root, "alias", "other", "1.1.0")
    assert pointed(root) == {"latest": "1.1.0", "production": "1.0.0", "other": "1.1.0"}


def test_a_log_that_is_lost_brings_back_no_alias(tagged: Path) -> None:
    call(tagged, "rollback", "production")
    call(tagged, "alias", "staging", "1.0.0")
    there = pointed(tagged)
    (tagged / "models/my-gpt/log.jsonl").unlink()
    assert read_aliases(Project.open(tagged), "my-gpt") == there
    call(tagged, "alias", "my-gpt:staging", "--delete")
    assert pointed(tagged) == {"latest": "1.2.0", "production": "1.1.0"}


@pytest.mark.parametrize("cut", [1, 5, 60])
def test_a_line_cut_short_was_never_a_change(tagged: Path, cut: int) -> None:
    """A crash while a line is written, at its newline, or before."""
    path = tagged / "models/my-gpt/log.jsonl"
    call(tagged, "alias", "production", "1.0.0")
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_aliases(Project.open(tagged), "my-gpt")["production"] == "1.2.0"
    call(tagged, "alias", "staging", "1.0.0")
    assert [entry["verb"] for entry in lines(tagged)] == ["tag", "tag", "tag", "alias"]
    assert pointed(tagged) == {"latest": "1.2.0", "production": "1.2.0", "staging": "1.0.0"}


def test_a_broken_line_is_named(tagged: Path) -> None:
    path = tagged / "models/my-gpt/log.jsonl"
    path.write_text(path.read_text().replace('{"alias"', "{alias", 1))
    with pytest.raises(ArtifactError, match=r"log\.jsonl:1 cannot be read"):
        call(tagged, "log")


def test_aliases_json_is_made_again(tagged: Path) -> None:
    for content in ("{", '{"production": "9.9.9"}'):
        (tagged / "models/my-gpt/aliases.json").write_text(content)
        call(tagged, "alias", "my-gpt:production", "production")
        assert pointed(tagged) == {"latest": "1.2.0", "production": "1.2.0"}


def test_a_user_without_a_name(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 3_999_999_999)
    assert changing.whoami().startswith("uid3999999999@")


def test_prune_keeps_the_best_and_is_logged(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(root, "prune", "base", "--keep", "1", "--keep-best", "2", "--dry-run", "--json")
    planned = json.loads(capsys.readouterr().out)
    assert planned["dropped"] == ["runs/base/checkpoints/step-00000100"]
    assert planned["kept"]["runs/base/checkpoints/step-00000300"] == ["one of the best 2"]
    call(root, "prune", "base", "--keep", "1")
    call(root, "prune", "base", "--keep", "1")
    capsys.readouterr()
    call(root, "log", "base", "--json")
    (entry,) = json.loads(capsys.readouterr().out)["entries"]
    assert (entry["run"], entry["verb"], entry["steps"]) == ("base", "prune", [100, 300])
    call(root, "log")
    assert "2 checkpoints: 100, 300" in capsys.readouterr().out


def test_many_at_once_lose_nothing(root: Path, gptcli: Any) -> None:
    """Tags of different versions, tags by the same bump, and aliases, all beside each other."""
    call(root, "tag", "base@best", "1.0.0")
    words = [("tag", "base", f"2.{number}.0", "--alias", f"a{number}") for number in range(AT_ONCE)]
    started = [gptcli.start(root, "checkpoint", *each) for each in words]
    words = [("tag", "base", "--bump", "patch", "--as", "bumped") for _ in range(AT_ONCE)]
    started += [gptcli.start(root, "checkpoint", *each) for each in words]
    words = [("alias", "my-gpt:1.0.0", f"b{number}") for number in range(AT_ONCE)]
    started += [gptcli.start(root, "checkpoint", *each) for each in words]
    ended = [(process.communicate()[1], process.returncode) for process in started]
    assert [code for _, code in ended] == [0] * len(ended), ended
    numbered = {f"a{number}": f"2.{number}.0" for number in range(AT_ONCE)}
    assert pointed(root) == {"latest": "2.7.0", **numbered, **{f"b{n}": "1.0.0" for n in range(AT_ONCE)}}
    assert len(lines(root)) == 1 + 2 * AT_ONCE
    versions = [f"0.0.{number}" for number in range(1, AT_ONCE + 1)]
    assert [entry["version"] for entry in lines(root, "bumped")] == versions
    assert pointed(root, "bumped") == {"latest": "0.0.8"}
