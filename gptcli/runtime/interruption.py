"""Cutting work short that leaves nothing to save, be it deep inside torch's compiler."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gptcli.errors import GptcliError
from gptcli.runtime.stop import Stop


@contextmanager
def cut_short_by(stop: Stop) -> Iterator[None]:
    """Let a signal end the block where it stands, as StoppedError, whatever a library makes of that on the way."""
    try:
        with stop.at_once():
            yield
    except Exception as error:
        if stop.requested:
            _forget_compilations()
            if not isinstance(error, GptcliError):
                stop.check()
        raise


def _forget_compilations() -> None:
    """Drop what waits in the threads that torch compiles in: the process would do it all before it ends."""
    compiling: Any = sys.modules.get("torch._inductor.async_compile")
    pool = getattr(getattr(compiling, "AsyncCompile", None), "pool", None)
    if pool is not None:
        pool().shutdown(wait=False, cancel_futures=True)
