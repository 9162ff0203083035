"""Loops over bytes and tokens, compiled to machine code by Numba once a machine.

The compiled code is kept beside the source, or in the user's cache folder where that can't be written (Numba's own
rule; NUMBA_CACHE_DIR names another). Where neither can be, every process compiles anew, a second or so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy.typing as npt

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """`function` compiled for the types of its first call, without Python's lock while it runs.

    No array bound is looked at and integers wrap: a caller gives arrays that are large enough.
    """
    make: Any = numba.njit
    try:
        found: Function = make(cache=True, nogil=True)(function)
    except RuntimeError:  # no folder for the cache
        found = make(nogil=True)(function)
    return found


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
