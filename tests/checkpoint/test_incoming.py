"""Manifests from elsewhere that hold what no version has, and places that can't be used."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from gptcli.artifacts.durable import canonical_json
from gptcli.artifacts.manifest import read_manifest, verify_files
from gptcli.checkpoint.command import checkpoint
from gptcli.errors import ArtifactError, GptcliError, SpecError

WEIGHTS = "model.safetensors"


def call(root: Path, *words: str) -> None:
    checkpoint([*words, "-C", str(root)], standalone_mode=False)


@pytest.fixture
def there(root: Path, tmp_path: Path) -> Path:
    """A version that was pushed."""
    call(root, "tag", "base@best", "1.0.0")
    call(root, "push", "my-gpt:1.0.0", str(tmp_path / "there"))
    return tmp_path / "there/my-gpt/1.0.0"


def evil(place: Path, change: Any) -> None:
    """Change a manifest, and make its own hash fit as well as can be; without a checksum of its bytes."""
    raw = json.loads((place / "manifest.json").read_text())
    del raw["manifest_sha256"]
    change(raw)
    try:
        inputs = [entry["content_sha256"] for entry in raw["inputs"]]
        content = {key: raw[key] for key in ("kind", "format_version", "spec", "files")} | {"inputs": inputs}
        raw["content_sha256"] = hashlib.sha256(canonical_json(content)).hexdigest()
    except (ValueError, TypeError, KeyError):
        pass
    (place / "manifest.json").write_text(json.dumps(raw))


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


def first(**fields: Any) -> Any:
    """Change the first file that is listed."""
    return lambda raw: raw["files"][0].update(fields)


def listed(*names: str) -> Any:
    """List more files, each empty."""
    empty = hashlib.sha256(b"").hexdigest()
    return lambda raw: raw["files"].extend({"path": name, "bytes": 0, "sha256": empty, "rows": None} for name in names)


CASES: dict[str, Any] = {
    "stats null": lambda raw: raw.update(stats=None),
    "spec a list": lambda raw: raw.update(spec=[]),
    "spec null": lambda raw: raw.update(spec=None),
    "records a list": lambda raw: raw.update(records=[]),
    "records.sources 5": lambda raw: raw["records"].update(sources=5),
    "a source's bytes": lambda raw: raw["records"].update(
        sources=[{"path": "x", "bytes": "x", "mtime_ns": 1, "sha256": ""}]
    ),
    "input's path 5": lambda raw: raw["inputs"][0].update(path=5),
    "input's path nul": lambda raw: raw["inputs"][0].update(path="a\0b"),
    "inputs null": lambda raw: raw.update(inputs=None),
    "format_version x": lambda raw: raw.update(format_version="x"),
    "format_version null": lambda raw: raw.update(format_version=None),
    "format_version true": lambda raw: raw.update(format_version=True),
    "kind a list": lambda raw: raw.update(kind=["version"]),
    "path 5": first(path=5),
    "bytes x": first(bytes="x"),
    "bytes negative": first(bytes=-5),
    "rows x": first(rows="x"),
    "sha256 5": first(sha256=5),
    "path nul": first(path="a\0b"),
    "path a line's end": first(path="a\nb"),
    "path long": first(path="a" * 300),
    "path a lone surrogate": first(path="\ud800x"),
    "stats a lone surrogate": lambda raw: raw["stats"].update({"\udfff": 1}),
    "stats nested": lambda raw: raw["stats"].update(x=nested(200)),
    "spec very deep": lambda raw: raw["spec"].update(x=nested(900)),
    "stats no number": lambda raw: raw["stats"].update(x=float("nan")),
    "spec no number": lambda raw: raw["spec"].update(x=float("inf")),
    "a name of the unfinished manifest": listed("manifest.json.tmp"),
    "a name of an unfinished file": listed("config.json.tmp"),
    "a file in a file": listed("config.json/x"),
    "a file twice": listed("x", "x"),
    "no name": listed("."),
    "a model's name 5": lambda raw: raw["spec"].update(model=5, version=[]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_manifest_that_holds_what_no_version_has(case: str, there: Path, root: Path) -> None:
    evil(there, CASES[case])
    (there / "manifest.json.tmp").write_bytes(b"")
    with pytest.raises(ArtifactError):
        call(root, "pull", str(there), *(() if "model" in case else ("--name", "theirs")))
    assert [path.parent.name for path in root.glob("models/*/*/manifest.json")] == ["1.0.0"]
    call(root, "verify")
    (root / "models/theirs").mkdir(exist_ok=True)
    shutil.copytree(there, root / "models/theirs/1.0.0")  # by hand: every verb still says what is wrong
    for words in (("list",), ("log",)):
        call(root, *words)
    for words in (("verify",), ("show", "theirs:1.0.0"), ("prune", "base", "--keep", "1", "--dry-run")):
        with contextlib.suppress(GptcliError):
            call(root, *words)


@pytest.mark.parametrize("data", [b"[]", b"[" * 100_000, b"5", b"\xff", b"", b"{}"], ids=range(6))
def test_what_is_no_manifest(data: bytes, there: Path, root: Path) -> None:
    (there / "manifest.json").write_bytes(data)
    with pytest.raises(ArtifactError, match=r"manifest\.json cannot be read"):
        call(root, "pull", str(there), "--name", "theirs")
    with pytest.raises(ArtifactError, match=r"holds a manifest\.json that can't be read"):
        call(root, "push", "my-gpt:1.0.0", str(there.parents[1]))


@pytest.mark.parametrize("settings", [b"[]", b"{", b'{"base_model_name_or_path": 5}'], ids=["list", "half", "number"])
def test_an_adapter_s_settings_that_are_none(settings: bytes, there: Path, root: Path) -> None:
    """The version is taken: its bytes are those that its manifest lists."""
    (there / "adapter_config.json").write_bytes(settings)
    entry = {"path": "adapter_config.json", "bytes": len(settings), "sha256": hashlib.sha256(settings).hexdigest()}
    evil(there, lambda raw: raw["files"].append({**entry, "rows": None}))
    call(root, "pull", str(there), "--name", "theirs")
    with pytest.raises(GptcliError):
        call(root, "verify", "theirs:1.0.0")
    call(root, "push", "theirs:1.0.0", str(there.parents[2] / "further"))


def test_losses_that_are_none_are_shown_as_they_are(there: Path, root: Path, capsys: Any) -> None:
    evil(there, lambda raw: raw["stats"].update(val_loss="low", train_loss=[1]))
    call(root, "pull", str(there), "--name", "theirs")
    capsys.readouterr()
    call(root, "list")
    assert "low" in capsys.readouterr().out
    call(root, "show", "theirs:1.0.0")


def test_a_version_that_stands_is_checked(there: Path, root: Path) -> None:
    call(root, "pull", str(there), "--name", "theirs")
    path = root / "models/theirs/1.0.0" / WEIGHTS
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ArtifactError, match=rf"models/theirs/1\.0\.0 stands already and is damaged: {WEIGHTS}"):
        call(root, "pull", str(there), "--name", "theirs")
    path.write_bytes(data)
    call(root, "pull", str(there), "--name", "theirs")


def altered(place: Path, was: str, now: str) -> None:
    text = (place / "manifest.json").read_text()
    assert was in text
    (place / "manifest.json").write_text(text.replace(was, now, 1))


@pytest.mark.parametrize("what", ["records", "fields", "claim"])
def test_a_damaged_manifest_is_sent_again(there: Path, root: Path, what: str, capsys: Any) -> None:
    content = read_manifest(there).content_sha256
    was, now = {
        "records": ('"created": "', '"created": "9'),
        "fields": ('"with_trainer": false', '"with_trainer": true'),
        "claim": (content, "0" * 64),
    }[what]
    altered(there, was, now)
    capsys.readouterr()
    call(root, "push", "my-gpt:1.0.0", str(there.parents[1]), "--json")
    assert json.loads(capsys.readouterr().out)["sent"] == 1
    assert verify_files(there, read_manifest(there, "version")) == []
    call(root, "pull", str(there), "--name", "theirs")


def test_a_damaged_manifest_of_another_version_is_left(there: Path, root: Path) -> None:
    shutil.rmtree(root / "models")
    call(root, "tag", "base@100", "1.0.0")
    altered(there, '"created": "', '"created": "9')
    before = (there / "manifest.json").read_bytes()
    with pytest.raises(ArtifactError, match="holds another version of that number"):
        call(root, "push", "my-gpt:1.0.0", str(there.parents[1]))
    assert (there / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("words", [("push", "my-gpt:1.0.0", ""), ("pull", ""), ("pull", "  ")], ids=" ".join)
def test_no_place_was_named(there: Path, root: Path, words: tuple[str, ...]) -> None:
    with pytest.raises(SpecError, match="no place was named"):
        call(root, *words)


@pytest.mark.parametrize("place", ["/proc", "a file", "x" * 300])
def test_a_place_that_cannot_be_written(there: Path, root: Path, place: str) -> None:
    if place == "/proc" and not sys.platform.startswith("linux"):
        pytest.skip("no /proc here")
    (root / "a file").write_text("mine")
    with pytest.raises(SpecError, match=r"cannot be (written|reached|read): "):
        call(root, "push", "my-gpt:1.0.0", place)
    assert (root / "a file").read_text() == "mine"


def test_the_command_that_fetches_it_can_be_pasted(there: Path, root: Path, tmp_path: Path, capsys: Any) -> None:
    call(root, "push", "my-gpt:1.0.0", f"{tmp_path}/far away; ls")
    assert f"gptcli checkpoint pull '{tmp_path}/far away; ls/my-gpt/1.0.0'" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "far away; ls").iterdir()] == ["my-gpt"]
