"""pretrain killed, stopped and starved in every way it computes: each setting ends as it does undisturbed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

SETTINGS = {
    "one rank": ("ranks=1", "threads=1"),
    "two ranks": ("ranks=2", "threads=0"),
    "bfloat16 in two ranks": ("ranks=2", "threads=0", "dtype=bfloat16", "global_batch_tokens=1024"),
    "compiled": ("compile=on", "ranks=1"),
}
ASIDE = ("save_every=3", "val_every=9", "sample_tokens=4")
KILLS, PARTS = 13, 2  # of each setting, for several test processes to share
MORE_SIGNALS = ("SIGINT", "SIGHUP")
LINUX = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks processes up in /proc")


class Pretraining:
    """The chain's tokens, trained on in one setting: undisturbed once, and then disturbed."""

    def __init__(self, chain: Any, gptcli: Any, snapshot: Any, home: Path) -> None:
        self.chain, self.gptcli, self.snapshot, self.home = chain, gptcli, snapshot, home
        self._undisturbed: dict[str, tuple[dict[str, str], float]] = {}

    def words(self, setting: str) -> list[str]:
        pairs = (*SETTINGS[setting], *ASIDE)
        return ["pretrain", *(word for pair in pairs for word in ("--set", pair))]

    def copy(self, target: Path) -> Path:
        root: Path = self.chain.copy(target, until="pretrain")
        return root

    def undisturbed(self, setting: str) -> tuple[dict[str, str], float]:
        """The run's files, and the seconds from the first thing on disk to the last."""
        if setting not in self._undisturbed:
            root = self.copy(self.home / setting)
            done = self.gptcli(root, *self.words(setting), expect=0)
            self._undisturbed[setting] = self.snapshot(root, below="runs"), done.events[-1][2]
        return self._undisturbed[setting]

    def start(self, root: Path, setting: str) -> subprocess.Popen[str]:
        """A run whose first file is on disk."""
        ready = root.parent / f"{root.name}.ready"
        process: subprocess.Popen[str] = self.gptcli.start(root, *self.words(setting), GPTCLI_TEST_READY=str(ready))
        wait_for(ready, process)
        return process

    def again(self, root: Path, setting: str) -> None:
        self.gptcli(root, *self.words(setting), expect=0)
        assert self.snapshot(root, below="runs") == self.undisturbed(setting)[0]


@pytest.fixture(scope="module")
def pretraining(chain: Any, gptcli: Any, snapshot: Any, tmp_path_factory: pytest.TempPathFactory) -> Pretraining:
    return Pretraining(chain, gptcli, snapshot, tmp_path_factory.mktemp("undisturbed"))


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    assert path.exists(), process.communicate()


def kill_at(pretraining: Pretraining, root: Path, setting: str, share: float, names: Any) -> None:
    _, span = pretraining.undisturbed(setting)
    process = pretraining.start(pretraining.copy(root), setting)
    time.sleep(share * span)
    process.kill()
    process.communicate(timeout=60)
    names(root)
    pretraining.again(root, setting)


@pytest.mark.parametrize("setting", ["two ranks"])
def test_killed_once(pretraining: Pretraining, finished_names: Any, tmp_path: Path, setting: str) -> None:
    kill_at(pretraining, tmp_path / "project", setting, random.Random(setting).random(), finished_names)


@pytest.mark.faults
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("setting", SETTINGS)
def test_killed_often(pretraining: Pretraining, finished_names: Any, tmp_path: Path, setting: str, part: int) -> None:
    draw = random.Random(f"{setting} {part}")
    for moment in range(part, KILLS, PARTS):
        kill_at(pretraining, tmp_path / str(moment), setting, draw.random(), finished_names)
        shutil.rmtree(tmp_path / str(moment))


