"""What every kind of task has: its data, how items are posed, and what is made of the answers."""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, Self

from pydantic import Field, model_validator

from gptcli.errors import SpecError
from gptcli.scoring.judged import Judged
from gptcli.scoring.requests import Answer, Request
from gptcli.scoring.tasks.templates import Template, Unposable
from gptcli.spec import OneOrMore, Spec

__all__ = ["Item", "Posing", "Task", "Unposable", "item_id"]


@dataclass(frozen=True)
class Item:
    """One row, posed. `id`: `item_id` of the texts as posed, without examples; `where`: file:line; `prompt` and
    `answer`: as a person reads them, again without examples; `data`: what the task that made it wants back when it
    judges."""

    id: str
    where: str
    prompt: str
    answer: str
    requests: tuple[Request, ...]
    data: Any = None


def item_id(*texts: str) -> str:
    """The hex id (128 bits) of an item by all texts that are posed, in order: the same row asks the same under the same
    id, whatever the model, the examples or the place in its file."""
    hashed = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "replace")
        hashed.update(len(data).to_bytes(8, "big"))
        hashed.update(data)
    return hashed.hexdigest()[:32]


class Posing(Protocol):
    """Turns texts into token ids for one model: bos, few-shot examples, chat turns."""

    def context(self, prompt: str) -> tuple[int, ...]:
        """Ids of all before an answer to `prompt`: bos, the task's examples, a user's turn where it is a chat."""
        ...

    def pair(self, prompt: str, answer: str, delimiter: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids of the context and of `delimiter + answer` after it, cut apart by the likelihood rule.

        Raises Unposable where the answer has no token of its own."""
        ...


class Task(Spec):
    """A task as its TOML has it."""

    asks: ClassVar[bool] = True  # False: what it poses are texts that go on, no question for chat = "auto"

    kind: str
    name: str = Field(
        "", pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$", description="what its figures are called by; empty: the file's name"
    )
    data: OneOrMore = Field(min_length=1, description="files of items, from the task's own folder")
    columns: list[str] = Field(default_factory=list, description="names of the fields of csv and tsv files")
    header: bool | Literal["auto"] = Field("auto", description="the first row of csv and tsv files is no item")
    parallel: dict[str, OneOrMore] = Field(
        default_factory=dict, description="fields from text files that go line by line with those of data"
    )
    prompt: Template = Field("", description="what is asked: text with {field} of the row")
    description: str = Field("", description="text in front of the examples and the prompt, taken as it stands")
    delimiter: str = Field(" ", description="between prompt and answer; counted in no norm")
    shots: int = Field(0, ge=0, description="examples before each item")
    shots_data: OneOrMore = Field(default_factory=list, description="files of examples; none: the other items")
    shots_separator: str = Field("\n\n", description="behind each example")
    seed: int = Field(0, ge=0, description="which examples are drawn")
    limit: int = Field(0, ge=0, description="items, the first so many; 0: all")
    chat: bool | Literal["auto"] = Field("auto", description="ask as a user's turn; auto: as the model was tuned")

    @model_validator(mode="after")
    def _examples_wanted(self) -> Task:
        if self.shots_data and not self.shots:
            raise SpecError("shots_data is given, and shots = 0", "set shots, or leave out shots_data")
        for key in ("shots_separator", "seed"):
            if key in self.model_fields_set and not self.shots:
                raise SpecError(f"{key} is given, and shots = 0", f"set shots, or leave out {key}")
        for key in ("delimiter", "shots_separator"):
            if self.chat is True and key in self.model_fields_set:
                raise SpecError(f"{key} is given, and chat = true: turns stand between texts", f"leave out {key}")
        if not all(name.strip() for name in (*self.columns, *self.parallel)):
            raise SpecError("a name of a field is empty", "name every field in columns and parallel")
        return self

    def prepared(self, rows: Iterable[dict[str, Any]]) -> Self:
        """The task once it has seen all rows of its data, before `limit` and before the first item is made; for a kind
        that learns from them (which labels there are) or needs something installed. Raises SpecError."""
        return self

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

    def example(self, item: Item) -> tuple[str, str]:
        """How an item is shown as a few-shot example: its prompt, and its right answer (the delimiter stands between).

        Raises Unposable where it has none."""
        return item.prompt, item.answer

    def figures(self, judged: Sequence[Judged]) -> dict[str, float]:
        """The figures of judged items: the mean of each score; a kind may have more."""
        names = judged[0].scores if judged else {}
        return {name: math.fsum(row.scores[name] for row in judged) / len(judged) for name in names}

    def tables(self, judged: Sequence[Judged]) -> dict[str, Any]:
        """What a report shows beside the figures, JSON-able; empty where there is nothing."""
        return {}
