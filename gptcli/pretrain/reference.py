"""Reference curves: what the loss does in runs of a preset on text that is on every machine.

`references/PRESET.json` was made by tests/bench/reference_curves.py: the smoothed training loss at some steps, its
mean over seeds, and a band around it. A run of the same recipe on the same kind of text is told whether it keeps to
it, which shows a broken installation, or a change that makes learning worse, within minutes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptcli.artifacts.manifest import read_manifest
from gptcli.artifacts.project import Project
from gptcli.errors import ArtifactError
from gptcli.pretrain.spec import PretrainSpec

FOLDER = Path(__file__).parent / "references"
# What may differ from the reference's run without moving its curve beyond the band.
FREE = ("steps", "seed", "tokens", "sample_tokens", "val_first", "val_every", "save_every", "keep", "keep_every")


@dataclass(frozen=True)
class Reference:
    """`losses` (nats a token) smoothed at `steps`, and half the `band`'s width there."""

    steps: list[int]
    losses: list[float]
    band: list[float]

    def tells(self, step: int, loss: float) -> str:
        """Where a run's smoothed loss lies at a step, in words; "" outside the reference's steps."""
        if not self.steps[0] <= step <= self.steps[-1]:
            return ""
        after = next(at for at, each in enumerate(self.steps) if each >= step)
        before = max(after - 1, 0)
        span = self.steps[after] - self.steps[before] or 1
        share = (step - self.steps[before]) / span if after else 0.0
        expected = _between(self.losses, before, after, share)
        width = _between(self.band, before, after, share)
        if abs(loss - expected) <= width:
            return f"within the expected {expected:.2f} ± {width:.2f}"
        return f"{'above' if loss > expected else 'below'} the expected {expected:.2f} ± {width:.2f}"


def _between(values: list[float], before: int, after: int, share: float) -> float:
    return values[before] + share * (values[after] - values[before])


def reference_for(spec: PretrainSpec, project: Project) -> Reference | None:
    """The curve that this run should follow; None where no reference has the same recipe and text."""
    path = FOLDER / f"{spec.preset}.json"
    if not spec.preset or not path.is_file():
        return None
    made: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    ours = spec.content()
    same = all(ours.get(key) == value for key, value in made["spec"].items() if key not in FREE)
    if not same or (spec.steps or spec.default_steps) != made["spec"]["steps"] or _text(spec, project) != made["text"]:
        return None
    return Reference(made["at"], made["losses"], made["band"])


def text_of(spec: PretrainSpec, project: Project) -> dict[str, Any]:
    """What decides the difficulty of a run's text: the corpus's sources and the size of the vocabulary."""
    tokens = read_manifest(project.place("tokens", spec.tokens), "tokens")
    corpus = next(entry for entry in tokens.inputs if entry.role == "corpus")
    sources = read_manifest(project.path(corpus.path), "corpus").spec["source"]
    return {"source": sources, "vocab_size": tokens.stats["vocab_size"]}


def _text(spec: PretrainSpec, project: Project) -> dict[str, Any] | None:
    try:
        return text_of(spec, project)
    except (ArtifactError, KeyError, StopIteration):  # the corpus need not be there any more
        return None
