"""Prompts and answers as token ids of one model, plain or as a chat, behind their examples.

The likelihood rule is that of EleutherAI's lm-evaluation-harness (its method `_encode_pair`): white space that ends the
context goes to the continuation; context ids are those of the context alone; the continuation's are what the ids of
both together have beyond as many. Before all stands bos, where the tokenizer has one. An empty context is bos, or eos
where there is none. Two differences: text is never markup (no control id comes from a text), and where both together
have no more ids than the context, a merge having swallowed the answer, they are cut apart behind their equal beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from gptcli.scoring.tasks.few_shot import Example
from gptcli.scoring.tasks.task import Task, Unposable
from gptcli.templates import encode_chat
from gptcli.tokenizer import Tokenizer

NO_TOKENS = "answer_without_tokens"

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Manner:
    """How a task asks: as a chat or plain; what stands in front, between and behind examples."""

    chat: bool
    description: str
    separator: str
    delimiter: str

    @classmethod
    def of(cls, task: Task, chat_tuned: bool) -> Manner:
        """A task's manner of asking a model that was (or was not) tuned on chats."""
        chat = task.asks and chat_tuned if task.chat == "auto" else task.chat
        return cls(chat, task.description, task.shots_separator, task.delimiter)


class TokenPosing:
    """Poses for one tokenizer, behind given examples.

    Plain: description, examples as prompt + delimiter + answer + separator, prompt, in one text. As a chat
    (`templates.encode_chat`): the description as the system's turn, each example as a user's and an assistant's, the
    prompt as the user's turn and the assistant's header; an answer is encoded by itself, as in training, so there is no
    delimiter.
    """

    def __init__(self, tokenizer: Tokenizer, manner: Manner, examples: Sequence[Example] = ()) -> None:
        self._tokenizer = tokenizer
        self._manner = manner
        self._examples = tuple(examples)
        self._encoded = lru_cache(maxsize=4)(tokenizer.encode)  # a context stands before several answers

    def behind(self, examples: Sequence[Example]) -> TokenPosing:
        """The same, behind other examples."""
        return self if tuple(examples) == self._examples else TokenPosing(self._tokenizer, self._manner, examples)

    def context(self, prompt: str) -> Ids:
        """Ids of all before an answer, at least one."""
        if self._manner.chat:
            return self._turns(prompt)
        return (*self._start, *self._encoded(self._before + prompt)) or (self._tokenizer.eos_id,)

    def pair(self, prompt: str, answer: str, delimiter: str) -> tuple[Ids, Ids]:
        """Ids of the context and of the answer behind it, each at least one.

        Raises Unposable `answer_without_tokens` where the answer adds none.
        """
        if self._manner.chat:
            continuation = tuple(self._tokenizer.encode(answer))
            context = self._turns(prompt)
        else:
            context, continuation = self._cut(self._before + prompt, delimiter + answer)
        if not continuation:
            raise Unposable(NO_TOKENS, f"the answer {answer!r} has no token of its own")
        return context, continuation

    def _cut(self, context: str, continuation: str) -> tuple[Ids, Ids]:
        bare = context.rstrip()
        before: list[int] = self._encoded(bare) if bare else []
        whole = self._tokenizer.encode(context + continuation)
        behind = whole[len(before) :]
        if not behind:
            equal = next((k for k, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), len(whole))
            before, behind = before[:equal], whole[equal:]
        return (*self._start, *before) or (self._tokenizer.eos_id,), tuple(behind)

    def _turns(self, prompt: str) -> Ids:
        system = [{"role": "system", "content": self._manner.description}] if self._manner.description else []
        said = [(e.prompt, e.answer) for e in self._examples]
        turns = [turn for asked, told in said for turn in (_turn("user", asked), _turn("assistant", told))]
        ids, _ = encode_chat(self._tokenizer, [*system, *turns, _turn("user", prompt)], add_generation_prompt=True)
        return tuple(ids)

    @property
    def _start(self) -> Ids:
        return () if self._tokenizer.bos_id is None else (self._tokenizer.bos_id,)

    @cached_property
    def _before(self) -> str:
        manner = self._manner
        shown = (example.prompt + manner.delimiter + example.answer + manner.separator for example in self._examples)
        return manner.description + "".join(shown)


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
