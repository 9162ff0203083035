"""Loops over bytes and tokens, compiled to machine code by Numba once a machine.

The compiled code is kept beside the source, or in the user's cache folder where that can't be written (Numba's own
rule; NUMBA_CACHE_DIR names another). Where neither can be, every process compiles anew, some seconds. Kept code is told
from stale by its own file's time and size, and by those of the files it names.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, overload

import numba
import numpy.typing as npt

try:
    import fcntl
except ImportError:  # no locks on this system
    fcntl = None  # type: ignore[assignment]

Function = TypeVar("Function", bound=Callable[..., Any])


@overload
def compiled(function: Function) -> Function: ...


@overload
def compiled(*, fastmath: frozenset[str], uses: tuple[str, ...] = ()) -> Callable[[Function], Function]: ...


def compiled(
    function: Function | None = None, *, fastmath: frozenset[str] = frozenset(), uses: tuple[str, ...] = ()
) -> Function | Callable[[Function], Function]:
    """`function` compiled for the types of its first call, without Python's lock while it runs.

    No array bound is looked at and integers wrap: a caller gives arrays that are large enough.
    `fastmath` names what may be done to floating-point sums (LLVM's flags); a division by zero is then infinite, as in
    numpy. `uses` are other source files whose functions are inlined here: kept code is stale when they change too.
    """
    if function is None:
        return lambda found: _compile(found, {"fastmath": set(fastmath), "error_model": "numpy"}, uses)
    return _compile(function, {}, uses)


def _compile(function: Function, options: dict[str, Any], uses: tuple[str, ...]) -> Function:
    make: Any = numba.njit
    try:
        found: Function = make(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # no folder for the cache
        return make(nogil=True, **options)(function)  # type: ignore[no-any-return]
    _stamp(found, uses)
    _one_at_a_time(found)
    return found


def _stamp(function: Any, uses: tuple[str, ...]) -> None:
    """Put the other files' times and sizes beside the own one's, by which Numba tells stale code."""
    kept: Any = getattr(getattr(function, "_cache", None), "_cache_file", None)
    if uses and hasattr(kept, "_source_stamp"):
        states = [Path(path).stat() for path in uses]
        kept._source_stamp = (kept._source_stamp, *((state.st_mtime, state.st_size) for state in states))


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


def scalar(function: Function, fastmath: frozenset[str] = frozenset()) -> Function:
    """`function` of numbers for use in compiled ones: as fast as inlined, and compiled sooner, each by itself."""
    make: Any = numba.njit
    found: Function = make(fastmath=set(fastmath), error_model="numpy")(function)
    return found


def readonly(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same array, not writeable through this view: compiled loops then have one type for all their callers."""
    view = array.view()
    view.flags.writeable = False
    return view
