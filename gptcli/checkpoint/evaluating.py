"""Evaluations made for a promotion: `gptcli eval` as a process, of which only the files are read."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from gptcli.artifacts.durable import canonical_json
from gptcli.artifacts.project import Project
from gptcli.errors import (
    ArtifactError,
    DivergedError,
    GateError,
    GptcliError,
    ResourceError,
    SpecError,
    StoppedError,
)
from gptcli.runtime.executor import PR_SET_PDEATHSIG
from gptcli.scoring.evaluations import Evaluation, read_evaluation

_ERRORS = {
    kind.code: kind for kind in (SpecError, ArtifactError, ResourceError, GateError, DivergedError, StoppedError)
}
_ERROR, _HINT = "error: ", "  hint: "
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def evaluate(project: Project, ref: str, keys: dict[str, Any], device: str, say: Callable[[str], None]) -> Evaluation:
    """Evaluate a model by the given keys of an evaluation's spec; where that stands already, it is read.

    The evaluation's name has the model's and a hash of the keys in it, so that one made by other keys stays. Raises
    what the evaluation ended with, in its words and with its exit code.
    """
    digest = hashlib.sha256(canonical_json(toml_value(keys))).hexdigest()[:8]
    name = f"promote-{re.sub(r'[@:/]', '-', ref).strip('-.')}-{digest}"
    words = ["eval", ref, "--name", name, "--update", "--json", "--device", device]
    words += ["-C", str(project.root.absolute())]
    if project.recipe_path is not None:
        words += ["--recipe", str(project.recipe_path.absolute())]
    for key, value in keys.items():
        words += ["--set", f"{key}={toml_value(value)}"]
    _run(words, say)
    return read_evaluation(project.place("evals", name))


def _run(words: list[str], say: Callable[[str], None]) -> None:
    """Run gptcli to its end, or to this process's; its remarks are said on, its error is raised."""
    message, hint = "", ""
    command = [sys.executable, "-m", "gptcli", *words]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        preexec_fn=_ends_with(os.getpid()),
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(_ERROR):
                message = line.removeprefix(_ERROR).rstrip("\n")
            elif message and line.startswith(_HINT):
                hint = line.removeprefix(_HINT).rstrip("\n")
            else:
                say(line.rstrip("\n"))
        code = process.wait()
    finally:
        process.kill()
        process.wait()
    if code != 0:
        told = message.replace("(--set)", "([eval] of the gates file)")
        told = told or f"gptcli {words[0]} {words[1]} ended with {code} and said nothing"
        raise _ERRORS.get(code, GptcliError)(told, hint or f"gptcli {words[0]} {words[1]} shows more")


def _ends_with(parent: int) -> Callable[[], None] | None:
    """What the child does first: see to it that it does not outlive its parent, whose place another may have taken."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def begin() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return begin


def toml_value(value: Any) -> str:
    """A value that TOML gave, as TOML on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", escaped) + '"'
    if isinstance(value, list):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{toml_value(key)} = {toml_value(item)}' for key, item in value.items())}}}"
    return value.isoformat() if hasattr(value, "isoformat") else repr(value)
