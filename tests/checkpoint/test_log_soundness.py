"""Logs that somebody altered, or the disk, and what verify says of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gptcli.artifacts.project import Project
from gptcli.checkpoint.command import checkpoint
from gptcli.checkpoint.log_soundness import check_logs
from gptcli.errors import ArtifactError


def call(root: Path, *words: str) -> None:
    checkpoint([*words, "-C", str(root)], standalone_mode=False)


@pytest.fixture
def tagged(root: Path) -> Path:
    """Three versions, one rolled back, one gone, one that came back, and a pruned run."""
    for step, version in ((100, "1.0.0"), (200, "1.1.0"), (300, "1.2.0")):
        call(root, "tag", f"base@{step}", version, "--alias", "production")
    call(root, "rollback", "production")
    folder = root / "models/my-gpt"
    (folder / "1.2.0").rename(folder / ".away")
    call(root, "alias", "staging", "1.0.0")
    (folder / ".away").rename(folder / "1.2.0")
    call(root, "alias", "live", "1.2.0")
    call(root, "prune", "base", "--keep", "1")
    return root


def found(root: Path) -> list[str]:
    return [problem for entry in check_logs(Project.open(root)) for problem in entry["problems"]]


def rewritten(root: Path, change: Any) -> None:
    path = root / "models/my-gpt/log.jsonl"
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    change(entries)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def test_what_verbs_leave_is_whole(tagged: Path) -> None:
    logs = check_logs(Project.open(tagged))
    assert [entry["path"] for entry in logs] == ["models/my-gpt"] and found(tagged) == []  # nothing was pruned
    call(tagged, "verify")
    (tagged / "models/my-gpt/log.jsonl").unlink()  # what is derived then is made anew, and whole
    call(tagged, "alias", "live", "1.1.0")
    call(tagged, "verify")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda entries: entries[0].pop("time"), "line 1 does not say what was done when"),
        (lambda entries: entries[1].pop("version"), "line 2 is of tag and names no version"),
        (lambda entries: entries[-1].pop("to"), "does not say which alias points where"),
        (lambda entries: entries[-1].update(alias="love"), "aliases.json: does not say what log.jsonl says"),
        (lambda entries: entries.pop(), "aliases.json: does not say what log.jsonl says"),
        (lambda entries: entries[0].update(by="nobody"), "its line of 1.0.0 is not what that version's manifest says"),
        (lambda entries: entries[-1].update(to="9.9.9"), "live points at 9.9.9, which isn't there"),
    ],
    ids=["time", "version", "to", "alias", "line", "by", "target"],
)
def test_a_log_that_was_altered(tagged: Path, change: Any, told: str) -> None:
    rewritten(tagged, change)
    assert any(told in problem for problem in found(tagged))
    with pytest.raises(ArtifactError, match=r"models/my-gpt/(log\.jsonl|aliases\.json): "):
        call(tagged, "verify")


def test_a_line_that_cannot_be_read_is_damage(tagged: Path) -> None:
    for name in ("models/my-gpt/log.jsonl", "runs/base/log.jsonl"):
        path = tagged / name
        whole = path.read_bytes() if path.exists() else b""
        path.write_bytes(whole + b"{half\n")
        assert any("cannot be read" in problem for problem in found(tagged)), name
        path.write_bytes(whole)


def test_an_alias_of_a_version_that_is_gone(tagged: Path) -> None:
    shutil.rmtree(tagged / "models/my-gpt/1.2.0")
    assert found(tagged) == ["log.jsonl: live points at 1.2.0, which isn't there"]


def test_what_a_crash_leaves_is_no_damage(tagged: Path) -> None:
    """aliases.json is written after the log's line."""
    path = tagged / "models/my-gpt/aliases.json"
    before = path.read_bytes()
    call(tagged, "alias", "live", "1.0.0")
    path.write_bytes(before)
    (entry,) = check_logs(Project.open(tagged))
    assert entry["problems"] == [] and "a change behind log.jsonl" in entry["notes"][0]
    path.write_text("{")
    assert found(tagged) == ["aliases.json: cannot be read"]
