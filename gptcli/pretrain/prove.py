"""`gptcli pretrain --prove-resume`: the run of a spec, short, once straight and once killed and taken up again.

In processes of their own and a temporary folder; nothing of the project changes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gptcli.artifacts.durable import sha256_file
from gptcli.artifacts.locations import resolve_model, step_directories
from gptcli.artifacts.project import Project
from gptcli.artifacts.rows import METRICS
from gptcli.console import Report
from gptcli.errors import GateError, GptcliError, SpecError, StoppedError
from gptcli.pretrain.spec import FOLDER, STAGE, PretrainSpec, tokens_manifest
from gptcli.progress import Progress
from gptcli.runtime.stop import Stop

LEAST_STEPS = 3
_LOOK = 0.001  # seconds between two looks at a process that is to be killed
_BUDGETS = {"epochs": 0, "budget_tokens": 0, "seconds": 0}
_COMPARED = ("model.safetensors", "trainer/optimizer.safetensors", "trainer/weights.safetensors")  # the last with ema


def prove_resume(
    spec: PretrainSpec, project: Project, name: str, steps: int, device: str, progress: Progress
) -> Report:
    """Hashes of the last checkpoint's weights and optimizer state and of the metrics, of both ways to step `steps`.

    A checkpoint after every step; SIGKILL in the step after half of them. Raises GateError where a hash differs,
    SpecError for too few steps, and whatever the training itself ends with.
    """
    if steps < LEAST_STEPS:
        raise SpecError(f"--prove-steps {steps}: at least {LEAST_STEPS}", f"--prove-steps {LEAST_STEPS}")
    tokens_manifest(spec.tokens, project)
    stop = Stop()
    stop.install()
    with tempfile.TemporaryDirectory(prefix="gptcli-prove-") as folder:
        ways = {way: _project(Path(folder) / way, spec, project, name, steps) for way in ("straight", "resumed")}
        _train(ways["straight"], name, steps, device, stop, progress)
        killed = _kill(ways["resumed"], name, steps // 2, device, stop, progress)
        _train(ways["resumed"], name, steps, device, stop, progress)
        hashes = {way: _hashes(root / FOLDER / name, steps) for way, root in ways.items()}
    straight, resumed = hashes["straight"], hashes["resumed"]
    unequal = [file for file in straight if straight[file] != resumed[file]]
    told = f"{steps} steps straight, and killed in step {killed + 1} and resumed"
    if unequal:
        raise GateError(
            f"{told}, are not equal: {', '.join(unequal)}",
            "on CUDA try --set deterministic=true; else please report it",
        )
    figures = {"steps": steps, "killed_after_step": killed, "equal": True, "sha256": straight}
    rows = [(file, f"{sha256}  equal") for file, sha256 in straight.items()]
    return Report(f"{STAGE} {name}: {told}, are equal", "", figures, rows)


def _project(root: Path, spec: PretrainSpec, project: Project, name: str, steps: int) -> Path:
    """A project of its own with the same inputs and, as its recipe, the spec for so many steps."""
    root.mkdir()
    (root / "tokens").symlink_to((project.root / "tokens").resolve())
    values: dict[str, Any] = {
        **spec.model_dump(exclude_unset=True),
        **_BUDGETS,
        "steps": steps,
        "save_every": 1,
        "val_every": 0,
        "keep": 2,
        "keep_every": 0,
    }
    if values.get("base"):  # a run, a version or a directory of the project that this one is not
        values["base"] = str(resolve_model(project, str(values["base"])).directory.resolve())
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    (root / "recipe.toml").write_text(f"[{STAGE}.{json.dumps(name)}]\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return root


def _start(root: Path, name: str, device: str) -> subprocess.Popen[str]:
    words = [STAGE, "-C", str(root), "--name", name, "--device", device, "--quiet"]
    return subprocess.Popen(
        [sys.executable, "-m", "gptcli", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a Ctrl-C is for this process, which ends them
    )


def _train(root: Path, name: str, steps: int, device: str, stop: Stop, progress: Progress) -> None:
    process = _start(root, name, device)
    with progress.bar(f"prove {root.name}", steps, "steps") as bar:
        try:
            while process.poll() is None:
                _check(stop)
                time.sleep(0.1)
                bar.advance(max(step_directories(root / FOLDER / name), default=0) - bar.done)
        finally:
            errors = _end(process)
    if process.returncode:
        _fail(process.returncode, errors)


def _kill(root: Path, name: str, step: int, device: str, stop: Stop, progress: Progress) -> int:
    """End a run by SIGKILL while it computes the step after `step`; the last step that was saved."""
    process = _start(root, name, device)
    run = root / FOLDER / name
    progress.say(f"prove {root.name}: to be killed in step {step + 1}")
    try:
        while process.poll() is None and max(step_directories(run), default=0) < step:
            _check(stop)
            time.sleep(_LOOK)
    finally:
        errors = _end(process)
    if process.returncode not in (0, -9):
        _fail(process.returncode, errors)
    if (run / "manifest.json").is_file():
        raise GptcliError(
            f"the run was at its end before it could be killed after step {step}", "use a larger --prove-steps"
        )
    return max(step_directories(run))


def _end(process: subprocess.Popen[str]) -> str:
    """SIGKILL, if it still runs; what it said on stderr."""
    process.kill()
    return process.communicate()[1]


def _check(stop: Stop) -> None:
    if stop.requested:
        raise StoppedError("stopped by a signal; nothing is left behind", "run the same command again")


def _fail(code: int, errors: str) -> None:
    """Pass a training's own error on."""
    told = [line for line in errors.splitlines() if line.startswith(("error: ", "  hint: "))]
    message = told[0].removeprefix("error: ") if told else f"the training ended with exit code {code}"
    hint = told[1].removeprefix("  hint: ") if len(told) > 1 else ""
    kinds = {kind.code: kind for kind in GptcliError.__subclasses__()}
    raise kinds.get(code, GptcliError)(message, hint)


def _hashes(run: Path, steps: int) -> dict[str, str]:
    last = step_directories(run)[steps]
    return {
        METRICS: sha256_file(run / METRICS),
        **{name: sha256_file(last / name) for name in _COMPARED if (last / name).is_file()},
    }
