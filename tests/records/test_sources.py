from __future__ import annotations

import json
import os
import random
import shutil
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
        ("s3://bucket/x", "s3://bucket/x is no local file"),
        ("http:x", "http:x is no source"),
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


def git(folder: Path, *words: str) -> str:
    quiet = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    return subprocess.run(["git", *words], cwd=folder, env=quiet, check=True, capture_output=True, text=True).stdout


def git_keeps(folder: Path) -> list[str]:
    """What git would have in a work tree, without hidden files and folders."""
    git(folder, "init", "-q")
    found = git(folder, "ls-files", "-coz", "--exclude-standard").split("\0")
    return sorted(path for path in found if path and not any(part.startswith(".") for part in path.split("/")))


def grow(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


CODE = ("a.py", "a.pyc", "build/x.py", "sub/a.pyc", "sub/build/x.py", "sub/keep.log", "sub/b.log", "docs/one/two/x.py")


@pytest.mark.skipif(shutil.which("git") is None, reason="compared with git")
@pytest.mark.parametrize(
    "rules",
    [
        {"": "*.pyc\n# a comment\n\nbuild/\n"},
        {"": "/build\n*.log\n!keep.log\n"},
        {"": "*.log\nbuild/\n", "sub": "!b.log\n!build/\n/a.pyc\n"},
        {"": "sub/\n", "sub": "!*\n"},  # nothing comes back from a folder that is left out
        {"": "*\n!*/\n!*.py\n"},
        {"": "/*\n!/docs\n/docs/*\n!/docs/one\n"},
        {"": "docs/**/x.py\n**/build\nsub/**\n!sub/keep.log\n"},
        {"": "[a-b].py*\r\n?.log \r\nd[!a-n]cs\r\n"},
        {"sub": "*.log\n"},
    ],
    ids=["names", "anchored", "nested", "closed", "only", "ladder", "deep", "classes", "below"],
)
def test_gitignore_as_git_has_it(tmp_path: Path, rules: dict[str, str]) -> None:
    grow(tmp_path, dict.fromkeys(CODE, "x"))
    grow(tmp_path, {f"./{folder}/.gitignore": text for folder, text in rules.items()})
    kept = git_keeps(tmp_path)
    assert 0 < len(kept) < len(CODE)
    assert [file.path.relative_to(tmp_path).as_posix() for file in expand([str(tmp_path)], tmp_path)] == kept


PIECES = (*"ab*?/!# é\\", "**", "[a-z]", "[!a]", "[]b]", "[[:alpha:]", "[b-a]", ".py")
PARTS = ("a", "b", "ab", "é", "a.py", "b.py", "[b", "#a", "!b", "b ")


@pytest.mark.skipif(shutil.which("git") is None, reason="compared with git")
@pytest.mark.parametrize("seed", range(12))
def test_any_gitignore_as_git_has_it(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    folders = ["."]
    for _ in range(6):
        folders.append(f"{draw.choice(folders)}/{draw.choice(PARTS)}")
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for folder in folders * 3:
        path = tmp_path / folder / draw.choice(PARTS)
        if not path.exists():
            path.write_text("x")
    for folder in draw.sample(folders, 2):
        lines = ["".join(draw.choices(PIECES, k=draw.randint(1, 4))) for _ in range(4)] + ["!/z"]
        (tmp_path / folder / ".gitignore").write_text("\n".join(lines))
    (tmp_path / "z").write_text("always there")
    kept = git_keeps(tmp_path)
    assert [file.path.relative_to(tmp_path).as_posix() for file in expand([str(tmp_path)], tmp_path)] == kept


def test_a_link_to_nothing_is_left_out_and_told(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("a")
    (tmp_path / "texts/gone.txt").symlink_to("nowhere")
    said: list[str] = []
    assert [file.name for file in expand(["texts"], tmp_path, say=said.append)] == ["texts/a.txt"]
    assert said == ["1 link to nothing left out of texts"]


def test_what_is_ignored_is_told(tmp_path: Path) -> None:
    grow(tmp_path / "code", {**dict.fromkeys(CODE, "x"), ".gitignore": "*.pyc\nbuild/\n"})
    said: list[str] = []
    expand(["code"], tmp_path, say=said.append)
    assert said == ["2 files and 2 folders ignored by .gitignore in code"]
    grow(tmp_path, {"code/.gitignore": "*\n"})
    with pytest.raises(SpecError, match=r"no files but those that its \.gitignore leaves out") as caught:
        expand(["code"], tmp_path)
    typed = caught.value.hint.split()[-1]
    assert names([typed], tmp_path) == sorted(f"code/{name}" for name in CODE)


def test_rules_of_a_repository_that_are_in_no_file_of_it(tmp_path: Path) -> None:
    grow(tmp_path, {"a.py": "x", "b.py": "x", ".git/info/exclude": "b.py\n"})
    assert names(["."], tmp_path) == ["./a.py"]


def test_a_gitignore_that_is_a_link_is_none(tmp_path: Path) -> None:
    grow(tmp_path, {"code/a.py": "x", "rules": "*.py\n"})
    (tmp_path / "code/.gitignore").symlink_to(tmp_path / "rules")
    assert names(["code"], tmp_path) == ["code/a.py"]


def test_what_gptcli_made_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "corpus" / "main").mkdir(parents=True)
    (tmp_path / "corpus" / "main" / "manifest.json").write_text('{"gptcli_version": "1"}')
    (tmp_path / "corpus" / "main" / "train-00000.arrow").write_text("x")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text("{}")
    told: list[str] = []
    found = expand(["."], tmp_path, say=told.append)
    assert [file.name for file in found] == ["./notes.txt", "./other/manifest.json"] and told == [
        "1 artifact of gptcli left out of ."
    ]
    with pytest.raises(SpecError, match="nothing but what gptcli made"):
        expand(["corpus"], tmp_path)
