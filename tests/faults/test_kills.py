"""Killed anywhere and run again is never killed: the same bytes, and no half-written folder under a final name."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

STAGES = {
    "corpus": ("corpus",),
    "tokenize": ("tokenize",),
    "pretrain": ("pretrain",),
    "finetune-lora": ("finetune-lora", "--base", "base"),
    "export": ("export", "chat", "--to", "hf"),
}
POINTS = ("first fsync", "last fsync", "first rename", "last rename")
MOMENTS = 3
MANY_MOMENTS = 20
PARTS = 4  # of the long runs, for several test processes to share


class Disturbed:
    """Copies of the chain in which one stage is disturbed, then run again."""

    def __init__(self, chain: Any, gptcli: Any, snapshot: Any, finished_names: Callable[[Path], list[Path]]) -> None:
        self.chain, self.gptcli, self.snapshot, self.finished_names = chain, gptcli, snapshot, finished_names

    def events(self, stage: str) -> list[tuple[str, str, float]]:
        """The undisturbed stage's."""
        return list(self.chain.stages[stage].events)

    def after_event(self, stage: str, target: Path, number: int, *more: str, signal: str = "SIGKILL") -> int:
        """A signal right after the number-th event (from 1), then the same command again; the first exit code."""
        root = self.chain.copy(target, until=stage)
        done = self.gptcli(root, *STAGES[stage], *more, GPTCLI_TEST_KILL_AT=str(number), GPTCLI_TEST_SIGNAL=signal)
        self._run_again(root, stage, more)
        return int(done.code)

    def at_moment(self, stage: str, target: Path, share: float, *more: str) -> None:
        """SIGKILL at a share of the time between the first and the last event, then the same command again."""
        root = self.chain.copy(target, until=stage)
        ready = root.parent / f"{root.name}.ready"
        process = self.gptcli.start(root, *STAGES[stage], *more, GPTCLI_TEST_READY=str(ready))
        deadline = time.monotonic() + 120
        while not ready.is_file() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(share * self.events(stage)[-1][2])
        process.kill()
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            pytest.fail("a worker has outlived its parent: it still holds stdout")
        assert ready.is_file()
        self._run_again(root, stage, more)

    def _run_again(self, root: Path, stage: str, more: tuple[str, ...]) -> None:
        self.finished_names(root)
        self.gptcli(root, *STAGES[stage], *more, expect=0)
        undisturbed = self.snapshot(self.chain.root)
        found = self.snapshot(root)
        assert found == {name: undisturbed.get(name) for name in found}
        missing = [name for name in undisturbed if name.startswith(f"{self._place(stage)}/") and name not in found]
        assert missing == []
        assert [path for path in root.rglob(".*") if path.name != ".gptcli"] == []

    def _place(self, stage: str) -> str:
        return {
            "corpus": "corpus/main",
            "tokenize": "tokens/main",
            "pretrain": "runs/base",
            "finetune-lora": "runs/chat",
            "export": "exports/main",
        }[stage]


@pytest.fixture(scope="session")
def disturbed(chain: Any, gptcli: Any, snapshot: Any, finished_names: Callable[[Path], list[Path]]) -> Disturbed:
    return Disturbed(chain, gptcli, snapshot, finished_names)


def event_number(events: list[tuple[str, str, float]], point: str) -> int:
    """The number, from 1, of the "first fsync", "last rename" …"""
    which, kind = point.split()
    numbers = [number for number, event in enumerate(events, 1) if event[0] == kind]
    return numbers[0 if which == "first" else -1]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("stage", STAGES)
def test_killed_after_the_first_and_the_last(disturbed: Disturbed, tmp_path: Path, stage: str, point: str) -> None:
    number = event_number(disturbed.events(stage), point)
    assert disturbed.after_event(stage, tmp_path / "project", number) == -9


@pytest.mark.parametrize("moment", range(MOMENTS))
@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_a_random_moment(disturbed: Disturbed, tmp_path: Path, stage: str, moment: int) -> None:
    share = random.Random(f"{stage} {moment}").random()
    disturbed.at_moment(stage, tmp_path / "project", share)


@pytest.mark.parametrize("stage", ["corpus", "tokenize"])
def test_killed_with_workers(disturbed: Disturbed, tmp_path: Path, stage: str) -> None:
    """Workers end with their parent, and what they left is taken up or made again."""
    disturbed.at_moment(stage, tmp_path / "project", random.Random(stage).random(), "--set", "workers=2")


@pytest.mark.parametrize(("stage", "name"), [*((stage, "SIGTERM") for stage in STAGES), ("pretrain", "SIGINT")])
def test_stopped_by_a_signal(disturbed: Disturbed, tmp_path: Path, stage: str, name: str) -> None:
    assert disturbed.after_event(stage, tmp_path / "project", 1, signal=name) == 75


def test_killed_while_the_new_takes_the_place_of_the_old(
    chain: Any, gptcli: Any, snapshot: Any, finished_names: Callable[[Path], list[Path]], tmp_path: Path
) -> None:
    words = ("corpus", "--set", "min_chars=30", "--update")
    root = chain.copy(tmp_path / "undisturbed", until="tokenize")
    old = snapshot(root, below="corpus")
    last = len(gptcli(root, *words, expect=0).events)
    new = snapshot(root, below="corpus")
    for number in range(last - 6, last + 1):
        root = chain.copy(tmp_path / str(number), until="tokenize")
        gptcli(root, *words, expect=-9, GPTCLI_TEST_KILL_AT=str(number))
        left = snapshot(root, below="corpus/main")
        assert left in (old, new, {}), number
        finished_names(root)
        gptcli(root, *words, expect=0)
        assert snapshot(root, below="corpus") == new


@pytest.mark.faults
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("stage", STAGES)
def test_killed_after_every_event(disturbed: Disturbed, tmp_path: Path, stage: str, part: int) -> None:
    for number in range(1 + part, len(disturbed.events(stage)) + 1, PARTS):
        assert disturbed.after_event(stage, tmp_path / str(number), number) == -9, f"event {number}"
        shutil.rmtree(tmp_path / str(number))


@pytest.mark.faults
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_many_moments(disturbed: Disturbed, tmp_path: Path, stage: str, part: int) -> None:
    draw = random.Random(f"{stage} {part}")
    for moment in range(MANY_MOMENTS // PARTS):
        disturbed.at_moment(stage, tmp_path / str(moment), draw.random())


@pytest.mark.faults
@pytest.mark.parametrize("stage", STAGES)
def test_stopped_at_every_seventh_event(disturbed: Disturbed, tmp_path: Path, stage: str) -> None:
    """Saved and resumed, or finished where the signal came too late to matter."""
    for number in range(1, len(disturbed.events(stage)) + 1, 7):
        assert disturbed.after_event(stage, tmp_path / str(number), number, signal="SIGTERM") in (0, 75)
        shutil.rmtree(tmp_path / str(number))
