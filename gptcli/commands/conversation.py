"""A conversation with a model: its history, its turns, and the terminal around them."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from gptcli.artifacts.project import Project
from gptcli.console import print_json
from gptcli.errors import SpecError
from gptcli.inference.generate import Session
from gptcli.inference.open import answers_chat, open_model
from gptcli.inference.sampling import Sampling
from gptcli.inference.stream import stream_text
from gptcli.models.family import CausalLM
from gptcli.options import PlaceAndDevice
from gptcli.runtime.device import resolve_device
from gptcli.templates import encode_chat
from gptcli.tokenizer import Tokenizer

HELP = """\
/help     this
/reset    forget the conversation
/exit     end (Ctrl-D does too; Ctrl-C stops an answer)"""


@dataclass(frozen=True)
class Wish:
    """What the command line asks for; `turns` None: as the model was tuned."""

    model: str
    prompt: str | None
    system: str | None
    turns: bool | None


@dataclass
class Conversation:
    """A model that answers in turns, or (turns=False) continues each text on its own.

    `forgotten` counts the oldest messages left out because the model's positions were full.
    """

    model: CausalLM
    tokenizer: Tokenizer
    settings: Sampling
    system: str | None = None
    turns: bool = True
    messages: list[dict[str, str]] = field(default_factory=list)
    forgotten: int = 0
    answered: int = 0
    token_count: int = 0  # of the last answer

    def __post_init__(self) -> None:
        self._session = Session(self.model)
        self._stops = {*self.model.config.eos_ids, self.tokenizer.eos_id, self.tokenizer.eot_id}

    def say(self, text: str) -> Iterator[str]:
        """The answer to `text`, as it comes; the turn enters the history when the answer ends or is cut off.

        Raises SpecError when the text alone does not fit into the model.
        """
        prompt = self._prompt(text)
        settings = dataclasses.replace(self.settings, seed=self.settings.seed + self.answered)
        self.answered += 1
        self.token_count = 0
        answer: list[str] = []
        try:
            tokens = self._counted(self._session.generate(prompt, settings, self._stops))
            for piece in stream_text(self.tokenizer, tokens, after=() if self.turns else prompt):
                answer.append(piece)
                yield piece
        finally:
            if self.turns:
                self.messages.append({"role": "assistant", "content": "".join(answer)})

    def reset(self) -> None:
        """Forget every turn; the system message stays."""
        self.messages.clear()
        self.forgotten = self.answered = 0

    def _counted(self, tokens: Iterator[int]) -> Iterator[int]:
        for token in tokens:
            self.token_count += 1
            yield token

    def _prompt(self, text: str) -> list[int]:
        if not self.turns:
            bos = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
            # Without a bos an empty text would be an empty prompt; the end of a document then begins the next.
            return [*bos, *self.tokenizer.encode(text)] or [self.tokenizer.eos_id]
        self.messages.append({"role": "user", "content": text})
        room = self.model.config.max_position_embeddings
        # Some room is left for the answer: a quarter of the positions, or what an answer may take where that is less.
        room -= min(self.settings.max_tokens, room // 4)
        while len(ids := self._render()) > room and len(self.messages) > 1:
            del self.messages[:2]
            self.forgotten += 2
        if len(ids) > room:
            self.messages.clear()
            raise SpecError(
                f"the message makes a prompt of {len(ids)} tokens; the model reads at most {room} before an answer",
                "shorten it",
            )
        return ids

    def _render(self) -> list[int]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        return encode_chat(self.tokenizer, [*system, *self.messages], add_generation_prompt=True)[0]


def run(shared: PlaceAndDevice, wish: Wish, settings: Sampling) -> None:
    """Open the model; answer one prompt on stdout, or hold a conversation on the terminal.

    Raises SpecError for a prompt that is empty or too long, ArtifactError for a model that can't be opened.
    """
    prompt = wish.prompt
    if prompt is None and sys.stdin is None:  # closed, as `<&-` does
        raise SpecError("there is no prompt: standard input is closed", "give --prompt TEXT")
    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read().removesuffix("\n")  # the newline that echo and editors end a text with
    if shared.as_json and prompt is None:
        raise SpecError("--json needs one prompt", "give --prompt TEXT, or pipe the text in")
    project = Project.open(shared.project, shared.recipe)
    model, tokenizer, found = open_model(project, wish.model, resolve_device(shared.device))
    turns = answers_chat(found, tokenizer) if wish.turns is None else wish.turns
    if wish.system is not None and not turns:
        raise SpecError(f"{wish.model} continues text, so --system would not be read", "add --turns to make it a chat")
    conversation = Conversation(model, tokenizer, settings, wish.system, turns)
    if prompt is None:
        converse(conversation, wish.model)
    elif shared.as_json:
        text = "".join(conversation.say(prompt))
        print_json({"model": found.label, "prompt": prompt, "text": text, "tokens": conversation.token_count})
    else:
        for piece in conversation.say(prompt):
            print(piece, end="", flush=True)
        print(flush=True)


def converse(conversation: Conversation, label: str, read: Callable[[str], str] = input) -> None:
    """Read lines and answer them until /exit or the end of input."""
    _enable_line_editing()
    kind = "a chat" if conversation.turns else "each line is continued, nothing is remembered"
    print(f"{label}: {kind}. /help lists the commands.")
    while True:
        try:
            line = read("> ")
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if line.strip() == "/exit":
            return
        if line.startswith("/") and line.strip() in ("/help", "/reset"):
            print(HELP if line.strip() == "/help" else "forgotten")
            if line.strip() == "/reset":
                conversation.reset()
        elif line.startswith("/") and " " not in line.strip():
            print(f"unknown command {line.strip()}\n{HELP}")
        elif line.strip():
            _answer(conversation, line)


def _answer(conversation: Conversation, line: str) -> None:
    forgotten = conversation.forgotten
    try:
        for piece in conversation.say(line):
            print(piece, end="", flush=True)
        print()
    except KeyboardInterrupt:
        print(" …")
    except SpecError as error:
        print(f"{error.message}; {error.hint}")
    if conversation.forgotten > forgotten:
        print(f"(the oldest {conversation.forgotten} messages no longer fit and are forgotten)")


def _enable_line_editing() -> None:
    try:
        import readline  # noqa: F401  (input() edits lines once this is imported)
    except ImportError:
        return
