"""Chats from rows: lists of messages, prompt and completion, alpaca rows, and the library's own docstrings."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from gptcli.artifacts.manifest import Inputs
from gptcli.errors import SpecError
from gptcli.records.decoding import without_surrogates
from gptcli.records.docstrings import docstrings
from gptcli.records.opening import Blocks, sniff
from gptcli.records.rows import Row, RowFile
from gptcli.records.sources import SourceFile, expand, recorded_files, require_unchanged
from gptcli.records.stdlib import DOCSTRINGS

ROLES = ("system", "user", "assistant")
NO_CHAT = "no_chat"  # a row of no known shape
_SHAPES = '{"messages": [{"role", "content"}, …]}, {"prompt", "completion"} or {"instruction", "input", "output"}'


@dataclass(frozen=True)
class Message:
    role: str
    content: str


@dataclass(frozen=True)
class Chat:
    """A conversation with at least one answer in it, and where it stands (file:line)."""

    messages: tuple[Message, ...]
    where: str

    @property
    def question(self) -> str:
        """What is asked first: the first message that is the user's."""
        return next((message.content for message in self.messages if message.role == "user"), "")


def held_out(question: str, share: float) -> bool:
    """Whether a question belongs to the held-out `share` (0 to 1) of all: by its content hash, so the same always."""
    return question_hash(question) < share * 2**64


def question_hash(question: str) -> int:
    """64 bits of a question's content."""
    return int.from_bytes(hashlib.blake2b(question.encode("utf-8", "replace"), digest_size=8).digest(), "big")


class Chats:
    """The chats of typed sources, in order; iterate it as often as you like.

    `left_out` counts, after an iteration, the rows that hold no chat, by reason (`bad_row:not_json` …), `faults` names
    the files that end too early or are damaged. Given `inputs`, only the files recorded there (role "chats") are read.
    Raises SpecError for sources as `sources.expand` does, for a recorded file that is gone or has changed, and for a
    file without a single chat, naming its first row (file:line) and the keys there are.
    """

    def __init__(self, sources: Sequence[str], root: Path, inputs: Inputs | None = None) -> None:
        self._sources = sources
        self._root = root
        self._inputs = inputs
        self._recorded = {source.path: source for source in (inputs.sources if inputs else ())}
        self.read = 0  # rows
        self.left_out: Counter[str] = Counter()
        self.faults: dict[str, str] = {}

    def __iter__(self) -> Iterator[Chat]:
        self.read, self.left_out, self.faults = 0, Counter(), {}
        for source, files in groupby(self._files(), attrgetter("source")):
            if source == DOCSTRINGS:
                yield from self._docstrings()
                for file in files:
                    self._check(file)
            else:
                for file in files:
                    yield from self._file(file)
                    self._check(file)

    def _files(self) -> list[SourceFile]:
        if self._inputs is None:
            return expand(self._sources, self._root)
        return recorded_files(self._sources, self._root, self._inputs, "chats")

    def _check(self, file: SourceFile) -> None:
        if file.name in self._recorded:
            require_unchanged(file.path, self._recorded[file.name])

    def _docstrings(self) -> Iterator[Chat]:
        for found in docstrings():
            self.read += 1
            yield Chat((Message("user", found.question), Message("assistant", found.answer)), found.where)

    def _file(self, file: SourceFile) -> Iterator[Chat]:
        content = sniff(file.path, file.name)
        if content not in ("rows", "list", "objects"):
            raise SpecError(f"{file.name} holds no JSON rows", f"chats are .jsonl or .json with rows like {_SHAPES}")
        rows = RowFile(Blocks(file.path, file.name), form=content)
        good, first = 0, ""
        for row in rows:
            self.read += 1
            messages, problem = _messages(row)
            if messages:
                good += 1
                yield Chat(messages, f"{file.name}:{row.line}")
            else:
                self.left_out[f"bad_row:{problem}" if problem != rows.fault else problem] += 1
                first = first or _describe(file.name, row, problem)
        if rows.fault:
            self.faults[file.name] = rows.fault
        elif first and not good:
            raise SpecError(first, f"a row is {_SHAPES}")


def _describe(name: str, row: Row, problem: str) -> str:
    """The first bad row of a file, for the error that says there is no good one."""
    keys = f"; its keys: {', '.join(map(str, row.value))}" if row.value else ""
    return f"{name}:{row.line} holds no chat ({problem}), nor does any row behind it{keys}"


def _messages(row: Row) -> tuple[tuple[Message, ...], str]:
    """A row's messages and "", or none and why."""
    value = row.value
    if row.problem:
        return (), row.problem
    if "messages" in value:
        return _listed(value["messages"])
    if "prompt" in value and "completion" in value:
        asked, answered = value["prompt"], value["completion"]
    elif "instruction" in value and "output" in value:
        asked, answered = value["instruction"], value["output"]
        extra = value.get("input")
        if isinstance(asked, str) and isinstance(extra, str) and extra.strip():
            asked = f"{asked}\n\n{extra}"
    else:
        return (), NO_CHAT
    return _listed([{"role": "user", "content": asked}, {"role": "assistant", "content": answered}])


def _listed(found: Any) -> tuple[tuple[Message, ...], str]:
    """Messages from a JSON list of {"role", "content"}."""
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        return (), "messages_no_list"
    if not all(isinstance(item.get("role"), str) and item["role"] in ROLES for item in found):
        return (), "unknown_role"
    if not all(isinstance(item.get("content"), str) for item in found):
        return (), "content_no_string"
    messages = tuple(Message(item["role"], without_surrogates(item["content"])[0]) for item in found)
    if not any(message.role == "assistant" and message.content.strip() for message in messages):
        return (), "no_answer"
    return messages, ""
