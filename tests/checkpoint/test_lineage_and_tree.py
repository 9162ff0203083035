from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from gptcli.artifacts.build import Build
from gptcli.artifacts.manifest import Input, Inputs, read_manifest
from gptcli.artifacts.project import Project
from gptcli.checkpoint.command import checkpoint
from gptcli.checkpoint.list import list_models, print_models


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_tree_and_a_pipe_columns(
    adapter_run: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint(["tag", "base@best", "1.0.0", "--alias", "production", "-C", str(root)], standalone_mode=False)
    (root / "runs" / "[red]new").mkdir()
    found = list_models(Project.open(root))
    tree, columns = Terminal(), io.StringIO()
    monkeypatch.setenv("COLUMNS", "200")
    for stdout in (tree, columns):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stdout)
            print_models(found)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", tree.getvalue()).splitlines()
    assert any(line.startswith("[red]new") and "no checkpoint yet" in line for line in lines)
    assert any(line.startswith("base") and "trained" in line for line in lines)
    assert any(line.startswith("chat") and "adapter" in line for line in lines)
    best = next(line for line in lines if "@200" in line)
    assert best.startswith("├── ") and "val 2.0000" in best and "best, my-gpt:1.0.0" in best
    version = next(line for line in lines if ":1.0.0" in line and "production" in line)
    assert version.startswith("└── ") and "from runs/base/checkpoints/step-00000200" in version
    assert columns.getvalue().splitlines()[0].split() == ["model", "val", "loss", "train", "loss", "size"]
    assert "base@200" in columns.getvalue() and "├" not in columns.getvalue()


def artifact(root: Path, place: str, kind: str, inputs: Inputs, stats: dict[str, Any], records: Any = None) -> None:
    build = Build.open(root / place, kind=kind, spec={}, inputs=inputs, say=print)
    (build.directory / "data").write_bytes(b"data")
    build.commit(stats, records or {"created": "then"})


def test_licences_and_tools_are_followed_down(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = [{"license": "PSF-2.0", "documents": 7}, {"license": None, "documents": 2}]
    artifact(root, "corpus/other", "corpus", Inputs((Input("source", "books", "2" * 64),)), {"sources": sources})
    entry = Input("corpus", "corpus/other", read_manifest(root / "corpus/other").content_sha256)
    artifact(root, "tokens/other", "tokens", Inputs((entry, entry)), {})
    tokens = Input("tokens", "tokens/other", read_manifest(root / "tokens/other").content_sha256)
    place = root / "runs/other/checkpoints/step-00000001"
    build = Build.open(place, kind="checkpoint", spec={}, inputs=Inputs((tokens,)), say=print)
    (build.directory / "trainer").mkdir()
    (build.directory / "trainer/state.json").write_text(json.dumps({"setup": {"torch": "2.13.0"}}))
    source = root / "runs/base/checkpoints/step-00000100"
    for name in ("config.json", "model.safetensors"):
        (build.directory / name).write_bytes((source / name).read_bytes())
    build.commit({"step": 1}, {"created": "then"})
    capsys.readouterr()
    checkpoint(["show", "other", "-C", str(root), "--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert found["licences"] == {"PSF-2.0": 7, "": 2}  # the corpus is met twice and counted once
    assert found["tools"]["torch"] == ["2.13.0"] and found["tools"]["gptcli"]
    corpus = found["lineage"][0]["inputs"][0]
    assert corpus["licences"] == {"PSF-2.0": 7, "": 2} and corpus["created"] == "then"
    checkpoint(["show", "other", "-C", str(root)], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "PSF-2.0: 7 documents, not stated: 2 documents" in shown and "torch 2.13.0" in shown
