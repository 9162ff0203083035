"""Threads that help with a compiled call, if they come in time."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue


class _Helper:
    """A thread that waits for work; `busy` from when it is given some until it has come back from it."""

    def __init__(self) -> None:
        self.busy = False
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        threading.Thread(target=self._serve, name="gptcli-decoding", daemon=True).start()

    def give(self, work: Callable[[], None]) -> None:
        self.busy = True
        self._work.put(work)

    def join(self) -> None:
        """Wait until it has nothing to do."""
        while self.busy:
            time.sleep(0.001)

    def _serve(self) -> None:
        while True:
            work = self._work.get()
            try:
                work()
            finally:
                del work  # or the last one's arrays would live on
                self.busy = False


_helpers: dict[int, list[_Helper]] = {}  # by process: a fork has none of its parent's threads


def helpers(count: int) -> list[_Helper]:
    """So many threads of this process, always the same ones."""
    own = _helpers.setdefault(os.getpid(), [])
    while len(own) < count:
        own.append(_Helper())
    return own[:count]
