"""Versions sent to and fetched from folders, what fsspec opens, and a Hub that a test plays."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gptcli.artifacts.manifest import read_manifest, verify_files
from gptcli.checkpoint import stores
from gptcli.checkpoint.command import checkpoint
from gptcli.errors import ArtifactError, SpecError

WEIGHTS = "model.safetensors"


def call(root: Path, *words: str) -> None:
    checkpoint([*words, "-C", str(root)], standalone_mode=False)


def ask(root: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    call(root, *words, "--json")
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def same(one: Path, other: Path) -> bool:
    """Whether two versions are of one content, and both whole."""
    manifests = [read_manifest(path, "version") for path in (one, other)]
    assert [verify_files(path, found) for path, found in zip((one, other), manifests, strict=True)] == [[], []]
    return manifests[0].content_sha256 == manifests[1].content_sha256


@pytest.fixture
def version(root: Path) -> Path:
    """my-gpt:1.0.0, with a file in a folder."""
    call(root, "tag", "base@best", "1.0.0", "--with-trainer")
    return root / "models" / "my-gpt" / "1.0.0"


@pytest.fixture(params=["folder", "file", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An address to push to."""
    if request.param == "folder":
        yield str(tmp_path / "far away")
        return
    fsspec = pytest.importorskip("fsspec")
    yield f"file://{tmp_path}/far" if request.param == "file" else "memory://far"
    fsspec.filesystem("memory").store.clear()


