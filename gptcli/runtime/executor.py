"""A process pool whose results come in the order of the work, whatever the number of workers."""

from __future__ import annotations

import atexit
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from gptcli.errors import ResourceError
from gptcli.runtime.cluster import map_on_ray

Item = TypeVar("Item")
Result = TypeVar("Result")

LOOK_AHEAD = 2  # pieces of work in flight a worker: enough to keep it busy, few enough to bound memory
PR_SET_PDEATHSIG = 1


def default_workers() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_ordered(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    initializer: Callable[..., None] | None = None,
    initargs: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """`function` of every item, in the items' order, in `workers` processes (0: one a core; 1: in this process).

    Bounded look-ahead keeps memory bounded. Workers end with their parent, however it ends. A worker that dies
    (memory, say) is a ResourceError; an exception of `function` is raised here as it is.
    """
    workers = workers or default_workers()
    if workers == 1:
        if initializer is not None:
            initializer(*initargs)
        yield from map(function, items)
        return
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=begin_worker,
        initargs=(os.getpid(), initializer, initargs),
    )
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= workers * LOOK_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise ResourceError(
            "a worker process died, most likely for want of memory", "run again with --set workers=1"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def map_where(
    executor: str, function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """`function` of every item, in the items' order: "local" as `map_ordered`, "ray" as `cluster.map_on_ray`."""
    return map_on_ray(function, items, workers) if executor == "ray" else map_ordered(function, items, workers)


def begin_worker(parent: int, initializer: Callable[..., None] | None = None, initargs: tuple[Any, ...] = ()) -> None:
    """In a process of our own: leave signals to the process `parent`, and end with it."""
    # Ctrl-C in a terminal reaches the whole group: the parent alone decides what to do with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _end_with_parent(parent)
    atexit.register(os._exit, 0)  # the last to register is the first to run: taking down large libraries takes long
    if initializer is not None:
        initializer(*initargs)


def _end_with_parent(parent: int) -> None:
    """An orphaned worker must not write into a folder that a new process is now building."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:

        def watch() -> None:
            while os.getppid() == parent:
                time.sleep(0.2)
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()
    if os.getppid() != parent:  # it had already ended before the line above took hold
        os._exit(1)
