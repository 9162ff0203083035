"""Processes of one machine that compute together: forked from one that has everything ready, told what to do by it.

Memory is shared by anonymous mappings, which no /dev/shm bounds; orders go through pipes. The first process (rank 0)
does its own share of every order, so a team of one is a plain function call.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from gptcli import errors
from gptcli.errors import GptcliError, ResourceError
from gptcli.runtime.executor import begin_worker

if TYPE_CHECKING:
    import torch

WAITING = 0.2  # seconds

Order = Callable[..., Any]  # called as order(rank, *arguments)


def can_fork() -> bool:
    """Whether this system forks a process that has libraries loaded without harm: Linux does."""
    return sys.platform == "linux"


def shared_tensor(elements: int, dtype: torch.dtype) -> torch.Tensor:
    """A flat tensor of zeros that forked processes share with this one."""
    import torch

    size = max(elements, 1) * torch.empty((), dtype=dtype).element_size()
    return torch.frombuffer(mmap.mmap(-1, size), dtype=dtype)[:elements]


class Ranks:
    """`size` processes, this one among them as rank 0, that carry out the orders given by name at the start.

    Fork as late as all is ready and as early as nothing has started a thread. `meanwhile` is called several times a
    second while the others' answers are waited for. Errors of another rank are raised here as they were, a rank that
    died as ResourceError.
    """

    def __init__(self, size: int, orders: dict[str, Order], meanwhile: Callable[[], None] | None = None) -> None:
        self.size, self._orders, self._meanwhile = size, orders, meanwhile
        self._others: list[tuple[BaseProcess, Connection]] = []
        context = multiprocessing.get_context("fork" if size > 1 else None)
        for rank in range(1, size):
            ours, theirs = context.Pipe()
            process = context.Process(target=self._serve, args=(rank, theirs, os.getpid()), daemon=True)
            process.start()
            theirs.close()
            self._others.append((process, ours))

    def _serve(self, rank: int, pipe: Connection, parent: int) -> None:
        begin_worker(parent)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a signal to the whole group is the first rank's to answer
        while True:
            name, arguments = pipe.recv()
            try:
                pipe.send((True, self._orders[name](rank, *arguments)))
            except Exception as error:
                pipe.send((False, _told(error)))

    def all(self, name: str, *arguments: Any) -> list[Any]:
        """Carry an order out in every rank; what each returned, by rank.

        When this rank's own share raises, the others' answers are still waited for before the error goes on.
        """
        for _, pipe in self._others:
            self._send(pipe, (name, arguments))
        try:
            mine = self._orders[name](0, *arguments)
        except BaseException:
            for rank in range(1, self.size):
                self._answer(rank)
            raise
        answers = [self._answer(rank) for rank in range(1, self.size)]
        for fine, answer in answers:
            if not fine:
                raise _raised(answer)
        return [mine, *(answer for _, answer in answers)]

    def _send(self, pipe: Connection, order: tuple[str, tuple[Any, ...]]) -> None:
        try:
            pipe.send(order)
        except BrokenPipeError as error:
            raise _died() from error

    def _answer(self, rank: int) -> tuple[bool, Any]:
        process, pipe = self._others[rank - 1]
        while not wait([pipe, process.sentinel], WAITING):
            if self._meanwhile is not None:
                self._meanwhile()
        try:
            answer: tuple[bool, Any] = pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            raise _died() from error
        return answer

    def close(self) -> None:
        """End the other ranks; nothing they have is kept but what is shared."""
        for process, pipe in self._others:
            process.kill()
            process.join()
            pipe.close()
        self._others.clear()
        self._orders, self._meanwhile = {}, None  # they hold what belongs to the team, which may be a whole model


def apart(function: Callable[[], Any]) -> Any:
    """What `function` returns in a forked process of its own, with all that it made gone; errors as in `Ranks`."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def work() -> None:
        begin_worker(os.getppid())
        try:
            theirs.send((True, function()))
        except Exception as error:
            theirs.send((False, _told(error)))

    process = context.Process(target=work)
    process.start()
    theirs.close()
    try:
        wait([ours, process.sentinel])
        fine, answer = ours.recv()
    except (EOFError, ConnectionResetError) as error:
        raise _died() from error
    finally:
        process.kill()
        process.join()
        ours.close()
    if not fine:
        raise _raised(answer)
    return answer


def _died() -> ResourceError:
    return ResourceError(
        "a process that took part in the training died, most likely for want of memory",
        "run the same command again to go on from the latest checkpoint; --set ranks=1 needs the least memory",
    )


def _told(error: Exception) -> tuple[str, str, str]:
    """An error in words that pass through a pipe."""
    if isinstance(error, GptcliError):
        return type(error).__name__, error.message, error.hint
    return type(error).__name__, str(error), ""


def _raised(told: tuple[str, str, str]) -> Exception:
    kind, message, hint = told
    known = getattr(errors, kind, None)
    if known is not None:
        return known(message, hint)  # type: ignore[no-any-return]
    if kind == "MemoryError" or "can't allocate memory" in message:
        return MemoryError(message)
    return RuntimeError(f"{kind}: {message}")
