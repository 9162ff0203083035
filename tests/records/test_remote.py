from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gptcli.errors import ArtifactError, ResourceError, SpecError, StoppedError
from gptcli.records import downloads, standard_input, web
from gptcli.records.downloads import without_password
from gptcli.records.sources import SourceFile, expand, fingerprint, recorded_files, source_inputs

BODY = bytes(range(256)) * 4000  # 1,024,000 bytes
OTHER = BODY[::-1]
SHA256 = hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """A web server whose faults a test sets: what it does with the next requests, in order; then it behaves."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {"/books/a.txt": BODY}
        self.etag: str | None = '"one"'
        self.ranges = True
        self.plans: list[Callable[[Handler], bool]] = []  # True: this request is answered already
        self.cuts: list[int] = []  # the next answers break off after so many bytes
        self.pause = threading.Event()
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that clients broke are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        if self.server.plans and self.server.plans.pop(0)(self):
            return None
        body = self.server.files.get(self.path.partition("?")[0])
        if body is None:
            return self.answer(404)
        begin, wanted = 0, self.headers.get("Range")
        if wanted and self.server.ranges and self.headers.get("If-Range") in (None, self.server.etag):
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
        fields = {"Content-Length": str(len(body) - begin)}
        if self.server.etag:
            fields["ETag"] = self.server.etag
        if begin:
            fields["Content-Range"] = f"bytes {begin}-{len(body) - 1}/{len(body)}"
        cut = self.server.cuts.pop(0) if self.server.cuts else None
        return self.answer(206 if begin else 200, body[begin:][:cut], **fields)

    def answer(self, status: int, body: bytes = b"", **fields: str) -> None:
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        if "Content-Length" not in fields and "Transfer_Encoding" not in fields:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(web, "WAITS", (0.0, 0.0, 0.0))
    running = Server()
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    yield running
    running.pause.set()
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / ".gptcli" / "downloads"


def fetch(typed: str, cache: Path, **how: Any) -> SourceFile:
    (file,) = expand([typed], cache.parent, cache, **how)
    assert file.path.is_relative_to(cache)
    return file


def ranges(server: Server) -> list[str | None]:
    return [fields.get("Range") for _, fields in server.asked]


def status(code: int, **fields: str) -> Callable[[Handler], bool]:
    def plan(handler: Handler) -> bool:
        handler.answer(code, **fields)
        return True

    return plan


def test_a_download_is_kept_and_used_without_the_network(server: Server, cache: Path) -> None:
    url = f"{server.url}/books/a.txt"
    said: list[str] = []
    file = fetch(url, cache, say=said.append)
    assert (file.name, file.source, file.path.read_bytes()) == (url, url, BODY)
    assert file.path == cache / hashlib.sha256(url.encode()).hexdigest()[:16] / "a.txt"
    assert re.fullmatch(rf"downloaded {re.escape(url)}: 1\.0 MB in .*", said[0])
    assert said[1:] == [f"kept in {file.path.parent}, delete that to download again"]
    server.files["/books/a.txt"], server.etag = OTHER, '"two"'
    assert fetch(url, cache) == file and fetch(url, cache, offline=True) == file and len(server.asked) == 1
    assert file.path.read_bytes() == BODY


def test_offline_names_what_is_missing(server: Server, cache: Path) -> None:
    with pytest.raises(ArtifactError, match=r"a\.txt has not been downloaded yet"):
        fetch(f"{server.url}/books/a.txt", cache, offline=True)
    assert not server.asked and not cache.exists()


def test_commands_without_downloads(server: Server, tmp_path: Path) -> None:
    for typed in (f"{server.url}/books/a.txt", "-", "s3://bucket/x", "hf://datasets/a/b"):
        with pytest.raises(SpecError, match="reads only local files"):
            expand([typed], tmp_path)
    assert not server.asked


def test_it_goes_on_where_the_connection_broke(server: Server, cache: Path) -> None:
    server.cuts = [300_000, 200_000]
    file = fetch(f"{server.url}/books/a.txt", cache)
    assert file.path.read_bytes() == BODY
    assert ranges(server) == [None, "bytes=300000-", "bytes=500000-"]
    assert [fields.get("If-Range") for _, fields in server.asked] == [None, '"one"', '"one"']


def test_a_file_that_changed_meanwhile_comes_whole(server: Server, cache: Path) -> None:
    def change(handler: Handler) -> bool:
        server.files["/books/a.txt"], server.etag = OTHER, '"two"'
        return False

    server.cuts, server.plans = [300_000], [lambda handler: False, change]
    assert fetch(f"{server.url}/books/a.txt", cache).path.read_bytes() == OTHER
    assert ranges(server) == [None, "bytes=300000-"]


@pytest.mark.parametrize("lie", ["etag", "place", "total"])
def test_a_server_that_sends_another_files_rest_is_not_believed(server: Server, cache: Path, lie: str) -> None:
    def rest(handler: Handler) -> bool:
        begin, total = 300_000 - (lie == "place"), len(BODY) + (lie == "total")
        fields = {"Content-Range": f"bytes {begin}-{len(BODY) - 1}/{total}", "ETag": '"one"'}
        if lie == "etag":
            fields["ETag"] = '"two"'
        handler.answer(206, OTHER[begin:], **fields)
        return True

    server.cuts, server.plans = [300_000], [lambda handler: False, rest]
    assert fetch(f"{server.url}/books/a.txt", cache).path.read_bytes() == BODY
    assert ranges(server) == [None, "bytes=300000-", None]


@pytest.mark.parametrize("etag", ['"one"', 'W/"one"', None])
def test_without_ranges_or_a_validator_it_begins_again(server: Server, cache: Path, etag: str | None) -> None:
    server.etag, server.ranges, server.cuts = etag, etag != '"one"', [300_000]
    assert fetch(f"{server.url}/books/a.txt", cache).path.read_bytes() == BODY
    assert ranges(server) == [None, "bytes=300000-" if etag == '"one"' else None]


def test_a_date_is_a_validator_too(server: Server, cache: Path) -> None:
    date = formatdate(1_700_000_000, usegmt=True)

    def dated(handler: Handler) -> bool:
        handler.answer(200, BODY[:1000], **{"Content-Length": str(len(BODY)), "Last-Modified": date})
        return True

    server.plans, server.etag = [dated], date  # what If-Range is compared with
    assert fetch(f"{server.url}/books/a.txt", cache).path.read_bytes() == BODY
    assert server.asked[1][1]["If-Range"] == date


def test_passing_trouble_is_waited_for_and_told(server: Server, cache: Path) -> None:
    def reset(handler: Handler) -> bool:
        handler.connection.close()
        return True

    server.plans = [status(503), status(429), reset]
    said: list[str] = []
    assert fetch(f"{server.url}/books/a.txt", cache, say=said.append).path.read_bytes() == BODY
    assert len(server.asked) == 4 and "503" in said[0] and "429" in said[1] and "the connection broke" in said[2]


def test_trouble_that_lasts_ends(server: Server, cache: Path) -> None:
    server.plans = [status(503)] * 9
    with pytest.raises(SpecError, match=r"cannot download http.*a\.txt: the server answers 503"):
        fetch(f"{server.url}/books/a.txt", cache)
    assert len(server.asked) == 1 + len(web.WAITS)


@pytest.mark.parametrize("code", [404, 403, 401, 410])
def test_a_refusal_is_final(server: Server, cache: Path, code: int) -> None:
    server.plans = [status(code)]
    with pytest.raises(SpecError, match=rf"cannot download http.*a\.txt: the server answers {code}"):
        fetch(f"{server.url}/books/a.txt", cache)
    assert len(server.asked) == 1


def test_nobody_listens(server: Server, cache: Path) -> None:
    server.server_close()
    with pytest.raises(SpecError, match="the server cannot be reached"):
        fetch(f"{server.url}/books/a.txt", cache)


def test_checksums(server: Server, cache: Path) -> None:
    url = f"{server.url}/books/a.txt"
    wrong = f"{url}#sha256={'0' * 64}"
    with pytest.raises(ArtifactError, match=f"has the SHA-256 {SHA256}, not 000"):
        fetch(wrong, cache)
    assert [path.name for path in cache.rglob("a.txt*")] == [] and not list(cache.rglob("*.part"))
    file = fetch(f"{url}#sha256={SHA256.upper()}", cache)
    assert file.name == url and fetch(url, cache).path == file.path and len(server.asked) == 2
    with pytest.raises(ArtifactError, match="does not have the SHA-256 000"):
        fetch(wrong, cache, offline=True)
    file.path.write_bytes(b"changed by hand")
    assert fetch(f"{url}#sha256={SHA256}", cache).path.read_bytes() == BODY and len(server.asked) == 3
    with pytest.raises(SpecError, match="no whole SHA-256"):
        fetch(f"{url}#sha256=abc", cache)


def test_redirects_are_followed_and_credentials_stay_at_home(server: Server, cache: Path) -> None:
    other = Server()
    thread = threading.Thread(target=other.serve_forever, args=(0.01,))
    thread.start()
    try:
        server.plans = [status(302, Location="/second?x=1"), status(307, Location=f"{other.url}/books/a.txt")]
        typed = server.url.replace("http://", "http://me:s%40cret@") + "/first"
        said: list[str] = []
        file = fetch(typed, cache, say=said.append)
    finally:
        other.shutdown()
        thread.join()
        other.server_close()
    assert file.path.read_bytes() == BODY and file.name == file.source == f"{server.url}/first"
    sent = [fields.get("Authorization") for _, fields in server.asked + other.asked]
    assert sent == ["Basic bWU6c0BjcmV0", "Basic bWU6c0BjcmV0", None]
    kept = [path.read_text() for path in cache.rglob(".*.json")]
    assert "cret" not in str(said) + str(kept) + str(list(cache.rglob("*")))


def test_a_redirect_to_a_local_file_is_refused(server: Server, cache: Path) -> None:
    for target in ("file:///etc/hostname", "ftp://127.0.0.1/x"):
        server.plans = [status(302, Location=target)]
        with pytest.raises(SpecError, match="the server answers 302"):
            fetch(f"{server.url}/books/a.txt", cache)


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("http://u:p@host/x", "http://host/x"),
        ("https://token@host:8/x@y", "https://host:8/x@y"),
        ("http://u:p@ss@host/x?a=b@c", "http://host/x?a=b@c"),
        ("sftp://u:p@host/x", "sftp://host/x"),
        ("abfs://box@account.example/x", "abfs://box@account.example/x"),
        ("cannot read FTP://u:p@host/x: no", "cannot read FTP://host/x: no"),
    ],
)
def test_without_password(typed: str, shown: str) -> None:
    assert without_password(typed) == shown


@pytest.mark.parametrize("typed", ["http://u:cret@host:nan/x", "http://u:cret@/x", "https://u:cret@a..b/x"])
def test_an_address_that_is_none_shows_no_password(cache: Path, typed: str) -> None:
    with pytest.raises(SpecError) as caught:
        fetch(typed, cache)
    assert "cret" not in caught.value.message + caught.value.hint


def test_chunks_and_endless_answers(server: Server, cache: Path) -> None:
    """An answer without a length is whole when its last chunk came; one cut short is not."""
    chunk = b"3e8\r\n" + BODY[:1000] + b"\r\n"

    def chunked(tail: bytes) -> Callable[[Handler], bool]:
        def plan(handler: Handler) -> bool:
            handler.protocol_version = "HTTP/1.1"
            handler.send_response(200)
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            handler.wfile.write(chunk + tail)
            handler.close_connection = True
            return True

        return plan

    server.plans = [chunked(b""), chunked(b"zz\r\n"), chunked(b"0\r\n\r\n")]
    assert fetch(f"{server.url}/x", cache).path.read_bytes() == BODY[:1000]
    assert ranges(server) == [None, None, None]


def test_names_of_files(server: Server, cache: Path) -> None:
    for path in ("/a%20b/caf%C3%A9.txt", "/", "/.hidden", "/d/..%2Fx"):
        server.files[path] = b"x"
    typed = ["/a b/café.txt", "", "/.hidden", "/d/..%2Fx"]
    found = [fetch(server.url + path, cache) for path in typed]
    assert [file.path.name for file in found] == ["café.txt", "index", "hidden", "x"]
    assert [file.name for file in found] == [server.url + path for path in typed]


def test_a_full_disk_is_told_before(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(ResourceError, match=r"needs 1\.0 MB more"):
        fetch(f"{server.url}/books/a.txt", cache)


DOWNLOAD = """
import sys
from pathlib import Path
from gptcli.records.sources import expand
for file in expand([sys.argv[1]], Path(), Path(sys.argv[2]), say=lambda line: print(line, flush=True)):
    print(file.path, flush=True)
