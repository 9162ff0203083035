"""`gptcli tokenize` killed, stopped or left with damaged units, and run again: what it would have made undisturbed."""

from __future__ import annotations

import ast
import json
import random
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gptcli import stage
from gptcli.artifacts.build import Build, partial_path
from gptcli.artifacts.manifest import read_manifest
from gptcli.options import Shared
from gptcli.tokenize.learning.train import count_words, train_model

PACKED = 'packing=[{seq_len=64}, {seq_len=32, how="concat", splits=["train", "val"]}]'
WAYS = {
    "trained": ("vocab_size=600", PACKED),
    "taken": ("tokenizer=./taken", PACKED),
    "unigram": ("vocab_size=600", 'model_type="unigram"'),
}
MANY_MOMENTS = 24
PARTS = 4  # of the long runs, for several test processes to share
# What is made lasting before each of these begins, or is just under way.
BEFORE = {
    "training": "training/words.done",
    "encoding": "units/tokenizer.done",
    "packing": "packing/train-bestfit-len64-seed0.arrow",
    "hashing": "packing/val-concat-len32-seed0.arrow",
    "the swap": ".main.partial/manifest.json",
    "the end": "tokens/main",
}


@dataclass(frozen=True)
class Undisturbed:
    """A project that holds a corpus, and what was made of it in each of WAYS."""

    root: Path
    gptcli: Any
    made: dict[str, tuple[str, list[tuple[str, str, float]]]]  # way → what `_make` gives

    def content(self, way: str) -> str:
        """Its content_sha256."""
        return self._make(way)[0]

    def events(self, way: str) -> list[tuple[str, str, float]]:
        """As the main process had them."""
        return self._make(way)[1]

    def _make(self, way: str) -> tuple[str, list[tuple[str, str, float]]]:
        if way not in self.made:
            done = self.gptcli(self.root, *command(way, "workers=1"), "--json", expect=0)
            self.made[way] = done.figures["content_sha256"], list(done.events)
            shutil.rmtree(self.root / "tokens")
        return self.made[way]

    def copy(self, target: Path) -> Path:
        shutil.copytree(self.root, target)
        return target

    def number(self, way: str, ending: str) -> int:
        """Of the first event of a path, from 1."""
        return min(number for number, event in enumerate(self.events(way), 1) if event[1].endswith(ending))


def command(way: str, *settings: str) -> list[str]:
    return ["tokenize", *(word for setting in (*WAYS[way], *settings) for word in ("--set", setting))]


