from __future__ import annotations

import fcntl
import importlib.util
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

SOURCE = """
from gptcli.runtime.compiled import compiled, inlined


@inlined
def twice(value):
    return 2 * value


@compiled
def total(array):
    found = 0
    for value in array:
        found += twice(value)
    return found
"""

USED = """
from gptcli.runtime.compiled import inlined


@inlined
def times(value):
    return {factor} * value
"""
USER = """
import numpy as np
import used_by_a_test
from gptcli.runtime.compiled import compiled
from used_by_a_test import times


@compiled(fastmath=frozenset({"contract"}), uses=(used_by_a_test.__file__,))
def total(array):
    found = 0
    for value in array:
        found += times(value)
    return found
"""


@pytest.fixture
def module(tmp_path: Path) -> ModuleType:
    path = tmp_path / "kernels_of_a_test.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = found
    spec.loader.exec_module(found)
    return found


def test_code_is_kept_and_one_process_at_a_time_reads_or_writes_it(module: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "__pycache__"
    assert module.total(np.arange(4)) == 12 and list(folder.glob("*.nbc"))
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # as another process does while it writes
    done: list[int] = []
    caller = threading.Thread(
        target=lambda: done.append(module.total(np.arange(4.0)))
    )  # of other types: looked for anew
    caller.start()
    caller.join(0.5)
    assert caller.is_alive() and not done
    os.close(descriptor)
    caller.join(60)
    assert done == [12]


def test_without_a_folder_to_keep_code_in(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    import numba

    from gptcli.runtime.compiled import compiled

    real = numba.njit

    def refuse(**options: object) -> object:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return real(**options)

    monkeypatch.setattr(numba, "njit", refuse)
    assert compiled(module.total.py_func)(np.arange(4)) == 12


def test_code_is_stale_when_a_file_it_uses_has_changed(tmp_path: Path) -> None:
    (tmp_path / "used_by_a_test.py").write_text(USED.format(factor=2))
    (tmp_path / "user_of_a_test.py").write_text(USER)
    program = "import user_of_a_test as user; print(user.total(user.np.arange(4)))"
    found = []
    for factor in (2, 30):
        (tmp_path / "used_by_a_test.py").write_text(USED.format(factor=factor))
        place = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
        ran = subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": place}, capture_output=True, check=True
        )
        found.append(int(ran.stdout))
    assert found == [12, 180]
