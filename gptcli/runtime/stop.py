"""SIGTERM and SIGINT ask a stage to save its state and end; a second SIGINT ends it at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from gptcli.errors import StoppedError


class Stop:
    """Whether the user or the system asked this process to stop."""

    def __init__(self) -> None:
        self.requested = False
        self._at_once = False

    def install(self) -> None:
        """Take SIGTERM and SIGINT; only the main thread may call this."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        if self._at_once:
            self.check()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal end the block where it stands, as StoppedError: for work that leaves nothing to save."""
        self._at_once = True
        try:
            self.check()
            yield
        finally:
            self._at_once = False

    def check(self) -> None:
        """Raise StoppedError if a stop was asked for; to be called where all that is finished is saved."""
        if self.requested:
            raise StoppedError("stopped by a signal; what was finished is saved", "run the same command to go on")
