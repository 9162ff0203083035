"""The same command again; a changed one; one worker or many."""

from __future__ import annotations

from pathlib import Path

import pytest

AGAIN = {
    "corpus/main": ("corpus",),
    "tokens/main": ("tokenize",),
    "runs/base": ("pretrain",),
    "evals/base": ("eval", "base"),
    "runs/chat": ("finetune-lora", "--base", "base"),
    "exports/main": ("export", "chat", "--to", "hf"),
}


def times(root: Path) -> dict[str, int]:
    """When each file was last changed, in ns."""
    return {
        path.relative_to(root).as_posix(): path.stat().st_mtime_ns
        for path in root.rglob("*")
        if path.is_file() and ".gptcli" not in path.parts
    }


def test_done_already(chain, gptcli, snapshot, tmp_path):
    """The second run imports no torch and touches only the manifest's mtime."""
    root = chain.copy(tmp_path / "project")
    files = snapshot(root, whole=True)
    for place, words in AGAIN.items():
        before = times(root)
        done = gptcli(root, *words, "--json", expect=0)
        assert {"torch", "pyarrow", "transformers"}.isdisjoint(done.heavy), place
        first = chain.stages[done.figures["stage"]].figures
        assert "done already" in done.figures["title"]
        assert done.figures == {**first, "title": done.figures["title"]}
        after = times(root)
        assert {name for name in after if after[name] != before.get(name)} == {f"{place}/manifest.json"}
        assert set(after) == set(before)
    assert snapshot(root, whole=True) == files


def test_workers_do_not_decide_the_content(chain, gptcli, snapshot, tmp_path):
    root = chain.copy(tmp_path / "project", until="corpus")
    for stage in ("corpus", "tokenize"):
        done = gptcli(root, stage, "--set", "workers=4", "--json", expect=0)
        assert done.figures["content_sha256"] == chain.stages[stage].figures["content_sha256"]
        assert "workers" not in (root / AGAIN_PLACE[stage] / "manifest.json").read_text().split('"records"')[0]
    for place in AGAIN_PLACE.values():
        assert snapshot(root, below=place) == snapshot(chain.root, below=place)
    # Other numbers of workers are no other spec.
    assert "done already" in gptcli(root, "corpus", "--set", "workers=1", expect=0).out


AGAIN_PLACE = {"corpus": "corpus/main", "tokenize": "tokens/main"}


@pytest.mark.parametrize(
    ("words", "setting", "way"),
    [
        (("corpus",), "min_chars=5", "--update"),
        (("tokenize",), "vocab_size=500", "--update"),
        (("pretrain",), "steps=20", "--force"),
        (("eval", "base"), "split=test", "--update"),
        (("finetune-lora",), "rank=4", "--force"),
        (("export", "chat"), "merge=false", "--update"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_a_changed_spec_is_shown_and_changes_nothing(chain, gptcli, snapshot, words, setting, way):
    before = snapshot(chain.root, whole=True)
    done = gptcli(chain.root, *words, "--set", setting)
    key, _, value = setting.partition("=")
    done.failed(3, key, value if value != "false" else "False")
    assert way in done.err and "--name" in done.err
    assert "torch" not in done.heavy
    assert snapshot(chain.root, whole=True) == before


def test_update_rebuilds_what_changed(chain, gptcli, snapshot, tmp_path):
    root = chain.copy(tmp_path / "project", until="pretrain")
    (root / "texts/json/tool.py").write_text("pass\n")
    gptcli(root, "tokenize", "--update", expect=0)  # its input is as it was
    gptcli(root, "corpus").failed(3, "texts")
    first = gptcli(root, "corpus", "--update", "--json", expect=0).figures["content_sha256"]
    assert first != chain.stages["corpus"].figures["content_sha256"]
    gptcli(root, "tokenize").failed(3, "corpus/main")
    gptcli(root, "tokenize", "--update", expect=0)
    rebuilt = snapshot(root)
    again = chain.copy(tmp_path / "again", until="corpus")
    (again / "texts/json/tool.py").write_text("pass\n")
    for stage in ("corpus", "tokenize"):
        gptcli(again, stage, expect=0)
    assert snapshot(again) == rebuilt


def test_force_keeps_what_was_trained(chain, gptcli, snapshot, tmp_path):
    root = chain.copy(tmp_path / "project", until="eval")
    before = snapshot(root, below="runs/base", whole=True)
    gptcli(root, "pretrain", "--update", "--steps", "4").failed(3, "steps")
    gptcli(root, "pretrain", "--force", "--steps", "4", expect=0)
    kept = snapshot(root, below="runs/base.1", whole=True)
    assert {name.replace("base.1", "base"): hashed for name, hashed in kept.items()} == before
    gptcli(root, "pretrain", "--force", expect=0)
    assert snapshot(root, below="runs/base") == snapshot(chain.root, below="runs/base")
    assert (root / "runs/base.2").is_dir()
