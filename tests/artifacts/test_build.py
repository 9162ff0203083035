from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gptcli.artifacts.build import Build, old_path, partial_path, repair, set_aside
from gptcli.artifacts.durable import write_bytes
from gptcli.artifacts.manifest import MANIFEST, Input, Inputs, Source, read_manifest, verify_files
from gptcli.errors import ArtifactError

SOURCES = Inputs((Input("source", "a.txt", "00"),), (Source("a.txt", 1, 2, "ff"),))


def build(place: Path, text: str = "hello", spec: dict[str, int] | None = None) -> Build:
    made = Build.open(place, kind="corpus", spec=spec or {"a": 1}, inputs=SOURCES, say=lambda line: None)
    write_bytes(made.directory / "sub" / "text.txt", text.encode())
    return made


def test_an_artifact_appears_whole(tmp_path: Path) -> None:
    place = tmp_path / "main"
    made = build(place)
    assert not place.exists() and partial_path(place).is_dir()
    manifest = made.commit({"documents": 1}, {"seconds": 1.0}, {"sub/text.txt": 1})
    assert sorted(path.name for path in place.rglob("*")) == [MANIFEST, "sub", "text.txt"]
    assert not partial_path(place).exists()
    assert read_manifest(place, "corpus") == manifest
    assert manifest.files[0].rows == 1 and verify_files(place, manifest) == []
    assert manifest.sources() == SOURCES.sources


def test_records_stay_outside_the_hash_and_all_else_is_inside(tmp_path: Path) -> None:
    first = build(tmp_path / "a").commit({}, {"seconds": 1.0})
    assert build(tmp_path / "b").commit({}, {"seconds": 2.0, "workers": 4}).content_sha256 == first.content_sha256
    assert build(tmp_path / "c", text="other").commit({}, {}).content_sha256 != first.content_sha256
    assert build(tmp_path / "d", spec={"a": 2}).commit({}, {}).content_sha256 != first.content_sha256


def test_an_interrupted_build_keeps_its_units_and_only_them(tmp_path: Path) -> None:
    made = build(tmp_path / "main")
    write_bytes(made.units / "0.arrow", b"unit")
    (made.units / "1.arrow.tmp").write_bytes(b"half")
    again = Build.open(tmp_path / "main", kind="corpus", spec={"a": 1}, inputs=SOURCES, say=pytest.fail)
    assert again.resumed
    assert sorted(path.name for path in again.directory.rglob("*")) == ["0.arrow", "spec.json", "units"]


def test_an_interrupted_build_of_another_spec_starts_over_and_says_so(tmp_path: Path) -> None:
    write_bytes(build(tmp_path / "main").units / "0.arrow", b"unit")
    said: list[str] = []
    again = Build.open(tmp_path / "main", kind="corpus", spec={"a": 2}, inputs=SOURCES, say=said.append)
    assert not again.resumed and list(again.units.iterdir()) == [] and "started over" in said[0]


def test_a_swap_cut_short_is_repaired(tmp_path: Path) -> None:
    place = tmp_path / "main"
    build(place, "old").commit({}, {})
    build(place, "new").commit({}, {})
    assert (place / "sub/text.txt").read_text() == "new"
    # Killed after the old one stepped aside, the new one whole.
    shutil.copytree(place, partial_path(place))
    place.rename(old_path(place))
    repair(place)
    assert (place / "sub/text.txt").read_text() == "new" and not old_path(place).exists()
    # The same, the new one not whole: the old one comes back.
    place.rename(old_path(place))
    partial_path(place).mkdir()
    repair(place)
    assert (place / "sub/text.txt").read_text() == "new" and not old_path(place).exists()


def test_verify_names_what_is_wrong(tmp_path: Path) -> None:
    place = tmp_path / "main"
    manifest = build(place).commit({}, {})
    (place / "sub/text.txt").write_bytes(b"hellO")
    assert verify_files(place, manifest) == ["sub/text.txt: its bytes do not match their SHA-256"]
    (place / "sub/text.txt").write_bytes(b"hello!")
    assert "6 bytes" in verify_files(place, manifest)[0]
    (place / "sub/text.txt").unlink()
    assert "missing" in verify_files(place, manifest)[0]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda raw: raw | {"format_version": 99}, "newer than this gptcli"),
        (lambda raw: raw | {"surprise": 1}, "cannot be read"),
        (lambda raw: raw | {"kind": "tokens"}, "holds a tokens, not a corpus"),
    ],
)
def test_a_manifest_that_can_not_be_used(tmp_path: Path, change: object, match: str) -> None:
    build(tmp_path / "main").commit({}, {})
    path = tmp_path / "main" / MANIFEST
    path.write_text(json.dumps(change(json.loads(path.read_text()))))  # type: ignore[operator]
    with pytest.raises(ArtifactError, match=match):
        read_manifest(tmp_path / "main", "corpus")


class Killed(BaseException):
    """What no `except Exception` catches, as a kill."""


def die(*_: object, **__: object) -> None:
    raise Killed


def test_a_kill_while_files_are_hashed_loses_no_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = build(tmp_path / "main")
    write_bytes(made.units / "0.arrow", b"unit")
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr("gptcli.artifacts.manifest.sha256_file", die)
        made.commit({}, {})
    repair(tmp_path / "main")
    again = Build.open(tmp_path / "main", kind="corpus", spec={"a": 1}, inputs=SOURCES, say=pytest.fail)
    assert again.resumed and (again.units / "0.arrow").read_bytes() == b"unit"


@pytest.mark.parametrize("stands", [False, True], ids=["nothing stands", "an older one stands"])
@pytest.mark.parametrize("moment", ["shutil.rmtree", "gptcli.artifacts.build.replace"])
def test_a_kill_after_the_manifest_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stands: bool, moment: str
) -> None:
    place = tmp_path / "main"
    if stands:
        build(place, "old").commit({}, {})
    made = build(place, "new", {"a": 2})
    write_bytes(made.units / "0.arrow", b"unit")
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(moment, die)
        made.commit({}, {})
    assert not (place / "units").exists()
    repair(place)
    assert (place / "sub/text.txt").read_text() == "new"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["main", MANIFEST, "sub", "text.txt"]
    assert [entry.path for entry in read_manifest(place).files] == ["sub/text.txt"]


def test_a_foreign_folder_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr("gptcli.artifacts.build.replace", die)
        build(tmp_path / "main").commit({}, {})
    (tmp_path / "main").mkdir()
    (tmp_path / "main" / "thesis.txt").touch()
    repair(tmp_path / "main")
    assert [path.name for path in (tmp_path / "main").iterdir()] == ["thesis.txt"]


def test_a_build_begun_again_vouches_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever order its old files go in, its old manifest is not the last of them."""
    made = build(tmp_path / "main")
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr("gptcli.artifacts.build.replace", die)
        made.commit({}, {})
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr("shutil.rmtree", die)
        Build.open(tmp_path / "main", kind="corpus", spec={"a": 2}, inputs=SOURCES, say=print)
    assert (made.directory / "sub" / "text.txt").exists() and not (made.directory / MANIFEST).exists()


def test_what_is_set_aside_takes_the_first_free_number(tmp_path: Path) -> None:
    for _ in range(2):
        (tmp_path / "base").mkdir()
        set_aside(tmp_path / "base")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base.1", "base.2"]
