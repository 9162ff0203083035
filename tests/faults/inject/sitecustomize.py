"""Put on the PYTHONPATH of a child process: it counts what must last on disk, and fails where it is told to.

An event is an os.fsync or an os.rename/os.replace of the main process (worker processes are left alone), counted
from 1 once it has happened. The environment says what to do:

GPTCLI_TEST_REPORT=PATH   at exit, write the events (kind, path, seconds since the first) and the heavy modules
                          that were loaded, as JSON
GPTCLI_TEST_KILL_AT=N     a signal to this process right after the N-th event: SIGKILL, or
GPTCLI_TEST_SIGNAL=NAME   this one
GPTCLI_TEST_FULL_AT=N     the N-th event raises OSError(ENOSPC) in place of happening, and so does each after it
GPTCLI_TEST_FREE=BYTES    shutil.disk_usage tells of that many free bytes
GPTCLI_TEST_READY=PATH    make this file at the first event (whoever waits for it knows that work is under way)
"""

from __future__ import annotations

import atexit
import errno
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HEAVY = ("torch", "pyarrow", "pydantic", "transformers", "numpy", "sentencepiece")

COMPILED = (".nbi", ".nbc")  # code that Numba keeps when a machine first uses a loop: no part of the work

events: list[tuple[str, str, float]] = []
began = 0.0


def watched(kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
    kill_at = int(os.environ.get("GPTCLI_TEST_KILL_AT", 0))
    full_at = int(os.environ.get("GPTCLI_TEST_FULL_AT", 0))
    number = signal.Signals[os.environ.get("GPTCLI_TEST_SIGNAL", "SIGKILL")]
    ready = os.environ.get("GPTCLI_TEST_READY")

    def call(*arguments: Any, **named: Any) -> Any:
        global began
        what = str(Path(f"/proc/self/fd/{arguments[0]}").readlink() if kind == "fsync" else arguments[1])
        if what.endswith(COMPILED):
            return real(*arguments, **named)
        began = began or time.monotonic()
        full = bool(full_at) and len(events) + 1 >= full_at
        done = None if full else real(*arguments, **named)
        events.append((kind, what, time.monotonic() - began))
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), what)
        if ready and len(events) == 1:
            Path(ready).touch()
        if len(events) == kill_at:
            os.kill(os.getpid(), number)
        return done

    return call


def report(path: str) -> None:
    told = {"events": events, "heavy": [name for name in HEAVY if name in sys.modules]}
    Path(path).write_text(json.dumps(told), encoding="utf-8")


def begin() -> None:
    if os.environ.setdefault("GPTCLI_TEST_MAIN", str(os.getpid())) != str(os.getpid()):
        return  # a worker
    os.fsync = watched("fsync", os.fsync)
    os.rename = watched("rename", os.rename)
    os.replace = watched("rename", os.replace)
    if "GPTCLI_TEST_FREE" in os.environ:
        free = int(os.environ["GPTCLI_TEST_FREE"])
        shutil.disk_usage = lambda path: shutil._ntuple_diskusage(free, 0, free)
    if "GPTCLI_TEST_REPORT" in os.environ:
        atexit.register(report, os.environ["GPTCLI_TEST_REPORT"])


begin()
