"""The same ordered map on a Ray cluster (`pip install 'gptcli[ray]'`), for work that has outgrown one machine.

Workers read and write the project's files themselves, so every node must see them under the same paths.
"""

from __future__ import annotations

import os
import re
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from gptcli.errors import ResourceError, SpecError

Item = TypeVar("Item")
Result = TypeVar("Result")

LOOK_AHEAD = 2  # pieces of work in flight a worker
ADDRESS = "RAY_ADDRESS"  # Ray's own variable

_ANSWER_SECONDS = 5  # for a cluster's port to open; Ray itself would try for minutes
_HOST_AND_PORT = re.compile(r"(?:ray://)?\[?(?P<host>[^/\[\]]+?)\]?:(?P<port>\d{1,5})/?")


def map_on_ray(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """`function` of every item, in the items' order, in tasks on the cluster that RAY_ADDRESS names, or a local one.

    workers: tasks at a time; 0: one for each CPU of the cluster. A local cluster is started where none is named, and
    ended with this process. Raises SpecError where Ray is missing, ResourceError where no cluster answers at
    RAY_ADDRESS or the cluster loses a worker; an exception of `function` is raised as it is.
    """
    try:
        import ray
    except ImportError as error:
        raise SpecError("executor = ray needs the package ray", "pip install 'gptcli[ray]'") from error
    engine: Any = ray
    if not engine.is_initialized():
        _connect(engine, workers)
    many = workers or max(1, int(engine.cluster_resources().get("CPU", 1)))
    yield from _ordered(engine, engine.remote(max_retries=0)(_call), function, items, many)


def _connect(ray: Any, workers: int) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    address = os.environ.get(ADDRESS, "")
    if address in ("", "local"):  # by name: Ray would join any cluster that it finds on this machine
        ray.init(address="local", num_cpus=workers or None, include_dashboard=False, **quiet)
        return
    try:
        _require_open(address)
        ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:  # Ray has no one type for it
        raise ResourceError(f"no Ray cluster answers at {address}: {error}", f"check {ADDRESS}, or unset it") from error


def _require_open(address: str) -> None:
    """OSError where nothing listens at host:port or ray://host:port; other addresses are left to Ray."""
    found = _HOST_AND_PORT.fullmatch(address)
    if found:
        try:
            socket.create_connection((found["host"], int(found["port"])), _ANSWER_SECONDS).close()
        except OverflowError as error:
            raise ValueError(f"{found['port']} is no port") from error


def _ordered(
    ray: Any, task: Any, function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    shared = ray.put(function)
    waiting: deque[Any] = deque()
    try:
        for item in items:
            waiting.append(task.remote(shared, item))
            if len(waiting) >= workers * LOOK_AHEAD:
                yield _result(ray, waiting.popleft())
        while waiting:
            yield _result(ray, waiting.popleft())
    finally:
        for left in waiting:
            ray.cancel(left, force=True)


def _call(function: Callable[[Item], Result], item: Item) -> Result:
    return function(item)


def _result(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise ResourceError(f"the Ray cluster lost a worker: {error}", "run the same command again to go on") from error
