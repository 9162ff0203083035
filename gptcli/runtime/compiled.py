"""Loops over bytes and tokens, compiled to machine code by Numba once a machine.

The compiled code is kept beside the source, or in the user's cache folder where that can't be written (Numba's own
rule; NUMBA_CACHE_DIR names another). Where neither can be, every process compiles anew, some seconds. Kept code is told
from stale by its own file's time and size, so a function that others call best stands in their file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import numba
import numpy.typing as npt

try:
    import fcntl
except ImportError:  # no locks on this system
    fcntl = None  # type: ignore[assignment]

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """`function` compiled for the types of its first call, without Python's lock while it runs.

    No array bound is looked at and integers wrap: a caller gives arrays that are large enough.
    """
    make: Any = numba.njit
    try:
        found: Function = make(cache=True, nogil=True)(function)
    except RuntimeError:  # no folder for the cache
        return make(nogil=True)(function)  # type: ignore[no-any-return]
    _one_at_a_time(found)
    return found


def _one_at_a_time(function: Any) -> None:
    """Let one process at a time read or write what is kept of a function: Numba takes no lock, and writes an index
    before the code it names, so that another process could load the code of an older source under it."""
    kept = getattr(getattr(function, "_cache", None), "_cache_file", None)
    folder = getattr(kept, "_cache_path", None)
    if fcntl is None or folder is None:
        return
    for name in ("load", "save"):
        setattr(kept, name, _locked(getattr(kept, name), folder))


def _locked(work: Callable[..., Any], folder: str) -> Callable[..., Any]:
    @wraps(work)
    def locked(*arguments: Any) -> Any:
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except OSError:  # nothing is kept yet
            return work(*arguments)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            return work(*arguments)
        finally:
            os.close(descriptor)

    return locked


def inlined(function: Function) -> Function:
    """`function` for use in compiled ones, its code put where it is called: a call counts references to its arrays."""
    make: Any = numba.njit
    found: Function = make(inline="always")(function)
    return found


def readonly(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same array, not writeable through this view: compiled loops then have one type for all their callers."""
    view = array.view()
    view.flags.writeable = False
    return view
