"""Killed anywhere and run again is never killed: the same bytes, and no half-written folder under a final name."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
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
UNITS = "corpus/.main.units"  # the corpus's cleaned parts, kept for --update
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
        root = self._copy(target, stage)
        done = self.gptcli(root, *STAGES[stage], *more, GPTCLI_TEST_KILL_AT=str(number), GPTCLI_TEST_SIGNAL=signal)
        self._run_again(root, stage, more)
        return int(done.code)

    def at_moment(self, stage: str, target: Path, share: float, *more: str) -> None:
        """SIGKILL at a share of the time between the first and the last event, then the same command again."""
        root = self._copy(target, stage)
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

    def _copy(self, target: Path, stage: str) -> Path:
        root: Path = self.chain.copy(target, until=stage)
        return root

    def _run_again(self, root: Path, stage: str, more: tuple[str, ...]) -> None:
        self.finished_names(root)
        self.gptcli(root, *STAGES[stage], *more, expect=0)
        undisturbed = self.snapshot(self.chain.root)
        found = self.snapshot(root)
        assert found == {name: undisturbed.get(name) for name in found}
        missing = [name for name in undisturbed if name.startswith(f"{self._place(stage)}/") and name not in found]
        assert missing == []
        assert {path.relative_to(root).as_posix() for path in root.rglob(".*")} - {".gptcli"} <= {UNITS}

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
    old = snapshot(root, below="corpus/main")
    last = len(gptcli(root, *words, expect=0).events)
    new, units = snapshot(root, below="corpus/main"), snapshot(root, below=UNITS)
    assert old != new and units
    for number in range(last - 6, last + 1):
        root = chain.copy(tmp_path / str(number), until="tokenize")
        gptcli(root, *words, expect=-9, GPTCLI_TEST_KILL_AT=str(number))
        left = snapshot(root, below="corpus/main")
        assert left in (old, new, {}), number
        finished_names(root)
        gptcli(root, *words, expect=0)
        assert snapshot(root, below="corpus/main") == new
        assert snapshot(root, below=UNITS).items() >= units.items()  # beside them, perhaps, the old ones


WEB = tuple(f"web-{number}.jsonl" for number in range(8))
CLEANED = ("corpus", *WEB, "--set", 'filters=["gopher_quality", "c4"]', "--set", "workers=2")
CLEANED += ("--set", "repeated_paragraphs=80", "--set", "shard_bytes=60000")


@dataclass(frozen=True)
class Web:
    """A project with web pages in many units, some of them nearly the same, and its corpus made undisturbed."""

    root: Path
    span: float  # seconds from the first event to the last
    content_sha256: str

    def copy(self, target: Path, *, with_units: bool = False) -> Path:
        """Without the corpus."""
        left = ("main", ".gptcli") if with_units else ("corpus", ".gptcli")
        shutil.copytree(self.root, target, ignore=lambda _, children: [name for name in children if name in left])
        return target


@pytest.fixture(scope="module")
def made() -> dict[str, Web]:
    """What `web` has made once."""
    return {}


@pytest.fixture
def web(data_dir: Path, gptcli: Any, made: dict[str, Web], tmp_path_factory: pytest.TempPathFactory) -> Web:
    if "web" not in made:
        made["web"] = make_web(data_dir, gptcli, tmp_path_factory.mktemp("web") / "undisturbed")
    return made["web"]


def make_web(data_dir: Path, gptcli: Any, root: Path) -> Web:
    root.mkdir()
    rows = (data_dir / "c4-demo" / "c4_demo.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(row)["text"] for row in rows]
    texts = [again for number, text in enumerate(texts) for again in (text, f"{text} Read on.")[: 1 + number % 3 // 2]]
    for number, name in enumerate(WEB):
        lines = [json.dumps({"text": text}) + "\n" for text in texts[number :: len(WEB)]]
        (root / name).write_text("".join(lines), encoding="utf-8")
    done = gptcli(root, *CLEANED, "--json", expect=0)
    reasons = done.figures["left_out"]
    assert reasons["near_duplicate"] > 20 and any(name.startswith("filter:c4") for name in reasons), reasons
    assert any(name.startswith("filter:gopher_quality") for name in reasons), reasons
    assert len(list((root / UNITS).glob("*.done"))) == len(WEB)
    return Web(root, done.events[-1][2], done.figures["content_sha256"])


def kill_and_run_again(web: Web, root: Path, share: float, gptcli: Any, snapshot: Any, names: Any) -> None:
    ready = root.parent / f"{root.name}.ready"
    process = gptcli.start(root, *CLEANED, GPTCLI_TEST_READY=str(ready))
    while not ready.is_file() and process.poll() is None:
        time.sleep(0.002)
    time.sleep(share * web.span)
    process.kill()
    process.communicate(timeout=60)
    names(root)
    assert gptcli(root, *CLEANED, "--json", expect=0).figures["content_sha256"] == web.content_sha256
    assert snapshot(root) == snapshot(web.root)


def test_a_filtered_corpus_is_killed(web, gptcli, snapshot, finished_names, tmp_path) -> None:
    for moment in range(MOMENTS):
        share = random.Random(f"web {moment}").random()
        kill_and_run_again(web, web.copy(tmp_path / str(moment)), share, gptcli, snapshot, finished_names)


@pytest.mark.faults
@pytest.mark.parametrize("part", range(PARTS))
def test_a_filtered_corpus_is_killed_often(part, web, gptcli, snapshot, finished_names, tmp_path) -> None:
    for moment in range(MANY_MOMENTS // PARTS):
        share = random.Random(f"web {part} {moment}").random()
        kill_and_run_again(web, web.copy(tmp_path / str(moment)), share, gptcli, snapshot, finished_names)


def halved(data: bytearray, draw: random.Random) -> None:
    del data[len(data) // 2 :]


def flipped(data: bytearray, draw: random.Random) -> None:
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def damage_and_run_again(web: Web, root: Path, damage: Any, ending: str, gptcli: Any, snapshot: Any) -> None:
    """Damage one kind of file in every unit; one that a crash left unfinished stands beside it."""
    web.copy(root, with_units=True)
    draw = random.Random(f"{damage.__name__} {ending}")
    found = sorted((root / UNITS).glob(f"*.{ending}"))
    assert found
    for path in found:
        data = bytearray(path.read_bytes())
        damage(data, draw)
        path.write_bytes(data)
        path.with_name(f"{path.name}.tmp").write_bytes(data)
    gptcli(root, *CLEANED, "--set", "workers=1", expect=0)
    assert snapshot(root, below="corpus/main") == snapshot(web.root, below="corpus/main"), ending
    kept = snapshot(root, below=UNITS)
    assert {name: kept[name] for name in kept if not name.endswith(".tmp")} == snapshot(web.root, below=UNITS), ending


@pytest.mark.parametrize("damage", [halved, flipped])
@pytest.mark.parametrize("ending", ["text.arrow", "dropped.arrow", "bands", "paragraphs", "index.arrow", "done"])
def test_damaged_units_are_made_again(ending, damage, web, gptcli, snapshot, tmp_path) -> None:
    """A unit that a crash left half-written, or that went bad on the disk, never gets into a corpus."""
    damage_and_run_again(web, tmp_path / "damaged", damage, ending, gptcli, snapshot)


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
