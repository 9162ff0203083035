"""The verbs on versions, killed: a registry is what it was or what it was to be, and the same command ends the work."""

from __future__ import annotations

import json
import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gptcli.artifacts.aliases import read_aliases, read_log
from gptcli.artifacts.locations import step_directories
from gptcli.artifacts.manifest import read_manifest, verify_files
from gptcli.artifacts.project import Project

MODEL = "my-gpt"
GATES = """\
[eval]
text = "tale.txt"
limit = 1
[gates]
fail_if = ["bits_per_byte > 50"]
"""
TALE = "Once upon a time there was a little cat. It was happy.\n"
VERBS: dict[str, tuple[str, ...]] = {
    "tag": ("tag", "base@2", "1.2.0", "--alias", "production", "--message", "why"),
    "bump": ("tag", "base@2", "--bump", "minor"),
    "alias": ("alias", "production", "1.0.0"),
    "delete": ("alias", "production", "--delete"),
    "rollback": ("rollback", "production"),
    "promote": ("promote", "base@2", "--gate", "gates.toml"),
    "prune": ("prune", "base", "--keep", "1"),
    "push": ("push", f"{MODEL}:1.1.0", "there"),
    "pull": ("pull", "elsewhere/theirs/1.0.0"),
}
QUICK = tuple(verb for verb in VERBS if verb != "promote")  # it starts a process that loads torch
MOMENTS = 2
MANY_MOMENTS = 12

State = tuple[Any, ...]


def state(root: Path) -> State:
    """What a registry says, without times: of each model its versions, aliases and log; checkpoints; what was pushed.

    All that has a final name is verified on the way.
    """
    project, found = Project.open(root), []
    for folder in sorted(root.glob("models/*")):
        versions = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        for path in versions:
            assert verify_files(path, read_manifest(path, "version")) == [], path
        log = [(entry["verb"], entry.get("version"), entry.get("alias"), entry.get("to")) for entry in read_log(folder)]
        if versions or log:  # else it only holds what a pull is bringing
            found.append((folder.name, [path.name for path in versions], read_aliases(project, folder.name), log))
    steps = step_directories(root / "runs" / "base")
    for path in steps.values():
        assert verify_files(path, read_manifest(path)) == [], path
    pushed = sorted(path.parent for path in root.glob("there/*/*/manifest.json"))
    for path in pushed:
        assert verify_files(path, read_manifest(path, "version")) == [], path
    return (found, sorted(steps), [path.name for path in pushed])


def agrees(root: Path) -> None:
    """aliases.json says what the log says, nothing half-made is left."""
    for folder in root.glob("models/*"):
        told = json.loads((folder / "aliases.json").read_text())
        assert told == read_aliases(Project.open(root), folder.name)
        assert (folder / "log.jsonl").read_bytes().endswith(b"\n")
        assert [path.name for path in folder.glob(".*")] == []
    assert [path.name for path in root.glob("runs/base/checkpoints/.*")] == []


@dataclass
class Registry:
    """A project with three checkpoints and two versions, and what each verb makes of it when nobody disturbs it."""

    root: Path
    gptcli: Any
    done: dict[str, tuple[State, tuple[tuple[str, str, float], ...], float]]

    def undisturbed(self, verb: str) -> tuple[State, tuple[tuple[str, str, float], ...], float]:
        """The state after a verb, its events, and the seconds from the first to its end."""
        if verb not in self.done:
            root = self.root.parent / verb / MODEL
            shutil.copytree(self.root, root)
            ended = self.gptcli(root, "checkpoint", *VERBS[verb], expect=0)
            self.done[verb] = (state(root), ended.events, ended.events[-1][2] if ended.events else 0.0)
        return self.done[verb]

    def killed(self, verb: str, target: Path, number: int) -> None:
        """SIGKILL right after the number-th event."""
        self._copy(verb, target)
        self.gptcli(target, "checkpoint", *VERBS[verb], expect=-9, GPTCLI_TEST_KILL_AT=str(number))
        self.judge(verb, target)

    def killed_at(self, verb: str, target: Path, share: float) -> None:
        """SIGKILL at a share of the time between the first and the last event."""
        self._copy(verb, target)
        ready = target.with_name(f"{target.name}.ready")
        process = self.gptcli.start(target, "checkpoint", *VERBS[verb], GPTCLI_TEST_READY=str(ready))
        while not ready.is_file() and process.poll() is None:
            time.sleep(0.001)
        time.sleep(share * self.undisturbed(verb)[2])
        process.kill()
        process.communicate(timeout=60)
        self.judge(verb, target)

    def _copy(self, verb: str, target: Path) -> None:
        """The project; for a promotion with the evaluation made, which has kills of its own elsewhere."""
        shutil.copytree(self.root, target)
        if verb == "promote":
            self.undisturbed(verb)
            shutil.copytree(self.root.parent / verb / MODEL / "evals", target / "evals")

    def judge(self, verb: str, root: Path) -> None:
        """The old state or the new, for readers and after the next start; the same command then leads to the new."""
        old, new = state(self.root), self.undisturbed(verb)[0]
        left = state(root)
        if verb == "prune":  # each checkpoint is there whole or not at all
            assert left[0] == old[0] and set(new[1]) <= set(left[1]) <= set(old[1])
        elif verb == "push":  # its line tells of a push that has succeeded
            assert left[2] in (old[2], new[2]) and left[0] in (old[0], new[0])
        else:
            assert left in (old, new)
        self.gptcli(root, "checkpoint", "alias", "other", f"{MODEL}:1.0.0", expect=0)  # the next start
        if verb in ("bump", "rollback", "delete") and left == new:
            agrees(root)  # these go one step further when they are called again
            return
        self.gptcli(root, "checkpoint", *VERBS[verb], expect=0)
        agrees(root)
        after = state(root)
        assert without_other(after) == new or verb == "push"
        assert after[1:] == new[1:]
        if verb == "prune":
            gone = [json.loads(line)["steps"] for line in (root / "runs/base/log.jsonl").read_text().splitlines()]
            assert sorted(step for steps in gone for step in steps) == [1]


