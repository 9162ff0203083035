"""A disk that fills up: exit 4, what stands stays whole, and the same command goes on once there is room."""

from __future__ import annotations

import random
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

STAGES = {
    "corpus": (("corpus",), "corpus/main"),
    "tokenize": (("tokenize",), "tokens/main"),
    "pretrain": (("pretrain",), "runs/base"),
    "eval": (("eval", "base"), "evals/base"),
    "finetune-lora": (("finetune-lora", "--base", "base"), "runs/chat"),
    "export": (("export", "chat", "--to", "hf"), "exports/main"),
}
MOUNT = ["unshare", "-m", "sh", "-e", "-c"]


def can_mount() -> bool:
    try:
        probe = subprocess.run([*MOUNT, "mount -t tmpfs -o size=64k none /tmp"], capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return False
    return probe.returncode == 0


def untouched(chain: Any, stage: str, target: Path) -> Path:
    """The chain's project as it stood before a stage."""
    root: Path = chain.copy(target, until=stage)
    return root


def full_then_again(root: Path, stage: str, number: int, chain: Any, gptcli: Any, snapshot: Any, whole: Any) -> None:
    words, place = STAGES[stage]
    before = snapshot(root, whole=True)
    done = gptcli(root, *words, GPTCLI_TEST_FULL_AT=str(number))
    done.failed(4, "no space left on the disk")
    whole(root)
    after = snapshot(root, whole=True)
    assert {name: after.get(name) for name in before} == before
    gptcli(root, *words, expect=0)
    assert snapshot(root, below=place) == snapshot(chain.root, below=place)


@pytest.mark.parametrize("moment", ["first write", "later write"])
@pytest.mark.parametrize("stage", STAGES)
def test_no_space_left(stage, moment, chain, gptcli, snapshot, finished_names, tmp_path) -> None:
    last = len(chain.stages[stage].events)
    number = 1 if moment == "first write" else random.Random(stage).randint(2, last)
    root = untouched(chain, stage, tmp_path / "project")
    full_then_again(root, stage, number, chain, gptcli, snapshot, finished_names)


@pytest.mark.faults
@pytest.mark.parametrize("stage", STAGES)
def test_no_space_left_at_every_fifth_write(stage, chain, gptcli, snapshot, finished_names, tmp_path) -> None:
    for number in range(1, len(chain.stages[stage].events) + 1, 5):
        root = untouched(chain, stage, tmp_path / str(number))
        full_then_again(root, stage, number, chain, gptcli, snapshot, finished_names)
        shutil.rmtree(root)


SCRIPT = """
mount -t tmpfs -o size=512m none {disk}
cp -a {project}/. {disk}
cd {disk}
used=$(df --output=used -B1024 {disk} | tail -1)
mount -o remount,size=$((used + {room}))k {disk}
code=0; GPTCLI_TEST_FREE=1000000000000 {command} 2>{told} >&2 || code=$?
echo $code >> {told}
cp -a {disk} {full}
mount -o remount,size=512m {disk}
{command} >&2
cp -a {disk} {again}
"""


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "eval"])
def test_a_disk_that_is_really_full(stage, chain, gptcli, snapshot, finished_names, tmp_path) -> None:
    """In a memory disk of its own, too small for what the stage writes."""
    if not can_mount():
        pytest.skip("this user may not mount a tmpfs in a mount namespace of its own")
    words, place = STAGES[stage]
    needed = sum(path.stat().st_size for path in (chain.root / place).rglob("*") if path.is_file())
    root = untouched(chain, stage, tmp_path / "project")
    (tmp_path / "disk").mkdir()
    paths = {name: shlex.quote(str(tmp_path / name)) for name in ("disk", "project", "told", "full", "again")}
    room = int(random.Random(f"{stage} disk").uniform(0.2, 0.8) * needed) // 1024
    script = SCRIPT.format(**paths, room=room, command=shlex.join([*gptcli.command, *words]))
    done = subprocess.run([*MOUNT, script], env=gptcli.environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told = (tmp_path / "told").read_text()
    assert told.splitlines()[-1] == "4", told
    assert told.count("error: ") == 1 and "no space left on the disk" in told and "Traceback" not in told, told
    before, full = snapshot(root, whole=True), snapshot(tmp_path / "full", whole=True)
    finished_names(tmp_path / "full")
    assert {name: full.get(name) for name in before} == before
    assert snapshot(tmp_path / "again", below=place) == snapshot(chain.root, below=place)
