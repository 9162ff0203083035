"""The reference curves that gptcli ships: runs of a preset with several seeds on the Python standard library.

usage: python tests/bench/reference_curves.py PRESET [SEEDS] [DIR]    (default: 3 seeds in .bench/reference)

Writes gptcli/pretrain/references/PRESET.json: the smoothed training loss at every tenth of the run and at its first
steps, the mean over the seeds, and a band of three standard deviations, at least 2 %: Python's versions have other
files, machines other roundings.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from gptcli.artifacts.project import Project
from gptcli.pretrain.reference import FOLDER, FREE, text_of
from gptcli.pretrain.spec import PretrainSpec
from gptcli.training.curve import smooth

RECIPE = '[corpus.main]\nsource = "python:stdlib"\n[tokenize.main]\nvocab_size = 4096\n'
LEAST = 0.02  # of the loss
POINTS = (20, 40, 60, 80, 100, 150, 200, 250, 300)


def gptcli(project: Path, *words: str) -> None:
    subprocess.run([sys.executable, "-m", "gptcli", *words, "-C", str(project)], check=True)


def curve(project: Path, preset: str, seed: int) -> tuple[dict[str, Any], list[float]]:
    """A run's spec and its smoothed losses at POINTS."""
    name = f"{preset.replace('.', '_')}-seed{seed}"
    gptcli(project, "pretrain", "--name", name, "--set", f"preset={preset}", "--set", f"seed={seed}")
    rows = [json.loads(line) for line in (project / "runs" / name / "metrics.jsonl").read_text().splitlines()]
    losses = [row["train_loss"] for row in rows if "train_loss" in row]
    spec = json.loads((project / "runs" / name / "manifest.json").read_text())["spec"]
    return spec, [smooth(losses[max(0, step - 100) : step])[-1] for step in POINTS]


def main(preset: str, seeds: int = 3, home: str = ".bench/reference") -> None:
    project = Path(home)
    project.mkdir(parents=True, exist_ok=True)
    (project / "recipe.toml").write_text(RECIPE)
    gptcli(project, "corpus")
    gptcli(project, "tokenize")
    curves = [curve(project, preset, seed) for seed in range(seeds)]
    at_points = list(zip(*(losses for _, losses in curves), strict=True))
    means = [statistics.mean(each) for each in at_points]
    band = [max(3 * statistics.stdev(each), LEAST * mean) for each, mean in zip(at_points, means, strict=True)]
    spec = {**curves[0][0], "steps": PretrainSpec.default_steps}
    made = {
        "spec": {key: value for key, value in spec.items() if key == "steps" or key not in FREE},
        "text": text_of(PretrainSpec(preset=preset), Project.open(project)),  # type: ignore[arg-type]
        "seeds": seeds,
        "at": list(POINTS),
        "losses": [round(mean, 4) for mean in means],
        "band": [round(each, 4) for each in band],
    }
    (FOLDER / f"{preset}.json").write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], *(int(word) for word in sys.argv[2:3]), *sys.argv[3:4])
