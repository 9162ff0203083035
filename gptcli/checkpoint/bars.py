"""The bar that a verb moves while it works, whoever opens it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol


class Bar(Protocol):
    def advance(self, count: float = 1) -> None: ...


OpenBar = Callable[[str, float], AbstractContextManager[Bar]]  # by a label and the bytes there are in all
