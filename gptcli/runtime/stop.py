"""SIGTERM, SIGINT and a terminal that hangs up ask a stage to save its state and end; a second SIGINT ends it at once.

Under nohup a hang-up stays ignored.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from gptcli.errors import StoppedError

AGAIN = 1.0  # seconds


class Stop:
    """Whether the user or the system asked this process to stop."""

    def __init__(self) -> None:
        self.requested = False
        self._at_once = False

    def install(self) -> None:
        """Take the signals; only the main thread may call this."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)
        hang_up = getattr(signal, "SIGHUP", None)
        if hang_up is not None and signal.getsignal(hang_up) != signal.SIG_IGN:
            signal.signal(hang_up, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        if self._at_once:
            # A library may swallow what is raised out of a signal: it is raised again until the block has ended.
            signal.signal(signal.SIGALRM, self._insist)
            signal.setitimer(signal.ITIMER_REAL, AGAIN, AGAIN)
            self.check()

    def _insist(self, number: int, frame: FrameType | None) -> None:
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
            if self.requested and signal.getsignal(signal.SIGALRM) == self._insist:
                signal.setitimer(signal.ITIMER_REAL, 0)

    def check(self) -> None:
        """Raise StoppedError if a stop was asked for; to be called where all that is finished is saved."""
        if self.requested:
            raise StoppedError("stopped by a signal; what was finished is saved", "run the same command to go on")