def test_there_and_back(version: Path, root: Path, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    first = ask(root, capsys, "push", "my-gpt:latest", place)
    assert (first["sent"], first["address"]) == (4, f"{place}/my-gpt/1.0.0")
    again = ask(root, capsys, "push", "my-gpt:1.0.0", place)
    assert again["sent"] == 0 and again["title"].endswith("stands there already")
    for _ in range(2):
        found = ask(root, capsys, "pull", f"{place}/my-gpt/1.0.0", "--name", "theirs")
        assert found["path"] == "models/theirs/1.0.0" and same(version, root / "models/theirs/1.0.0")
    assert found["title"].endswith("stands already")
    log = ask(root, capsys, "log")["entries"]
    assert [(entry["verb"], entry["model"]) for entry in log] == [
        ("tag", "my-gpt"),
        ("push", "my-gpt"),
        ("pull", "theirs"),
    ]
    assert not list((root / "models" / "theirs").glob(".*"))


def test_a_version_is_never_overwritten(version: Path, root: Path, place: str) -> None:
    call(root, "push", "my-gpt:1.0.0", place)
    shutil.rmtree(version)
    call(root, "tag", "base@100", "1.0.0")
    with pytest.raises(ArtifactError, match=r"my-gpt/1\.0\.0 holds another version of that number"):
        call(root, "push", "my-gpt:1.0.0", place)
    with pytest.raises(ArtifactError, match=r"my-gpt:1\.0\.0 stands and is another than"):
        call(root, "pull", f"{place}/my-gpt/1.0.0")


class CutError(Exception):
    """Where a test cuts a transfer short."""


@pytest.mark.parametrize("after", range(6))
def test_what_has_come_is_not_sent_again(
    after: int, version: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    """Cut short before each rename in turn."""
    real, left = stores.replace, after

    def cut(source: Path, target: Path) -> None:
        nonlocal left
        if left == 0:
            raise CutError
        left -= 1
        real(source, target)

    there = tmp_path / "there" / "my-gpt" / "1.0.0"
    with monkeypatch.context() as patch:
        patch.setattr(stores, "replace", cut)
        if after < 5:
            with pytest.raises(CutError):
                call(root, "push", "my-gpt:1.0.0", str(tmp_path / "there"))
    assert not (there / "manifest.json").exists()
    assert ask(root, capsys, "push", "my-gpt:1.0.0", str(tmp_path / "there"))["sent"] == max(4 - after, 0) or after == 5
    assert same(version, there)
    left = after
    with monkeypatch.context() as patch:
        patch.setattr(stores, "replace", cut)
        if after < 4:
            with pytest.raises(CutError):
                call(root, "pull", str(there), "--name", "theirs")
            assert not (root / "models/theirs/1.0.0").exists()
    call(root, "pull", str(there), "--name", "theirs")
    assert same(version, root / "models/theirs/1.0.0") and not list((root / "models/theirs").glob(".*"))


def test_damage_there_is_found_and_mended(version: Path, root: Path, tmp_path: Path, capsys: Any) -> None:
    there = tmp_path / "there" / "my-gpt" / "1.0.0"
    call(root, "push", "my-gpt:1.0.0", str(tmp_path / "there"))
    data = bytearray((there / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (there / WEIGHTS).write_bytes(data)
    with pytest.raises(ArtifactError, match=rf"{WEIGHTS} is damaged"):
        call(root, "pull", str(there), "--name", "theirs")
    assert not (root / "models/theirs/1.0.0").exists()
    assert ask(root, capsys, "push", "my-gpt:1.0.0", str(tmp_path / "there"))["sent"] == 1 and same(version, there)
    text = (there / "manifest.json").read_text()
    (there / "manifest.json").write_text(text.replace('"created": "', '"created": "9'))
    with pytest.raises(ArtifactError, match="its bytes do not match its manifest_sha256"):
        call(root, "pull", str(there), "--name", "theirs")
    (there / "manifest.json").write_text(text)
    (there / WEIGHTS).unlink()
    with pytest.raises(ArtifactError, match=rf"{WEIGHTS} is missing"):
        call(root, "pull", str(there), "--name", "theirs")


def test_a_damaged_version_is_not_sent(version: Path, root: Path, tmp_path: Path) -> None:
    (version / "config.json").unlink()
    with pytest.raises(ArtifactError, match=r"damaged: config\.json: missing"):
        call(root, "push", "my-gpt:1.0.0", str(tmp_path / "there"))
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out", "manifest.json"])
def test_a_manifest_that_leads_elsewhere(name: str, version: Path, root: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from gptcli.artifacts.manifest import FileEntry, Inputs, make_manifest, write_manifest

    found = read_manifest(version)
    files = (*found.files, FileEntry(name, 1, "0" * 64))
    evil = make_manifest("version", found.spec, Inputs(found.inputs), files, {}, {})
    (tmp_path / "evil").mkdir()
    write_manifest(tmp_path / "evil", evil)
    with pytest.raises(ArtifactError, match="no name of a file in it"):
        call(root, "pull", str(tmp_path / "evil"), "--name", "theirs")
    write_manifest(tmp_path / "evil", replace(evil, stats={}, spec={**evil.spec, "version": "9.9.9"}))
    with pytest.raises(ArtifactError, match="does not match its own fields"):
        call(root, "pull", str(tmp_path / "evil"), "--name", "theirs")


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (("push", "base", "there"), SpecError, "base names no version"),
        (("push", "my-gpt:2.0.0", "there"), ArtifactError, r"no version 2\.0\.0"),
        (("push", "my-gpt:1.0.0", "s3://bucket/x", "--offline"), ArtifactError, "takes the network"),
        (("pull", "hf://me/it", "--offline"), ArtifactError, "takes the network"),
        (("pull", "hf://datasets/me/it/x"), SpecError, "names no model repository"),
        (("push", "my-gpt:1.0.0", "hf://me/it@v1"), SpecError, "names a revision"),
        (("pull", "nowhere"), ArtifactError, "no version stands at nowhere"),
        (("pull", "runs/base/checkpoints/step-00000100"), ArtifactError, "holds a checkpoint, not a version"),
        (("pull", "models/my-gpt/1.0.0", "--name", "../x"), ArtifactError, "can't name a model"),
        (("pull", "nosuch://x"), SpecError, "no address that can be opened"),
        (("pull", "sftp://me:secret@host/x"), SpecError, "sftp://host/x cannot be opened yet"),
    ],
)
def test_refusals(version: Path, root: Path, words: tuple[str, ...], error: type[Exception], message: str) -> None:
    pytest.importorskip("fsspec")
    if "sftp" in words[1] and __import__("importlib").util.find_spec("paramiko"):
        pytest.skip("paramiko is here")
    with pytest.raises(error, match=message) as caught:
        call(root, *words)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("package", "typed"), [("fsspec", "memory://x"), ("huggingface_hub", "hf://me/it")])
def test_a_package_that_is_missing_is_named(
    version: Path, root: Path, monkeypatch: pytest.MonkeyPatch, package: str, typed: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SpecError, match=f"needs the package {package}"):
        call(root, "push", "my-gpt:1.0.0", typed)


def test_an_adapter_names_its_base(adapter_run: Path, root: Path, tmp_path: Path, capsys: Any) -> None:
    call(root, "tag", "chat", "1.0.0", "--as", "chat")
    sent = ask(root, capsys, "push", "chat:1.0.0", str(tmp_path / "there"))
    assert sent["base"] == "runs/base/checkpoints/step-00000300"
    (root / "runs" / "base").rename(root / "runs" / "other")
    call(root, "pull", str(tmp_path / "there/chat/1.0.0"), "--name", "theirs")
    shown = capsys.readouterr().out
    assert f"base model {sent['base']} of the adapter models/theirs/1.0.0 is missing" in shown


class Hub:
    """What the Hub keeps of one repository: commits, each all of its files by name, branches and tags."""

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, bytes]] = {}
        self.refs: dict[str, str] = {}
        self.uploads: list[str] = []
        self.private: bool | None = None
        self.fails: set[str] = set()


