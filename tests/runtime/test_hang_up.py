"""A terminal that is gone ends no work: what is shown is shown to nobody, and SIGHUP asks to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gptcli.errors import StoppedError
from gptcli.runtime.stop import Stop

WORK = """
import sys, time
from pathlib import Path
from gptcli.progress import Progress
progress = Progress()
with progress.bar("work", 10, "steps") as bar:
    Path("begun").touch()
    while not Path("gone").exists():
        time.sleep(0.01)
    for _ in range(10):
        bar.advance()
        bar.show(loss="1.0")
        progress.say("a line")
        time.sleep(0.11)
progress.warn("another")
Path("done").touch()
"""


def test_a_bar_outlives_its_terminal(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    env = {**os.environ, "TERM": "xterm", "CI": ""}
    process = subprocess.Popen(
        [sys.executable, "-c", WORK], cwd=tmp_path, env=env, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    shown = os.read(ours, 100)
    os.close(ours)
    (tmp_path / "gone").touch()
    process.wait(timeout=60)
    assert shown and (tmp_path / "done").exists()


def test_a_hang_up_asks_to_stop_unless_it_is_ignored() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        Stop().install()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        stop = Stop()
        stop.install()
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_signal_that_a_library_swallows_is_raised_again() -> None:
    stop = Stop()
    swallowed = 0
    with pytest.raises(StoppedError), stop.at_once():
        while True:
            try:
                if not stop.requested:
                    stop._receive(signal.SIGTERM, None)
                time.sleep(10)
            except StoppedError:
                swallowed += 1
                if swallowed == 2:
                    raise
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
