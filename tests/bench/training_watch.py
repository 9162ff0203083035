"""A training process seen from outside: when each step ended, and what the whole process tree had used by then."""

from __future__ import annotations

import fcntl
import itertools
import os
import pty
import re
import select
import signal
import statistics
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

COLUMNS = 240  # wide enough that no line of progress wraps
HERTZ = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Mark:
    """The end of a step (counted from 1): seconds since the process began, CPU seconds of its tree so far."""

    step: int
    seconds: float
    cpu_seconds: float


@dataclass
class Watched:
    """What was seen. `peak_bytes`: proportional set size of the tree, so that a shared page counts once."""

    marks: list[Mark] = field(default_factory=list)
    peak_bytes: int = 0
    output: str = ""

    @property
    def first_step_seconds(self) -> float:
        return self.marks[0].seconds

    def step_seconds(self, warm_up: int) -> float:
        """The median over the steps after `warm_up` of them; raises ValueError where too few were seen."""
        timed = [mark for mark in self.marks if mark.step >= warm_up]
        pairs = itertools.pairwise(timed)
        return statistics.median((b.seconds - a.seconds) / (b.step - a.step) for a, b in pairs)

    def cpu_per_step(self, warm_up: int) -> float:
        timed = [mark for mark in self.marks if mark.step >= warm_up]
        return (timed[-1].cpu_seconds - timed[0].cpu_seconds) / (timed[-1].step - timed[0].step)


class Limit:
    """When enough has been seen: `steps` after the warm-up, or fewer (no less than 2) once they took `seconds`."""

    def __init__(self, warm_up: int, steps: int, seconds: float) -> None:
        self.warm_up, self.steps, self.seconds = warm_up, steps, seconds

    def is_reached(self, marks: list[Mark]) -> bool:
        timed = [mark for mark in marks if mark.step >= self.warm_up]
        if len(timed) < 3:
            return False
        return len(timed) > self.steps or timed[-1].seconds - timed[0].seconds >= self.seconds


def watch(
    command: Sequence[str],
    pattern: str,
    limit: Limit,
    *,
    cwd: Path | None = None,
    environment: dict[str, str] | None = None,
    first: int = 1,
    give_up: float = 600.0,
) -> Watched:
    """Run a command until it has told of enough steps, then end it and all below it.

    `pattern` finds a step's number (its first group) in what the command writes to a terminal; the first step's number
    is `first`. Raises RuntimeError with the end of its output when it ends before, or after `give_up` seconds.
    """
    os.sync()  # what an earlier run left to be written is not this one's
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    terminal = {"TERM": "xterm", "PYTHONUNBUFFERED": "1"}
    known = {key: value for key, value in os.environ.items() if key not in ("CI", "PYTHONDONTWRITEBYTECODE")}
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**known, **terminal, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
        start_new_session=True,  # its group is its own: ending the group ends nothing else
    )
    os.close(slave)
    seen = Watched()
    ended = threading.Event()
    memory = threading.Thread(target=_watch_memory, args=(process.pid, seen, ended))
    memory.start()
    try:
        while not limit.is_reached(seen.marks):
            text = _read(master)
            now = time.monotonic() - began
            if text is None or now > give_up:
                raise RuntimeError(f"{command[0]} was seen to end {len(seen.marks)} steps:\n{seen.output[-3000:]}")
            if text:
                _take(seen, text, pattern, now, process.pid, first)
    finally:
        ended.set()
        memory.join()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(master)
    return seen


def _read(master: int) -> str | None:
    """What the command has written, "" for nothing in half a second, None at its end."""
    if not select.select([master], [], [], 0.5)[0]:
        return ""
    try:
        return os.read(master, 65536).decode("utf-8", "replace") or None
    except OSError:  # every process that held the terminal has ended
        return None


def _take(seen: Watched, text: str, pattern: str, now: float, pid: int, first: int) -> None:
    seen.output += text
    numbers = [int(found) - first + 1 for found in re.findall(pattern, seen.output[-len(text) - COLUMNS :])]
    reached = max(numbers, default=0)
    if reached > (seen.marks[-1].step if seen.marks else 0):
        seen.marks.append(Mark(reached, now, tree_cpu_seconds(pid)))


def _watch_memory(pid: int, seen: Watched, ended: threading.Event) -> None:
    while not ended.wait(0.4):
        seen.peak_bytes = max(seen.peak_bytes, tree_bytes(pid))


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    children: list[int] = []
    for entry in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children += map(int, entry.read_text().split())
        except OSError:
            continue
    return [pid, *(each for child in children for each in tree(child))]


def tree_cpu_seconds(pid: int) -> float:
    """User and system time of a process, all below it, and those of them that have ended."""
    total = 0
    for each in tree(pid):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    return total / HERTZ


def tree_bytes(pid: int) -> int:
    """Proportional set size of a process and all below it: a page that several share is divided among them."""
    total = 0
    for each in tree(pid):
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total