@pytest.fixture(scope="module")
def undisturbed(write_texts: Any, gptcli: Any, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    root = tmp_path_factory.mktemp("undisturbed") / "project"
    root.mkdir()
    folder = Path(ast.__file__).parent
    names = ("ast.py", "inspect.py", "argparse.py", "heapq.py", "bisect.py")
    sources = [(folder / name).read_text(encoding="utf-8").splitlines(keepends=True) for name in names]
    shards = [(len(lines), lambda first, last, lines=lines: lines[first:last]) for lines in sources]
    write_texts(root, {"train": shards[:4], "val": shards[4:]})
    (root / "taken").mkdir()
    words = count_words([pa.array(sources[0], pa.large_string())])
    (root / "taken" / "tokenizer.model").write_bytes(train_model(words, vocab_size=500))
    return Undisturbed(root, gptcli, {})


def run_again(undisturbed: Undisturbed, way: str, root: Path, gptcli: Any, names: Callable[[Path], Any]) -> None:
    names(root)
    done = gptcli(root, *command(way), "--json", expect=0)
    assert done.figures["content_sha256"] == undisturbed.content(way)
    names(root)
    assert not partial_path(root / "tokens" / "main").exists()


def kill_at(share: float, undisturbed: Undisturbed, way: str, root: Path, gptcli: Any, *settings: str) -> None:
    ready = root.parent / f"{root.name}.ready"
    process = gptcli.start(root, *command(way, *settings), GPTCLI_TEST_READY=str(ready))
    while not ready.is_file() and process.poll() is None:
        time.sleep(0.002)
    time.sleep(share * undisturbed.events(way)[-1][2])
    process.kill()
    process.communicate(timeout=60)  # in vain where a worker has outlived its parent


@pytest.mark.parametrize(("way", "workers"), [("trained", 1), ("taken", 2)])
def test_killed_at_a_moment(way, workers, undisturbed, gptcli, finished_names, tmp_path) -> None:
    root = undisturbed.copy(tmp_path / "project")
    kill_at(random.Random(f"{way} {workers}").random(), undisturbed, way, root, gptcli, f"workers={workers}")
    run_again(undisturbed, way, root, gptcli, finished_names)


@pytest.mark.parametrize("before", ["packing", "the swap"])
def test_killed_before(before, undisturbed, gptcli, finished_names, tmp_path) -> None:
    kill_before(before, "trained", undisturbed, gptcli, finished_names, tmp_path / "project")


def kill_before(before: str, way: str, undisturbed: Undisturbed, gptcli: Any, names: Any, root: Path) -> None:
    undisturbed.copy(root)
    number = undisturbed.number(way, BEFORE[before])
    gptcli(root, *command(way, "workers=1"), expect=-signal.SIGKILL, GPTCLI_TEST_KILL_AT=str(number))
    assert (root / "tokens" / "main").exists() == (before == "the end")
    run_again(undisturbed, way, root, gptcli, names)


@pytest.mark.parametrize("before", ["training", "encoding"])
def test_stopped_before(before, undisturbed, gptcli, finished_names, tmp_path) -> None:
    """Workers encode, or were to: all end, and the same command goes on."""
    root = undisturbed.copy(tmp_path / "project")
    way, workers = ("taken", 2) if before == "encoding" else ("trained", 1)
    number = str(undisturbed.number(way, BEFORE[before]))
    words = command(way, f"workers={workers}")
    gptcli(root, *words, GPTCLI_TEST_KILL_AT=number, GPTCLI_TEST_SIGNAL="SIGTERM").failed(75, "stopped by a signal")
    assert (partial_path(root / "tokens" / "main") / "units").is_dir()
    run_again(undisturbed, way, root, gptcli, finished_names)


class Stopped(Exception):
    """In place of a commit."""


@pytest.fixture(scope="module")
def left(undisturbed: Undisturbed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose run ended before its last step."""
    root = undisturbed.copy(tmp_path_factory.mktemp("left") / "project")
    with pytest.MonkeyPatch.context() as patch:

        def commit(*_: Any) -> None:
            raise Stopped

        patch.setattr(Build, "commit", commit)
        with pytest.raises(Stopped):
            tokenize(root)
    return root


def tokenize(root: Path) -> str:
    shared = Shared(project=root, settings=[*WAYS["trained"], "workers=1"], quiet=True)
    stage.execute("tokenize", shared, {})
    return read_manifest(root / "tokens" / "main", "tokens").content_sha256


def halved(data: bytearray, draw: random.Random) -> None:
    del data[len(data) // 2 :]


def emptied(data: bytearray, draw: random.Random) -> None:
    del data[:]


def flipped(data: bytearray, draw: random.Random) -> None:
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


UNITS = (
    "train-00001.arrow",
    "train-00001.json",
    "train-00001.done",
    "tokenizer/tokenizer.model",
    "tokenizer/tokenizer.json",
    "tokenizer.done",
    "training/figures.json",
    "training/words.arrow",
    "training/words.done",
)


@pytest.mark.parametrize("damage", [halved, emptied, flipped])
@pytest.mark.parametrize("name", UNITS)
def test_a_damaged_unit_is_made_again(
    name: str, damage: Any, undisturbed: Undisturbed, left: Path, tmp_path: Path
) -> None:
    root = tmp_path / "project"
    shutil.copytree(left, root)
    units = partial_path(root / "tokens" / "main") / "units"
    data = bytearray((units / name).read_bytes())
    damage(data, random.Random(name))
    (units / name).write_bytes(data)
    if name.startswith("training/words"):
        (units / "tokenizer.done").unlink()  # or nobody would read the words again
    assert tokenize(root) == undisturbed.content("trained")


def test_units_of_another_tokenizer_are_made_again(undisturbed: Undisturbed, left: Path, tmp_path: Path) -> None:
    """As a release of sentencepiece that learns otherwise would leave them."""
    root = tmp_path / "project"
    shutil.copytree(left, root)
    units = partial_path(root / "tokens" / "main") / "units"
    told = json.loads((units / "train-00001.done").read_text())
    (units / "train-00001.done").write_text(json.dumps({**told, "made_from": "0" * 64}))
    before = (units / "train-00000.arrow").stat().st_ino
    assert tokenize(root) == undisturbed.content("trained")
    assert (root / "tokens/main/train-00000.arrow").stat().st_ino == before  # the others are taken up


def test_two_at_once(undisturbed: Undisturbed, gptcli: Any, finished_names: Any, tmp_path: Path) -> None:
    """On one name the second is refused, and changes nothing; another name is no concern of either."""
    root = undisturbed.copy(tmp_path / "project")
    ready = tmp_path / "ready"
    first = gptcli.start(root, *command("trained", "workers=1"), "--json", GPTCLI_TEST_READY=str(ready))
    while not ready.is_file() and first.poll() is None:
        time.sleep(0.002)
    first.send_signal(signal.SIGSTOP)
    try:
        gptcli(root, *command("trained")).failed(3, "busy", f"pid {first.pid}")
        other = gptcli.start(root, *command("taken"), "--name", "other", "--json")
    finally:
        first.send_signal(signal.SIGCONT)
    for process, way in ((first, "trained"), (other, "taken")):
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert json.loads(out)["content_sha256"] == undisturbed.content(way)
    finished_names(root)


@pytest.mark.faults
def test_no_folder_for_compiled_code(undisturbed: Undisturbed, gptcli: Any, tmp_path: Path) -> None:
    """A package and a home that can't be written: compiled anew, and the same bytes."""
    root = undisturbed.copy(tmp_path / "project")
    package = tmp_path / "readonly"
    shutil.copytree(Path(stage.__file__).parent, package / "gptcli", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "home").mkdir()
    for folder in (*package.rglob("*"), package, tmp_path / "home"):
        if folder.is_dir():
            folder.chmod(0o555)
    environment = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home" / "cache")}
    path = f"{package}:{gptcli.environment()['PYTHONPATH'].split(':')[0]}"
    try:
        done = gptcli(root, *command("taken"), "--json", expect=0, plain=True, PYTHONPATH=path, **environment)
    finally:
        for folder in (*package.rglob("*"), package, tmp_path / "home"):
            if folder.is_dir():
                folder.chmod(0o755)
    assert done.figures["content_sha256"] == undisturbed.content("taken")


@pytest.fixture
def many_words(write_texts: Any, tmp_path: Path) -> Path:
    """A corpus with so many distinct words that a process of its own learns from them."""
    root = tmp_path / "project"
    root.mkdir()
    draw = random.Random(1)
    letters = "etaoinshrdlucmfwypvbgk"
    texts = [" ".join("".join(draw.choices(letters, k=9)) for _ in range(1000)) for _ in range(400)]
    write_texts(root, {"train": [(200, lambda a, b: texts[a:b]), (200, lambda a, b: texts[200:][a:b])]})
    return root


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


@pytest.mark.faults
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_disturbed_while_a_child_trains(name: str, many_words: Path, gptcli: Any, tmp_path: Path) -> None:
    words = ["tokenize", "--vocab-size", "2000", "--json"]
    whole = gptcli(many_words, *words, expect=0).figures["content_sha256"]
    shutil.rmtree(many_words / "tokens")
    process: subprocess.Popen[str] = gptcli.start(many_words, *words)
    units = partial_path(many_words / "tokens" / "main") / "units"
    while not (units / "training" / "words.done").is_file() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(1.5)  # the child is up, and learns
    children = children_of(process.pid)
    assert children and not (units / "tokenizer").exists()
    process.send_signal(signal.Signals[name])
    _, err = process.communicate(timeout=60)
    assert process.returncode == (75 if name == "SIGTERM" else -9), err
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert gptcli(many_words, *words, expect=0).figures["content_sha256"] == whole


@pytest.mark.faults
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("part", range(PARTS))
def test_killed_at_many_moments(part, way, undisturbed, gptcli, finished_names, tmp_path) -> None:
    draw = random.Random(f"{way} {part}")
    for moment in range(MANY_MOMENTS // PARTS):
        root = undisturbed.copy(tmp_path / str(moment))
        kill_at(draw.random(), undisturbed, way, root, gptcli, f"workers={1 + moment % 2}")
        run_again(undisturbed, way, root, gptcli, finished_names)


@pytest.mark.faults
@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("way", ["trained", "taken"])
def test_killed_before_each_step(way, before, undisturbed, gptcli, finished_names, tmp_path) -> None:
    if (way, before) != ("taken", "training"):
        kill_before(before, way, undisturbed, gptcli, finished_names, tmp_path / "project")


@pytest.mark.parametrize("step", ["encoding", "packing", "hashing"])
def test_a_full_disk(step: str, undisturbed: Undisturbed, gptcli: Any, finished_names: Any, tmp_path: Path) -> None:
    root = undisturbed.copy(tmp_path / "project")
    number = undisturbed.number("taken", BEFORE[step]) + 1
    full = gptcli(root, *command("taken", "workers=1"), GPTCLI_TEST_FULL_AT=str(number))
    full.failed(4, "no space left on the disk")
    run_again(undisturbed, "taken", root, gptcli, finished_names)


REALLY_FULL = """
mount -t tmpfs -o size=256m none {disk}
cp -a {project}/. {disk}
cd {disk}
used=$(df --output=used -B1024 {disk} | tail -1)
mount -o remount,size=$((used + {room}))k {disk}
code=0; GPTCLI_TEST_FREE=1000000000000 {command} 2>{told} >&2 || code=$?
echo $code >> {told}
mount -o remount,size=256m {disk}
{command} --json > {again}
"""


@pytest.mark.parametrize("share", [0.3, 0.85])
def test_a_disk_that_is_really_full(share: float, undisturbed: Undisturbed, gptcli: Any, tmp_path: Path) -> None:
    """Workers write what they encode; or the packing indexes find no room."""
    probe = ["unshare", "-m", "sh", "-e", "-c", "mount -t tmpfs -o size=64k none /tmp"]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("this user may not mount a tmpfs in a mount namespace of its own")
    root = undisturbed.copy(tmp_path / "project")
    gptcli(root, *command("taken"), expect=0)
    needed = sum(path.stat().st_size for path in (root / "tokens").rglob("*") if path.is_file())
    shutil.rmtree(root / "tokens")
    (tmp_path / "disk").mkdir()
    paths = {name: str(tmp_path / name) for name in ("disk", "project", "told", "again")}
    words = shlex.join([*gptcli.command, *command("taken", "workers=2")])
    script = REALLY_FULL.format(**paths, room=int(share * needed) // 1024, command=words)
    done = subprocess.run([*probe[:-1], script], env=gptcli.environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = (tmp_path / "told").read_text()
    assert told.splitlines()[-1] == "4" and "no space left on the disk" in told and "Traceback" not in told, told
    assert json.loads((tmp_path / "again").read_text())["content_sha256"] == undisturbed.content("taken")