def other_ranks(process: subprocess.Popen[str]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@LINUX
def test_a_rank_that_is_killed(pretraining: Pretraining, finished_names: Any, tmp_path: Path) -> None:
    root = pretraining.copy(tmp_path / "project")
    process = pretraining.start(root, "two ranks")
    wait_for(root / "runs/base/checkpoints/step-00000003", process)
    for pid in other_ranks(process):
        os.kill(pid, signal.SIGKILL)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 4 and "Traceback" not in told, told
    assert "error: a process that took part in the training died" in told
    finished_names(root)
    pretraining.again(root, "two ranks")


@LINUX
@pytest.mark.parametrize("name", ["SIGTERM", *(pytest.param(name, marks=pytest.mark.faults) for name in MORE_SIGNALS)])
def test_a_signal_to_all_of_its_processes(pretraining: Pretraining, tmp_path: Path, name: str) -> None:
    """As a terminal and a service manager send it: the ranks leave it to the first of them."""
    root = pretraining.copy(tmp_path / "project")
    process = pretraining.start(root, "two ranks")
    wait_for(root / "runs/base/checkpoints/step-00000003", process)
    sent = time.monotonic()
    for pid in [*other_ranks(process), process.pid]:
        os.kill(pid, signal.Signals[name])
    _, told = process.communicate(timeout=60)
    assert process.returncode == 75 and time.monotonic() - sent < 25, told
    assert "everything saved" in told
    pretraining.again(root, "two ranks")


@pytest.mark.faults
def test_stopped_while_it_compiles(pretraining: Pretraining, tmp_path: Path) -> None:
    """With nothing kept of earlier compilations, some seconds into the first step."""
    root = pretraining.copy(tmp_path / "project")
    words = pretraining.words("compiled")
    cold = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cold"), "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    process = pretraining.gptcli.start(root, *words, **cold)
    wait_for(root / "runs/base/metrics.jsonl", process)
    time.sleep(2)
    sent = time.monotonic()
    process.terminate()
    _, told = process.communicate(timeout=120)
    assert process.returncode == 75 and time.monotonic() - sent < 25, told
    pretraining.again(root, "compiled")


def test_two_processes_at_once(pretraining: Pretraining, tmp_path: Path) -> None:
    root = pretraining.copy(tmp_path / "project")
    first = pretraining.start(root, "one rank")
    first.send_signal(signal.SIGSTOP)  # or it may be done before the second has started
    try:
        second = pretraining.gptcli(root, *pretraining.words("one rank"))
    finally:
        first.send_signal(signal.SIGCONT)
    second.failed(3, str(first.pid))
    assert first.wait(timeout=120) == 0
    first.communicate()
    assert pretraining.snapshot(root, below="runs") == pretraining.undisturbed("one rank")[0]


@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_a_damaged_token_shard_is_refused(pretraining: Pretraining, tmp_path: Path, damage: str) -> None:
    root = pretraining.copy(tmp_path / "project")
    shard = root / "tokens/main/train-00000.arrow"
    data = bytearray(shard.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    else:
        del data[len(data) // 2 :]
    shard.unlink()  # never through a link into the chain
    shard.write_bytes(data)
    pretraining.gptcli(root, *pretraining.words("one rank")).failed(3, "tokens/main is damaged", "train-00000.arrow")


def test_a_damaged_checkpoint_names_the_way_out(pretraining: Pretraining, tmp_path: Path) -> None:
    root = pretraining.copy(tmp_path / "project")
    process = pretraining.start(root, "one rank")
    wait_for(root / "runs/base/checkpoints/step-00000006", process)
    process.terminate()
    process.communicate(timeout=60)
    last = max((root / "runs/base/checkpoints").glob("step-*"))
    weights = last / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    pretraining.gptcli(root, *pretraining.words("one rank")).failed(3, last.name, "damaged")
    shutil.rmtree(last)
    pretraining.again(root, "one rank")


def test_the_proof_of_a_resume(pretraining: Pretraining, tmp_path: Path) -> None:
    root = pretraining.copy(tmp_path / "project")
    before = pretraining.snapshot(root)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    words = ["--prove-resume", "--prove-steps", "4", "--json", "--set", "ranks=2", "--set", "threads=0"]
    done = pretraining.gptcli(root, "pretrain", *words, expect=0, TMPDIR=str(temporary))
    assert done.figures["equal"] is True and 0 < done.figures["killed_after_step"] < 4
    assert set(done.figures["sha256"]) == {"metrics.jsonl", "model.safetensors", "trainer/optimizer.safetensors"}
    assert pretraining.snapshot(root) == before and list(temporary.glob("gptcli-prove-*")) == []
    pretraining.gptcli(root, "pretrain", "--prove-resume", "--prove-steps", "2").failed(2, "--prove-steps 2")
    pretraining.gptcli(root, "pretrain", "--prove-resume", "--steps", "9").failed(2, "--steps would do nothing")
