"""A command run to its end: its wall time, and the peak memory of it and all below it."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Run:
    seconds: float
    peak_bytes: int  # proportional set size (shared pages divided among their users) of the whole tree
    stdout: bytes


def measure(command: Sequence[str]) -> Run:
    """Run a command; raises CalledProcessError when it fails. Memory is looked at every tenth of a second."""
    os.sync()  # what an earlier run left to be written is not this one's
    began, peak = time.monotonic(), 0
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    answer: list[bytes] = []
    reader = threading.Thread(target=lambda: answer.append(process.stdout.read() if process.stdout else b""))
    reader.start()
    while process.poll() is None:
        peak = max(peak, tree_pss(process.pid))
        time.sleep(0.1)
    seconds = time.monotonic() - began
    reader.join()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(command), answer[0])
    return Run(seconds, peak, answer[0])


def tree_pss(pid: int) -> int:
    """Bytes of a process and all below it, as the kernel divides shared pages."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        own = next(line for line in lines if line.startswith("Pss:"))
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, StopIteration):
        return 0
    return 1024 * int(own.split()[1]) + sum(tree_pss(int(child)) for child in children)
