"""A conversation with a model: its history and its turns."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gptcli.errors import GptcliError, SpecError
from gptcli.inference.generate import Session
from gptcli.inference.sampling import Sampling
from gptcli.inference.stream import stream_text
from gptcli.models.family import CausalLM
from gptcli.templates import encode_chat
from gptcli.tokenizer import Tokenizer


@dataclass
class Conversation:
    """A model that answers in turns, or (turns=False) continues each text on its own.

    `stop` are strings that end an answer, cut off. `forgotten` counts the oldest messages left out because the model's
    positions were full.
    """

    model: CausalLM
    tokenizer: Tokenizer
    settings: Sampling
    system: str | None = None
    turns: bool = True
    stop: tuple[str, ...] = ()
    messages: list[dict[str, str]] = field(default_factory=list)
    forgotten: int = 0
    answered: int = 0
    token_count: int = 0  # of the last answer
    asked: str | None = None  # last

    def __post_init__(self) -> None:
        self._session = Session(self.model)
        self._stops = {*self.model.config.eos_ids, self.tokenizer.eos_id, self.tokenizer.eot_id}

    def say(self, text: str) -> Iterator[str]:
        """The answer to `text`, as it comes; the turn enters the history when the answer ends or is cut off.

        Raises SpecError when the text alone does not fit into the model. What fails leaves no turn.
        """
        prompt = self._prompt(text)
        settings = dataclasses.replace(self.settings, seed=self.settings.seed + self.answered)
        self.answered += 1
        self.token_count, self.asked = 0, text
        answer: list[str] = []
        failed = False
        try:
            tokens = self._counted(self._session.generate(prompt, settings, self._stops))
            for piece in stream_text(self.tokenizer, tokens, () if self.turns else prompt, self.stop):
                answer.append(piece)
                yield piece
        except GptcliError:
            failed = True
            raise
        finally:
            if self.turns and failed:
                self.messages.pop()
            elif self.turns:
                self.messages.append({"role": "assistant", "content": "".join(answer)})

    def reset(self) -> None:
        """Forget every turn; the system message stays."""
        self.messages.clear()
        self.forgotten = self.answered = 0
        self.asked = None

    def undo(self) -> str | None:
        """Forget the last turn; returns what was asked in it, None where there is none."""
        asked, self.asked = self.asked, None
        if self.turns:
            asked = self.messages[-2]["content"] if self.messages else None
            del self.messages[-2:]
        return asked

    def save(self, path: Path) -> int:
        """Add the chat to `path` as a line of JSON, which finetune-lora reads; returns how many messages it has.

        Raises SpecError when nothing was said or the file can't be written.
        """
        if not self.messages:
            raise SpecError("nothing was said yet", "answers in turns can be saved, continued texts can't")
        chat = {"messages": [*self._system(), *self.messages]}
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(chat, ensure_ascii=False) + "\n")
        except OSError as error:
            raise SpecError(f"{path} can't be written: {error.strerror}", "name another file") from error
        return len(chat["messages"])

    def _counted(self, tokens: Iterator[int]) -> Iterator[int]:
        for token in tokens:
            self.token_count += 1
            yield token

    def _prompt(self, text: str) -> list[int]:
        if not self.turns:
            bos = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
            # Without a bos an empty text would be an empty prompt; the end of a document then begins the next.
            return [*bos, *self.tokenizer.encode(text)] or [self.tokenizer.eos_id]
        turn = {"role": "user", "content": text}
        room = self.model.config.max_position_embeddings
        # Some room is left for the answer: a quarter of the positions, or what an answer may take where that is less.
        room -= min(self.settings.max_tokens, room // 4)
        alone = len(self._render([turn]))
        if alone > room:
            raise SpecError(
                f"the message makes a prompt of {alone} tokens; the model reads at most {room} before an answer",
                "shorten it",
            )
        self.messages.append(turn)
        while len(ids := self._render(self.messages)) > room:  # at the latest the message is alone
            del self.messages[:2]
            self.forgotten += 2
        return ids

    def _render(self, messages: list[dict[str, str]]) -> list[int]:
        return encode_chat(self.tokenizer, [*self._system(), *messages], add_generation_prompt=True)[0]

    def _system(self) -> list[dict[str, str]]:
        return [{"role": "system", "content": self.system}] if self.system else []
