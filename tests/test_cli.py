"""main(): exit codes and streams."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def ask(root: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gptcli", *words],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "words",
    [
        ("init", "t.txt/x"),
        ("init", "a" * 300),
        ("status", "-C", "a" * 300),
        ("corpus", "t.txt", "--name", "a" * 300),
        ("checkpoint", "show", f"./{'a' * 300}"),
    ],
    ids=lambda words: " ".join(words)[:20],
)
def test_a_path_that_can_be_none_is_the_user_s(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "t.txt").write_text("text")
    ended = ask(tmp_path, *words)
    assert ended.returncode == 2 and ended.stderr.startswith("error: ") and "hint: " in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["t.txt"]


def test_a_terminal_without_the_characters(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('[project]\nname = "é"\n[pretrain.base]\n', encoding="utf-8")
    shown = ask(tmp_path, "status", PYTHONIOENCODING="ascii")
    assert shown.returncode == 0 and "missing" in shown.stdout, shown.stderr
    assert json.loads(ask(tmp_path, "status", "--json", PYTHONIOENCODING="ascii").stdout)["project"] == "é"