def api_of(hub: Hub) -> type[Any]:
    """HfApi as far as it is used, on that repository."""
    import huggingface_hub

    class Api:
        def __init__(self, endpoint: str | None = None) -> None:
            self.endpoint = endpoint

        def create_repo(self, repo: str, *, private: bool, exist_ok: bool) -> None:
            assert exist_ok
            if hub.private is None:
                hub.private = private

        def model_info(self, repo: str, *, revision: str) -> Any:
            commit = hub.refs.get(revision, revision)
            if commit not in hub.commits:
                response: Any = SimpleNamespace(headers={}, status_code=404, request=None)
                raise huggingface_hub.errors.RevisionNotFoundError("no such revision", response=response)
            return SimpleNamespace(sha=commit)

        def list_repo_refs(self, repo: str) -> Any:
            return SimpleNamespace(branches=[SimpleNamespace(name="main")] if "main" in hub.refs else [])

        def list_repo_tree(self, repo: str, *, recursive: bool, revision: str) -> list[Any]:
            entries = [SimpleNamespace(path="trainer")]
            for name, data in hub.commits[hub.refs.get(revision, revision)].items():
                lfs = SimpleNamespace(sha256=hashlib.sha256(data).hexdigest()) if name == WEIGHTS else None
                blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
                entries.append(SimpleNamespace(path=name, blob_id=blob, lfs=lfs))
            return entries

        def create_commit(self, repo: str, operations: list[Any], *, commit_message: str) -> Any:
            files = dict(hub.commits.get(hub.refs.get("main", ""), {".gitattributes": b""}))
            for operation in operations:
                if hasattr(operation, "path_or_fileobj"):
                    files[operation.path_in_repo] = Path(operation.path_or_fileobj).read_bytes()
                    hub.uploads.append(operation.path_in_repo)
                else:
                    del files[operation.path_in_repo]
            commit = hashlib.sha1(f"{len(hub.commits)}".encode()).hexdigest()
            hub.commits[commit], hub.refs["main"] = files, commit
            return SimpleNamespace(oid=commit)

        def create_tag(self, repo: str, *, tag: str, revision: str) -> None:
            if "tag" in hub.fails:
                raise ConnectionError("the network went away")
            hub.refs[tag] = revision

    return Api


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    found = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, _, _, _, commit, name = self.path.split("/", 5)
            body = found.commits[commit][name]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Silent."""

    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setattr(huggingface_hub, "HfApi", api_of(found))
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_hub(version: Path, root: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    first = ask(root, capsys, "push", "my-gpt:1.0.0", "hf://me/it")
    assert (first["sent"], first["address"], hub.private) == (4, "hf://me/it@1.0.0", True)
    assert ask(root, capsys, "push", "my-gpt:1.0.0", "hf://me/it")["sent"] == 0 and len(hub.commits) == 1
    call(root, "tag", "base@100", "1.1.0")
    hub.uploads.clear()
    assert ask(root, capsys, "push", "my-gpt:1.1.0", "hf://me/it")["sent"] == 1
    assert sorted(hub.uploads) == ["manifest.json", WEIGHTS]
    assert "trainer/state.json" not in hub.commits[hub.refs["1.1.0"]]
    for typed, found in (("hf://me/it", "1.1.0"), ("hf://me/it@1.0.0", "1.0.0")):
        assert ask(root, capsys, "pull", typed, "--name", "theirs")["version"] == found
        assert same(root / "models/my-gpt" / found, root / "models/theirs" / found)
    assert not list((root / "models/theirs").glob(".*"))
    with pytest.raises(ArtifactError, match=r"no version stands at hf://me/it@3\.0\.0"):
        call(root, "pull", "hf://me/it@3.0.0")
    shutil.rmtree(version)
    call(root, "tag", "base@300", "1.0.0")
    with pytest.raises(ArtifactError, match="holds another version of that number"):
        call(root, "push", "my-gpt:1.0.0", "hf://me/it")


def test_a_push_to_the_hub_is_cut_short(version: Path, root: Path, hub: Hub, capsys: Any) -> None:
    hub.fails.add("tag")
    with pytest.raises(SpecError, match="cannot be tagged: the network went away"):
        call(root, "push", "my-gpt:1.0.0", "hf://me/it")
    hub.fails.clear()
    assert ask(root, capsys, "push", "my-gpt:1.0.0", "hf://me/it")["sent"] == 0
    assert len(hub.commits) == 1 and hub.refs["1.0.0"] == hub.refs["main"]


def test_the_hub_gives_other_bytes(version: Path, root: Path, hub: Hub) -> None:
    call(root, "push", "my-gpt:1.0.0", "hf://me/it")
    files = hub.commits[hub.refs["1.0.0"]]
    files[WEIGHTS] = bytes(len(files[WEIGHTS]))
    with pytest.raises(ArtifactError, match="SHA-256"):
        call(root, "pull", "hf://me/it", "--name", "theirs")
    with pytest.raises(ArtifactError, match="is not what was sent"):
        call(root, "push", "my-gpt:1.0.0", "hf://me/it")
