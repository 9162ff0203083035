"""What `gptcli chat` does: open a model, then answer one prompt or hold a conversation."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import get_args

from gptcli.artifacts.project import Project
from gptcli.commands.conversation import Conversation
from gptcli.commands.terminal import Terminal
from gptcli.console import print_json
from gptcli.errors import SpecError
from gptcli.inference.open import Weights, answers_chat, open_model
from gptcli.inference.sampling import Sampling
from gptcli.options import PlaceAndDevice
from gptcli.runtime.device import resolve_device


@dataclass(frozen=True)
class Wish:
    """What the command line asks for; `turns` None: as the model was tuned; `plain`: no Markdown on a terminal."""

    model: str
    prompt: str | None
    system: str | None
    turns: bool | None
    stop: tuple[str, ...] = ()
    weights: str = "auto"
    plain: bool = False


def run(shared: PlaceAndDevice, wish: Wish, settings: Sampling) -> None:
    """Open the model; answer one prompt on stdout, or hold a conversation on the terminal.

    An empty prompt has a model that continues text begin one. Raises SpecError for an empty message to a chat, a prompt
    that is too long, an empty stop string and unknown weights, ArtifactError for a model that can't be opened.
    """
    if "" in wish.stop:
        raise SpecError("--stop '' is no text to end an answer at", "leave it out, or name a text")
    prompt = wish.prompt
    if prompt is None and sys.stdin is None:  # closed, as `<&-` does
        raise SpecError("there is no prompt: standard input is closed", "give --prompt TEXT")
    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read().removesuffix("\n")  # the newline that echo and editors end a text with
    if shared.as_json and prompt is None:
        raise SpecError("--json needs one prompt", "give --prompt TEXT, or pipe the text in")
    project = Project.open(shared.project, shared.recipe)
    weights = next((each for each in get_args(Weights) if each == wish.weights), None)
    if weights is None:
        raise SpecError(f"--weights {wish.weights} is unknown", f"choose {', '.join(get_args(Weights))}")
    model, tokenizer, found = open_model(project, wish.model, resolve_device(shared.device), weights=weights)
    turns = answers_chat(found, tokenizer) if wish.turns is None else wish.turns
    if wish.system is not None and not turns:
        raise SpecError(f"{wish.model} continues text, so --system would not be read", "add --turns to make it a chat")
    if prompt is not None and turns and not prompt.strip():
        raise SpecError("the message is empty", "give --prompt TEXT, or pipe the text in")
    conversation = Conversation(model, tokenizer, settings, wish.system, turns, wish.stop)
    if prompt is None:
        Terminal(conversation, plain=wish.plain, folder=project.root).converse(wish.model)
    elif shared.as_json:
        text = "".join(conversation.say(prompt))
        print_json({"model": found.label, "prompt": prompt, "text": text, "tokens": conversation.token_count})
    else:
        for piece in conversation.say(prompt):
            print(piece, end="", flush=True)
        print(flush=True)
