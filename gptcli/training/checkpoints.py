"""The checkpoints of one run: written as artifacts, kept by rule, taken up again on resume."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from gptcli.artifacts.build import SPEC, Build, repair
from gptcli.artifacts.durable import PENDING, discard, write_json
from gptcli.artifacts.locations import best_step, step_directories
from gptcli.artifacts.manifest import Manifest, read_manifest, verify_files
from gptcli.artifacts.usage import checkpoints_in_use
from gptcli.errors import ArtifactError
from gptcli.job import Job
from gptcli.models.weights import read_tensors, write_tensors
from gptcli.training.optimizer import Optimizers
from gptcli.training.setup import Setup

TRAINER = "trainer"
OPTIMIZER = f"{TRAINER}/optimizer.safetensors"
STATE = f"{TRAINER}/state.json"


def step_name(step: int) -> str:
    return f"step-{step:08d}"


@dataclass(frozen=True)
class Checkpoints:
    """Writes, keeps and finds the checkpoints of the run at `job.place`."""

    job: Job
    spec: dict[str, Any]
    keep: int  # the latest so many, besides the best and the last
    keep_every: int = 0  # and every step that this divides; 0: none

    @property
    def directory(self) -> Path:
        return self.job.place / "checkpoints"

    def begin(self) -> None:
        """Make the run's container, or clear away what an interrupted process left in it."""
        self.job.begin_place()
        started = self.job.place / SPEC
        if not started.is_file():
            inputs = [vars(entry) for entry in self.job.inputs.entries]
            write_json(started, {"kind": "run", "spec": self.spec, "inputs": inputs})
        self.directory.mkdir(exist_ok=True)
        for path in self.directory.glob(".step-*.old"):
            repair(self.directory / path.name[1:].removesuffix(".old"))
        for path in [*self.directory.glob(".*"), *self.job.place.glob(f"*{PENDING}")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._take_changes(started)

    def _take_changes(self, started: Path) -> None:
        """Go on with a spec that is not the one the run began with, and say so; spec.json tells when which key changed.

        What of a spec may change was settled before. From here on checkpoints carry the spec in force: they are what
        a run that began with it would have made.
        """
        told = json.loads(started.read_text(encoding="utf-8"))
        before, now = told["spec"], json.loads(json.dumps(self.spec))
        if before == now:
            return
        step = max(step_directories(self.job.place), default=0)
        changed = {key: (before.get(key), now.get(key)) for key in sorted(before.keys() | now.keys())}
        changed = {key: pair for key, pair in changed.items() if pair[0] != pair[1]}
        for key, (was, value) in changed.items():
            self.job.progress.warn(f"{self.job.name}: goes on with {key} {value}, was {was}")
        changes = [{"step": step, "key": key, "was": was, "now": value} for key, (was, value) in changed.items()]
        write_json(started, {**told, "spec": now, "changes": [*told.get("changes", []), *changes]})

    def adopt(self, setup: Setup) -> bool:
        """Let an interrupted run go on as it began: with its precision, threads and micro-batches.

        Whether there is such a run.
        """
        steps = {} if self.job.replaces else step_directories(self.job.place)
        if steps:
            for remark in setup.take_up(read_state(steps[max(steps)])["setup"]):
                self.job.progress.warn(f"{self.job.name}: {remark}")
        return bool(steps)

    def latest(self) -> tuple[int, Path] | None:
        """The highest finished step and its folder, every byte checked; ArtifactError when one is damaged."""
        steps = step_directories(self.job.place)
        if not steps:
            return None
        step = max(steps)
        return step, self.checked(steps[step])

    def checked(self, directory: Path) -> Path:
        """A checkpoint whose every byte is as it was written; ArtifactError when it is damaged."""
        problems = verify_files(directory, read_manifest(directory, "checkpoint"))
        if problems:
            raise ArtifactError(
                f"{self.job.project.relative(directory)} is damaged: {problems[0]}",
                f"delete that folder to go on from the checkpoint before it ({directory})",
            )
        return directory

    def back_to_scheduled(self, scheduled: Callable[[int], bool]) -> tuple[int, Path] | None:
        """The highest step of the schedule and its folder, those above it deleted; None where there is none.

        What a signal left above it was made in no undisturbed run; where something was made from it, it stays, and
        is the one returned.
        """
        steps = step_directories(self.job.place)
        above = {step for step in steps if not scheduled(step)}
        in_use = checkpoints_in_use(self.job.project) if above else set()
        wanted = [step for step, path in steps.items() if step not in above or path.resolve() in in_use]
        if not wanted:
            return None
        for step in sorted(step for step in steps if step > max(wanted)):
            discard(steps[step])
        return max(wanted), self.checked(steps[max(wanted)])

    def save(
        self,
        step: int,
        stats: dict[str, Any],
        state: dict[str, Any],
        learnt: dict[str, Tensor],
        write: Callable[[Path], None],
    ) -> Manifest:
        """Write one checkpoint; `write` puts the model's files into the folder it is given, `learnt` is the
        optimizers' state."""
        place = self.directory / step_name(step)
        build = Build.open(place, kind="checkpoint", spec=self.spec, inputs=self.job.inputs, say=self.job.progress.say)
        write(build.directory)
        write_tensors(build.directory / OPTIMIZER, learnt)
        write_json(build.directory / STATE, {"step": step, **state})
        return build.commit({"step": step, **stats}, self.job.records())

    def prune(self, scheduled: Callable[[int], bool]) -> None:
        """Keep the latest `keep`, the best, the last, every `keep_every`-th, and those that an adapter or a version
        was made from.

        What a signal left, at a step that is not `scheduled`, counts as neither: it goes once a later one stands,
        and what is kept then is what an undisturbed run would have kept.
        """
        steps = step_directories(self.job.place)
        due = [step for step in steps if scheduled(step)]
        kept = {max(steps), *due[-max(self.keep, 1) :], *([best_step(self.job.place, due)] if due else [])}
        kept.update(step for step in due if self.keep_every and step % self.keep_every == 0)
        leaving = [path for step, path in steps.items() if step not in kept]
        if leaving:
            try:
                in_use = checkpoints_in_use(self.job.project)
            except ArtifactError as error:
                self.job.progress.warn(f"no checkpoint is let go: {error.message}")
                return
            for path in leaving:
                if path.resolve() not in in_use:
                    discard(path)


def load_state(directory: Path, optimizers: Optimizers) -> dict[str, Any]:
    """Take the optimizers' state up from a checkpoint; returns its state.json."""
    optimizers.load_state(read_tensors(directory / OPTIMIZER))
    return read_state(directory)


def read_state(directory: Path) -> dict[str, Any]:
    """A checkpoint's state.json; ArtifactError when it can't be read."""
    try:
        state: dict[str, Any] = json.loads((directory / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{directory / STATE} cannot be read: {error}", f"delete {directory} to go on from the checkpoint before it"
        ) from error
    return state