"""


def start(url: str, cache: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", DOWNLOAD, url, str(cache)], stdout=subprocess.PIPE, text=True)


def held(server: Server, count: int) -> Callable[[Handler], bool]:
    """Sends `count` bytes and then nothing more until the test lets go."""

    def plan(handler: Handler) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BODY)))
        handler.send_header("ETag", '"one"')
        handler.end_headers()
        handler.wfile.write(BODY[:count])
        handler.wfile.flush()
        server.pause.wait(20)
        handler.wfile.write(BODY[count:])
        return True

    return plan


def wait_for(ready: Callable[[], bool]) -> None:
    for _ in range(1000):
        if ready():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to that")


def part_bytes(cache: Path) -> int:
    return sum(path.stat().st_size for path in cache.rglob(".a.txt.part"))


def test_killed_and_run_again(server: Server, cache: Path) -> None:
    server.plans = [held(server, 786_432)]
    process = start(f"{server.url}/books/a.txt", cache)
    wait_for(lambda: part_bytes(cache) > 0)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    came = part_bytes(cache)
    assert not list(cache.rglob("a.txt"))
    assert fetch(f"{server.url}/books/a.txt", cache).path.read_bytes() == BODY
    assert ranges(server) == [None, f"bytes={came}-"]


def test_killed_between_the_last_byte_and_the_rename(server: Server, cache: Path) -> None:
    file = fetch(f"{server.url}/books/a.txt", cache)
    file.path.rename(downloads.beside(file.path, "part"))
    assert fetch(f"{server.url}/books/a.txt", cache).path.read_bytes() == BODY and len(server.asked) == 1


def test_two_processes_at_once(server: Server, cache: Path) -> None:
    server.plans = [held(server, 1000)]
    first = start(f"{server.url}/books/a.txt", cache)
    wait_for(lambda: len(server.asked) == 1)
    second = start(f"{server.url}/books/a.txt", cache)
    assert second.stdout is not None and "waiting for another process" in second.stdout.readline()
    server.pause.set()
    told = [process.communicate(timeout=20)[0] for process in (first, second)]
    assert (first.returncode, second.returncode, len(server.asked)) == (0, 0, 1)
    assert told[0].splitlines()[-1] == told[1].splitlines()[-1]


def test_inputs_of_downloads(server: Server, cache: Path) -> None:
    """Downloaded again with the same bytes, a source is the same input, and is found again without the network."""
    typed = [f"{server.url}/books/a.txt"]
    files = expand(typed, cache.parent, cache)
    sources = fingerprint(files)
    inputs = source_inputs(files, sources)
    os.utime(files[0].path, ns=(1, 1))
    assert source_inputs(files, fingerprint(files, sources)) == inputs and inputs[0].path == typed[0]
    from gptcli.artifacts.manifest import Inputs

    recorded = Inputs(inputs, sources)
    assert recorded_files(typed, cache.parent, recorded, "source", cache, offline=True) == files
    assert len(server.asked) == 1
    files[0].path.unlink()
    with pytest.raises(ArtifactError, match="has not been downloaded yet"):
        recorded_files(typed, cache.parent, recorded, "source", cache, offline=True)


class Piped(io.TextIOWrapper):
    """What `sys.stdin` is where something is piped in."""


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    def put(data: bytes) -> None:
        monkeypatch.setattr(standard_input, "_spooled", {})
        monkeypatch.setattr(sys, "stdin", Piped(io.BytesIO(data)))

    return put


def test_standard_input_is_read_once(pipe: Callable[[bytes], None], cache: Path) -> None:
    pipe(b"Some words.\n")
    first = fetch("-", cache)
    assert (first.name, first.path.read_bytes()) == ("-", b"Some words.\n")
    assert first.path.name == hashlib.sha256(b"Some words.\n").hexdigest()
    assert fetch("-", cache, offline=True) == first
    before = fingerprint([first])
    pipe(b"Some words.\n")
    assert fingerprint([fetch("-", cache)]) == before and len(list((cache / "stdin").iterdir())) == 1


@pytest.mark.parametrize(
    ("data", "ending"),
    [
        (b'\xef\xbb\xbf{"text": "a"}\n{"text": "b"}\n', ".jsonl"),
        (gzip.compress(b'{"text": "a"}\n', mtime=0), ".jsonl"),
        (b'[\n {"text": "a"}]', ".json"),
        (b'{"text": "' + b"a" * (1 << 21) + b'"}\n', ".jsonl"),
        (b'{"no row\n', ""),
        (b"{ braces }\n", ""),
        (b"[a note]\n", ""),
    ],
    ids=["rows", "gzip", "list", "long row", "broken", "braces", "note"],
)
def test_rows_from_standard_input(pipe: Callable[[bytes], None], cache: Path, data: bytes, ending: str) -> None:
    pipe(data)
    assert fetch("-", cache).path.suffix == ending


def test_nothing_on_standard_input(pipe: Callable[[bytes], None], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe(b"")
    with pytest.raises(SpecError, match="is empty"):
        fetch("-", cache)
    monkeypatch.setattr(Piped, "buffer", os.fdopen(os.openpty()[1], "rb", buffering=0), raising=False)
    with pytest.raises(SpecError, match="nothing is piped"):
        fetch("-", cache)
    assert not list(cache.rglob("*part"))


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    pytest.importorskip("fsspec")
    for name in ("a.txt", "b.txt", "deep/c.txt", "deep/.hidden"):
        path = tmp_path / "bucket" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"this is {name}")
    return tmp_path / "bucket"


def test_fsspec_files_folders_and_globs(bucket: Path, cache: Path) -> None:
    def found(typed: str, **how: Any) -> dict[str, str]:
        return {file.name: file.path.read_text() for file in expand([typed], bucket, cache, **how)}

    top = f"file://{bucket}"
    assert found(f"{top}/a.txt") == {f"{top}/a.txt": "this is a.txt"}
    assert list(found(top)) == [f"{top}/a.txt", f"{top}/b.txt", f"{top}/deep/c.txt"]
    assert list(found(f"{top}/*.txt")) == [f"{top}/a.txt", f"{top}/b.txt"]
    (bucket / "b.txt").write_text("another text")
    (bucket / "d.txt").write_text("come since")
    assert list(found(top, offline=True).values()) == ["this is a.txt", "this is b.txt", "this is deep/c.txt"]
    with pytest.raises(SpecError, match=r"no file .*none"):
        found(f"{top}/none*")
    with pytest.raises(ArtifactError, match="has not been downloaded yet"):
        found(f"{top}/deep", offline=True)


def test_fsspec_goes_on_with_the_same_version_only(bucket: Path, cache: Path) -> None:
    top = f"file://{bucket}"
    kept = fetch(f"{top}/a.txt", cache).path
    downloads.beside(kept, "part").write_bytes(kept.read_bytes()[:4])
    kept.unlink()
    assert fetch(f"{top}/a.txt", cache).path.read_text() == "this is a.txt"
    kept.unlink()
    (bucket / "a.txt").write_text("changed")
    with pytest.raises(SpecError, match=r"a\.txt changed since it was listed"):
        fetch(f"{top}/a.txt", cache)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is a Linux device")
def test_a_disk_that_fills_up(bucket: Path, cache: Path) -> None:
    kept = fetch(f"file://{bucket}/a.txt", cache).path
    kept.unlink()
    downloads.beside(kept, "part").symlink_to("/dev/full")
    with pytest.raises(ResourceError, match="no space left"):
        fetch(f"file://{bucket}/a.txt", cache)
    downloads.beside(kept, "part").unlink()
    assert fetch(f"file://{bucket}/a.txt", cache).path.read_text() == "this is a.txt"


def test_a_stop_asked_for_in_what_is_told(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is told may raise: what has come stays, and the next call goes on from there."""
    monkeypatch.setattr(downloads, "TELL_EVERY", 0.0)

    def stop(line: str) -> None:
        if "/s" in line:
            raise StoppedError("stopped", "run it again")

    with pytest.raises(StoppedError):
        fetch(f"{server.url}/books/a.txt", cache, say=stop)
    came = part_bytes(cache)
    assert 0 < came < len(BODY) and fetch(f"{server.url}/books/a.txt", cache).path.read_bytes() == BODY
    assert ranges(server) == [None, f"bytes={came}-"]


