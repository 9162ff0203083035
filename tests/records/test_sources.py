from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from gptcli.errors import SpecError
from gptcli.records import sources
from gptcli.records.sources import expand, fingerprint, source_inputs
from gptcli.records.stdlib import STDLIB


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("books/b.txt", "books/a.txt", "books/sub/c.txt", "books/.hidden/d.txt", "books/.e", "x.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def names(typed: list[str], root: Path) -> list[str]:
    return [file.name for file in expand(typed, root)]


def test_files_folders_and_globs(root: Path) -> None:
    assert names(["x.jsonl", "books/"], root) == ["x.jsonl", "books/a.txt", "books/b.txt", "books/sub/c.txt"]
    assert names(["books/*.txt"], root) == ["books/a.txt", "books/b.txt"]
    assert names(["**/*.txt"], root) == ["books/a.txt", "books/b.txt", "books/sub/c.txt"]
    assert names(["b*"], root) == names(["books"], root)
    assert names([f"{root}/books/a.txt"], root) == [f"{root}/books/a.txt"]
    (root / "odd[1].txt").write_text("a name with a bracket is a name first")
    assert names(["odd[1].txt"], root) == ["odd[1].txt"]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("none.txt", r"no file none\.txt"),
        ("none/*.txt", r"no file matches none/\*\.txt"),
        ("s3://bucket/x", "s3://bucket/x is no source"),
        ("empty", "the folder empty holds no files"),
        ("pipe", "pipe is no regular file"),
        ("dangling", "no file dangling"),
        ("a\0b", "is no path"),
        ("~nobody-here/x", "is no path"),
    ],
)
def test_what_is_no_source(root: Path, typed: str, message: str) -> None:
    (root / "empty").mkdir()
    os.mkfifo(root / "pipe")
    (root / "dangling").symlink_to("nowhere")
    with pytest.raises(SpecError, match=message):
        expand([typed], root)


def test_nothing_given(root: Path) -> None:
    with pytest.raises(SpecError, match="no sources"):
        expand([], root)


AS_NOBODY = """
import os, sys
from pathlib import Path
from gptcli.errors import SpecError
from gptcli.records.sources import expand
import encodings.idna
if os.geteuid() == 0:
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
try:
    expand([sys.argv[2]], Path(sys.argv[1]))
except SpecError as error:
    print(error.message)
"""


@pytest.mark.parametrize(
    ("locked", "typed", "named"),
    [
        ("books/sub", "books", "books/sub"),
        ("books/sub", "books/sub", "books/sub"),
        ("books/sub", "books/sub/c.txt", "books/sub/c.txt"),
        ("books/sub", "**/*.txt", "books/sub"),
        ("books/sub", "books/*/*.txt", "books/sub"),
        ("books/a.txt", "books", "books/a.txt"),
        ("books/a.txt", "b*/a*", "books/a.txt"),
    ],
)
def test_what_may_not_be_read(locked: str, typed: str, named: str) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        root = Path(folder)
        (root / "books/sub").mkdir(parents=True)
        for name in ("books/a.txt", "books/b.txt", "books/sub/c.txt"):
            (root / name).write_text(name)
        root.chmod(0o755)
        (root / locked).chmod(0)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, folder, typed], capture_output=True, text=True, check=True
        )
        (root / locked).chmod(0o755)
    assert done.stdout.lower().strip() == f"cannot read {named}: permission denied"


def test_fingerprint_hashes_again_only_what_changed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = expand(["books", "books/a.txt"], root)
    first = fingerprint(files)
    assert [source.path for source in first] == ["books/a.txt", "books/b.txt", "books/sub/c.txt"]
    hashed: list[str] = []
    real = sources.sha256_file
    monkeypatch.setattr(sources, "sha256_file", lambda path: hashed.append(path.name) or real(path))
    assert fingerprint(files, first) == first and hashed == []
    (root / "books/b.txt").write_text("other words")
    second = fingerprint(files, first)
    assert hashed == ["b.txt"] and [a == b for a, b in zip(first, second, strict=True)] == [True, False, True]
    before, after = source_inputs(files, first), source_inputs(files, second)
    assert [entry.path for entry in before] == ["books", "books/a.txt"]
    assert before[0] != after[0] and before[1] == after[1]


def test_touching_a_file_changes_no_input(root: Path) -> None:
    files = expand(["books"], root)
    first = fingerprint(files)
    os.utime(root / "books/a.txt", ns=(1, 1))
    second = fingerprint(files, first)
    assert first != second and source_inputs(files, first) == source_inputs(files, second)


def test_stdlib() -> None:
    files = expand([STDLIB], Path())
    found = [file.name for file in files]
    assert found == sorted(found) and "python:stdlib/json/decoder.py" in found
    assert not any("/test/" in name or "site-packages" in name or "idlelib" in name for name in found)
    assert sum(file.path.stat().st_size for file in files) > 8_000_000


def test_sources_are_found_without_heavy_imports() -> None:
    """A stage that is done already imports this module, so it stays light."""
    code = (
        "import sys, gptcli.records.sources; print([m for m in ('torch', 'pyarrow', 'pydantic') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_names_that_are_no_utf8(root: Path) -> None:
    """A file name that is no UTF-8 can still be recorded."""
    path = Path(os.fsdecode(os.fsencode(root / "books") + b"/caf\xe9.txt"))
    try:
        path.write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert "books/caf\\xe9.txt" in json.loads(json.dumps(names(["books"], root)))
