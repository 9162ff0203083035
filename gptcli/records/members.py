"""What members of zip and tar archives share: their limits, their names, and a place on disk for those to seek in."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gptcli.errors import ResourceError
from gptcli.records.pieces import ByteStream

MAX_DEPTH = 3  # archives within archives
BOMB_BYTES, BOMB_RATIO = 64 << 20, 200  # a member, or an archive, that grows by more than both is a bomb

# Why a member can't be read; `ByteStream.fault`, beside those of `compression`.
ENCRYPTED = "encrypted"
UNSUPPORTED = "unsupported_method"
TOO_DEEP = "nested_too_deep"
TOO_LARGE = "too_large"  # over the limit of `spooled`


@dataclass
class Budget:
    """What the members of an archive may grow to together, archives inside it included."""

    compressed: int  # bytes of the outermost archive
    grown: int = 0  # bytes given so far

    @property
    def spent(self) -> bool:
        return self.grown > max(BOMB_BYTES, BOMB_RATIO * self.compressed)

    def take(self, size: int) -> bool:
        """Count bytes that were given; False once that was too much."""
        self.grown += size
        return not self.spent


def printable(name: str) -> str:
    """A member's path as it can be shown and stored: what is no UTF-8, and control characters, as \\x… escapes."""
    cleaned = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in cleaned)


@contextmanager
def spooled(stream: ByteStream, limit_bytes: int = 2 << 30) -> Iterator[Path | None]:
    """A stream as a temporary file, for readers that must seek; gone on leaving.

    None, and the stream's `fault` TOO_LARGE, where it is longer than the limit. A stream with another fault is a file
    of what could be read of it. Raises ResourceError when the disk is full.
    """
    with tempfile.NamedTemporaryFile(prefix="gptcli-") as file:
        size = 0
        try:
            for block in stream:
                size += len(block)
                if size > limit_bytes:
                    stream.fault = TOO_LARGE
                    break
                file.write(block)
            file.flush()
        except OSError as error:
            raise ResourceError(
                f"cannot write a temporary copy of {stream.name}: {error.strerror or error}",
                "free disk space, or set TMPDIR to a larger place",
            ) from error
        yield None if size > limit_bytes else Path(file.name)
