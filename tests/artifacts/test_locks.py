from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gptcli.artifacts.locks import is_held, lock
from gptcli.errors import ArtifactError

HOLD = """
import sys, time
from pathlib import Path
from gptcli.artifacts.locks import lock
with lock(Path(sys.argv[1]), "runs/base"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_by_pid_and_the_kernel_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "runs-base"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(ArtifactError, match=f"runs/base is busy: pid {holder.pid}"), lock(path, "runs/base"):
        pass
    assert is_held(path) == f"pid {holder.pid} on {os.uname().nodename}"
    holder.kill()
    holder.wait()
    with lock(path, "runs/base"):
        pass
    assert is_held(path) is None


def test_a_moment_s_look_refuses_nobody(tmp_path: Path) -> None:
    """Who asks whether a lock is held shares it for a moment; whoever takes it then waits."""
    path = tmp_path / "runs-base"
    path.write_text("pid 1 on a machine long gone\n")
    with path.open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.2, lambda: fcntl.flock(looking, fcntl.LOCK_UN)).start()
        with lock(path, "runs/base"):
            pass
    assert path.read_text() == ""  # nobody is named who no longer holds it
