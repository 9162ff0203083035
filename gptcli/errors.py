"""What can go wrong for a user, each kind with its exit code; `cli.main` alone turns them into exits."""

from __future__ import annotations


class GptcliError(Exception):
    """A failure a person can act on.

    `message` says in one sentence what is wrong and where (file, row, key); `hint` names the command or the
    change that mends it.
    """

    code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class SpecError(GptcliError):
    """Usage, a recipe key, a value, or a source that isn't there or can't be read."""

    code = 2


class ArtifactError(GptcliError):
    """An artifact is missing, corrupt, busy or does not match."""

    code = 3


class ResourceError(GptcliError):
    """A device, memory or disk is missing or full."""

    code = 4


class GateError(GptcliError):
    """A measured figure failed a gate the user set."""

    code = 5


class DivergedError(GptcliError):
    """Training diverged: the loss or a gradient is no longer finite."""

    code = 6


class StoppedError(GptcliError):
    """A signal stopped the process after its state was saved; the same command goes on from there."""

    code = 75