def test_fsspec_memory(cache: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").pipe({"/box/a.txt": b"a", "/box/b.txt": b"b"})
    assert fetch("memory://box/a.txt", cache).name == "memory://box/a.txt"
    files = expand(["memory://box/*.txt"], cache, cache)
    assert [file.path.read_bytes() for file in files] == [b"a", b"b"]


@pytest.mark.parametrize(
    ("typed", "message"), [("gopher://u:cret@host/x", "gopher://host/x is no source"), ("hf://models/x", "no dataset")]
)
def test_unknown_schemes(cache: Path, typed: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        fetch(typed, cache)
    assert "cret" not in caught.value.message and ("s3" in caught.value.hint or "hf://datasets" in caught.value.hint)


@pytest.mark.parametrize(("package", "typed"), [("fsspec", "memory://x"), ("huggingface_hub", "hf://datasets/a/b")])
def test_missing_packages(cache: Path, monkeypatch: pytest.MonkeyPatch, package: str, typed: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SpecError, match=package) as caught:
        fetch(typed, cache)
    assert "pip install 'gptcli[" in caught.value.hint


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """What the Hub answers for one dataset."""
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    files = {"README.md": b"about", ".gitattributes": b"", "data/a.jsonl": b'{"text": "a"}\n', "data/b c.txt": BODY}
    api = "/api/datasets/who/what"
    about = {"id": "who/what", "sha": COMMIT, "siblings": [], "private": False, "tags": [], "downloads": 0, "likes": 0}
    tree: list[dict[str, Any]] = [{"type": "directory", "path": "data", "oid": "0", "size": 0}]
    for name, body in files.items():
        entry: dict[str, Any] = {"type": "file", "path": name, "oid": "0", "size": len(body)}
        if body is BODY:
            entry["lfs"] = {"oid": SHA256, "size": len(body), "pointerSize": 1}
        tree.append(entry)
        server.files[f"/datasets/who/what/resolve/{COMMIT}/{name.replace(' ', '%20')}"] = body
    for revision in ("main", "v1"):
        server.files[f"{api}/revision/{revision}"] = json.dumps(about).encode()
    server.files[f"{api}/tree/{COMMIT}"] = json.dumps(tree).encode()
    return server


def test_hub_datasets(hub: Server, cache: Path) -> None:
    def names(typed: str, **how: Any) -> list[str]:
        return [file.name for file in expand([typed], cache, cache, **how)]

    top = "hf://datasets/who/what"
    assert names(top) == [f"{top}/data/a.jsonl", f"{top}/data/b c.txt"]
    asked = len(hub.asked)
    assert names(f"{top}/data/*.jsonl") == names(f"{top}/data/a.jsonl", offline=True) == [f"{top}/data/a.jsonl"]
    assert names(f"{top}/**/*.txt") == [f"{top}/data/b c.txt"]
    assert len(hub.asked) == asked
    assert names(f"{top}/README.md") == [f"{top}/README.md"]
    assert {fields.get("Authorization") for path, fields in hub.asked if "resolve" in path} == {"Bearer hf_secret"}
    with pytest.raises(SpecError, match=r"no file of .* matches none"):
        names(f"{top}/none")
    with pytest.raises(ArtifactError, match="has not been downloaded yet"):
        names(f"{top}@v1", offline=True)
    assert names(f"{top}@v1/data/a.jsonl") == [f"{top}@v1/data/a.jsonl"]


def test_hub_checksums_and_refusals(hub: Server, cache: Path) -> None:
    hub.files[f"/datasets/who/what/resolve/{COMMIT}/data/b%20c.txt"] = OTHER
    with pytest.raises(ArtifactError, match="SHA-256"):
        fetch("hf://datasets/who/what/data/b c.txt", cache)
    with pytest.raises(SpecError, match="cannot list hf://datasets/who/other") as caught:
        fetch("hf://datasets/who/other", cache)
    assert caught.value.hint == "check name and revision; for a private dataset set HF_TOKEN"
    hub.plans = [status(503)] * 9
    with pytest.raises(SpecError, match="503") as caught:
        fetch("hf://datasets/who/other", cache)
    assert caught.value.hint == "run it again later"
    with pytest.raises(SpecError, match="cannot list") as caught:
        fetch("hf://datasets/who/--other", cache)
    assert caught.value.hint == "check name and revision"


@pytest.mark.parametrize("host", ["http://127.0.0.1:9", "http://name.invalid"])
def test_hub_without_a_network(hub: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", host)
    with pytest.raises(SpecError, match="cannot list hf://datasets/who/what") as caught:
        fetch("hf://datasets/who/what", cache)
    assert caught.value.hint.startswith(f"check the network, and HF_ENDPOINT ({host})")


def test_hub_tells_a_line_a_file(hub: Server, cache: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        expand(["hf://datasets/who/what"], cache, cache, say=said.append)
    shown = [line.partition(" in ")[0] for line in said]
    (folder,) = cache.iterdir()
    assert said[0] == f"hf://datasets/who/what is at commit {COMMIT[:12]} with 4 files"
    assert shown[1:3] == [
        f"downloaded hf://datasets/who/what/data/{told}" for told in ("a.jsonl: 14 B", "b c.txt: 1.0 MB")
    ]
    assert said[3:] == [f"kept in {folder}, delete that to download again"]


PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs", "sftp": "paramiko", "smb": "smbprotocol"}


@pytest.mark.parametrize("scheme", PACKAGES)
def test_packages_of_file_systems(cache: Path, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    pytest.importorskip("fsspec")
    for module in ("s3fs", "gcsfs", "adlfs", "paramiko", "smbclient"):
        monkeypatch.setitem(sys.modules, module, None)
    for module in ("sftp", "smb"):
        monkeypatch.delitem(sys.modules, f"fsspec.implementations.{module}", raising=False)
    with pytest.raises(SpecError, match=f"^{scheme}://bucket/x needs the package {PACKAGES[scheme]}$") as caught:
        fetch(f"{scheme}://bucket/x", cache)
    assert caught.value.hint == f"pip install {PACKAGES[scheme]}"