def without_other(found: State) -> State:
    """A state without the alias that `judge` sets."""
    models = [
        (name, versions, {alias: to for alias, to in aliases.items() if alias != "other"}, remaining(log))
        for name, versions, aliases, log in found[0]
    ]
    return (models, *found[1:])


def remaining(log: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [entry for entry in log if entry[2] != "other"]


@pytest.fixture(scope="module")
def registry(data_dir: Path, gptcli: Any, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    root = tmp_path_factory.mktemp("registry") / MODEL
    root.mkdir()
    gptcli(root, "checkpoint", "import", str(data_dir / "stories260K-hf"), "--name", "base", expect=0)
    give_steps(root / "runs" / "base")
    (root / "gates.toml").write_text(GATES)
    (root / "tale.txt").write_text(TALE)
    gptcli(root, "checkpoint", "tag", "base@2", "1.0.0", "--as", "theirs", expect=0)
    gptcli(root, "checkpoint", "push", "theirs:1.0.0", "elsewhere", expect=0)
    shutil.rmtree(root / "models")
    gptcli(root, "checkpoint", "tag", "base@0", "1.0.0", "--alias", "production", expect=0)
    gptcli(root, "checkpoint", "tag", "base@0", "1.1.0", "--alias", "production", "--with-trainer", expect=0)
    return Registry(root, gptcli, {})


def give_steps(run: Path) -> None:
    """Two more checkpoints, of the same weights and of other contents."""
    first = run / "checkpoints" / "step-00000000"
    for step in (1, 2):
        place = first.with_name(f"step-{step:08d}")
        shutil.copytree(first, place)
        config = json.loads((place / "generation_config.json").read_text())
        write_checkpoint(place, {**config, "max_new_tokens": step}, step)


def write_checkpoint(place: Path, config: dict[str, Any], step: int) -> None:
    from dataclasses import replace

    from gptcli.artifacts.manifest import Inputs, list_files, make_manifest, write_manifest

    (place / "generation_config.json").write_text(json.dumps(config))
    made = read_manifest(place, "checkpoint")
    files = list_files(place, {})
    again = make_manifest("checkpoint", made.spec, Inputs(made.inputs), files, {**made.stats, "step": step}, {})
    write_manifest(place, replace(again, records=made.records))


@pytest.mark.parametrize("point", ["middle", "last"])
@pytest.mark.parametrize("verb", QUICK)
def test_killed_after_an_event(registry: Registry, tmp_path: Path, verb: str, point: str) -> None:
    count = len(registry.undisturbed(verb)[1])
    registry.killed(verb, tmp_path / MODEL, (count + 1) // 2 if point == "middle" else count)


@pytest.mark.parametrize("verb", ["tag", "push", "pull", "promote"])
def test_killed_at_a_random_moment(registry: Registry, tmp_path: Path, verb: str) -> None:
    registry.killed_at(verb, tmp_path / MODEL, random.Random(verb).random())


def test_a_promotion_is_killed_while_it_moves_the_alias(registry: Registry, tmp_path: Path) -> None:
    """After its last event but five: the version is about to get its name."""
    count = len(registry.undisturbed("promote")[1])
    registry.killed("promote", tmp_path / MODEL, count - 5)


@pytest.mark.faults
@pytest.mark.parametrize("verb", VERBS)
def test_killed_after_every_event(registry: Registry, tmp_path: Path, verb: str) -> None:
    for number in range(1, len(registry.undisturbed(verb)[1]) + 1):
        registry.killed(verb, tmp_path / str(number) / MODEL, number)
        shutil.rmtree(tmp_path / str(number))


@pytest.mark.faults
@pytest.mark.parametrize("verb", VERBS)
def test_killed_at_many_moments(registry: Registry, tmp_path: Path, verb: str) -> None:
    draw = random.Random(verb)
    for moment in range(MANY_MOMENTS if verb != "promote" else MOMENTS):
        registry.killed_at(verb, tmp_path / str(moment) / MODEL, draw.random())
        shutil.rmtree(tmp_path / str(moment))
