"""What every kind of task has: its data, how items are posed, and what is made of the answers."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import Field

from gptcli.scoring.judged import Judged
from gptcli.scoring.requests import Answer, Request
from gptcli.spec import OneOrMore, Spec


@dataclass(frozen=True)
class Item:
    """One row, posed. `id`: hex content hash of the texts as posed; `where`: file:line; `prompt` and `answer`: as a
    person reads them; `data`: what the task that made it wants back when it judges."""

    id: str
    where: str
    prompt: str
    answer: str
    requests: tuple[Request, ...]
    data: Any = None


class Unposable(Exception):
    """A row that makes no item; the message is the reason under which it is counted."""


class Posing(Protocol):
    """Turns texts into token ids for one model: bos, few-shot examples, chat turns."""

    def context(self, prompt: str) -> tuple[int, ...]:
        """Ids of all before an answer to `prompt`: bos, the task's examples, a user's turn where it is a chat."""
        ...

    def pair(self, prompt: str, answer: str, delimiter: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids of the context and of `delimiter + answer` after it, cut apart by the likelihood rule."""
        ...


class Task(Spec):
    """A task as its TOML has it."""

    kind: str
    name: str = Field("", description="what its figures are called by; empty: the file's name")
    data: OneOrMore = Field(description="files of items, from the task's own folder")
    prompt: str = Field("", description="what is asked: text with {field} of the row")
    delimiter: str = Field(" ", description="between prompt and answer; counted in no norm")
    shots: int = Field(0, ge=0, description="examples before each item")
    shots_data: OneOrMore = Field(default_factory=list, description="files of examples; none: the other items")
    seed: int = Field(0, ge=0, description="which examples are drawn")
    limit: int = Field(0, ge=0, description="items, the first so many; 0: all")
    chat: bool | Literal["auto"] = Field("auto", description="ask as a user's turn; auto: as the model was tuned")

    @abstractmethod
    def item(self, row: dict[str, Any], where: str, posing: Posing) -> Item:
        """The item of a row. Raises Unposable with the reason where the row makes none."""

    @abstractmethod
    def judge(self, item: Item, answers: Sequence[Answer]) -> Judged:
        """What the model made of an item; `answers` in the order of its requests."""

    @property
    @abstractmethod
    def figure_names(self) -> tuple[str, ...]:
        """Every figure that `figures` may give, the one to look at first in front."""

    def figures(self, judged: Sequence[Judged]) -> dict[str, float]:
        """The figures of judged items: the mean of each score; a kind may have more."""
        names = judged[0].scores if judged else {}
        return {name: math.fsum(row.scores[name] for row in judged) / len(judged) for name in names}

    def tables(self, judged: Sequence[Judged]) -> dict[str, Any]:
        """What a report shows beside the figures, JSON-able; empty where there is nothing."""
        return {}
