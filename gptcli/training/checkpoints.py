"""The checkpoints of one run: written as artifacts, kept by rule, taken up again on resume."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptcli.artifacts.build import SPEC, Build, repair
from gptcli.artifacts.durable import PENDING, replace, write_json
from gptcli.artifacts.locations import best_step, step_directories
from gptcli.artifacts.manifest import Manifest, read_manifest, verify_files
from gptcli.errors import ArtifactError
from gptcli.job import Job
from gptcli.models.weights import read_tensors, write_tensors
from gptcli.training.optimizer import Optimizers

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
    scheduled: Callable[[int], bool]  # is a checkpoint due at this step, or was it a signal's

    @property
    def directory(self) -> Path:
        return self.job.place / "checkpoints"

    def begin(self) -> None:
        """Make the run's container, or clear away what an interrupted process left in it."""
        started = self.job.place / SPEC
        if not started.is_file():
            inputs = [vars(entry) for entry in self.job.inputs.entries]
            write_json(started, {"kind": "run", "spec": self.spec, "inputs": inputs})
        self.directory.mkdir(exist_ok=True)
        for path in self.directory.glob(".step-*.old"):
            repair(self.directory / path.name[1:].removesuffix(".old"))
        for path in [*self.directory.glob(".*"), *self.job.place.glob(f"*{PENDING}")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def latest(self) -> tuple[int, Path] | None:
        """The highest finished step and its folder, every byte checked; ArtifactError when one is damaged."""
        steps = step_directories(self.job.place)
        if not steps:
            return None
        step = max(steps)
        problems = verify_files(steps[step], read_manifest(steps[step], "checkpoint"))
        if problems:
            raise ArtifactError(
                f"{self.job.project.relative(steps[step])} is damaged: {problems[0]}",
                f"delete that folder to go on from the checkpoint before it ({steps[step]})",
            )
        return step, steps[step]

    def save(
        self,
        step: int,
        stats: dict[str, Any],
        state: dict[str, Any],
        optimizers: Optimizers,
        write: Callable[[Path], None],
    ) -> Manifest:
        """Write one checkpoint; `write` puts the model's files into the folder it is given."""
        place = self.directory / step_name(step)
        build = Build.open(place, kind="checkpoint", spec=self.spec, inputs=self.job.inputs, say=self.job.progress.say)
        write(build.directory)
        write_tensors(build.directory / OPTIMIZER, optimizers.state())
        write_json(build.directory / STATE, {"step": step, **state})
        return build.commit({"step": step, **stats}, self.job.records())

    def prune(self) -> None:
        """Keep the latest `keep`, the best and the last.

        What a signal left counts as neither: it goes once a later one stands, and what is kept then is what an
        undisturbed run would have kept.
        """
        steps = step_directories(self.job.place)
        due = [step for step in steps if self.scheduled(step)]
        kept = {max(steps), *due[-max(self.keep, 1) :], *([best_step(self.job.place, due)] if due else [])}
        for step, path in steps.items():
            if step not in kept:
                discarded = path.with_name(f".{path.name}.discarded")
                replace(path, discarded)
                shutil.rmtree(discarded)


def load_state(directory: Path, optimizers: Optimizers) -> dict[str, Any]:
    """Take the optimizers' state up from a checkpoint; returns its state.json."""
    optimizers.load_state(read_tensors(directory / OPTIMIZER))
    state: dict[str, Any] = json.loads((directory / STATE).read_text(encoding="utf-8"))
    return state
