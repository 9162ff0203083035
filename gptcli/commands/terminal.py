"""`gptcli chat` on a terminal: lines in, answers out, commands in between."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from gptcli.commands.conversation import Conversation
from gptcli.errors import SpecError

HELP = """\
/help             this
/reset            forget the conversation
/undo             forget the last turn
/retry            answer the last turn again, drawn with another seed
/system TEXT      a system message from now on; without TEXT: none
/set KEY=VALUE    change how tokens are drawn: temperature, top_p, seed …; without KEY=VALUE: show all
/save FILE        add the chat to FILE, a line of JSON that finetune-lora reads
/exit             end (Ctrl-D does too; Ctrl-C stops an answer)"""


class Terminal:
    """Answers in turns shown as Markdown on a terminal, unless `plain`; else piece by piece as they are.

    `folder` is where the relative paths that /save takes begin.
    """

    def __init__(self, conversation: Conversation, *, plain: bool = False, folder: Path = Path()) -> None:
        self.conversation = conversation
        self._folder = folder
        self._markdown = conversation.turns and not plain and _draws()
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": lambda _: print(HELP),
            "/reset": self._reset,
            "/undo": self._undo,
            "/retry": self._retry,
            "/system": self._system,
            "/set": self._set,
            "/save": self._save,
        }

    def converse(self, label: str, read: Callable[[str], str] = input) -> None:
        """Read lines and answer them until /exit or the end of input."""
        _enable_line_editing()
        kind = "a chat" if self.conversation.turns else "each line is continued, nothing is remembered"
        print(f"{label}: {kind}. /help lists the commands.")
        while True:
            try:
                line = read("> ")
            except (EOFError, KeyboardInterrupt):
                print()
                return
            if line.strip() == "/exit":
                return
            if line.startswith("/"):
                self._obey(line)
            elif line.strip():
                self._answer(line)

    def _obey(self, line: str) -> None:
        """Carry out a command; what begins with / and is no command's name is not sent to the model."""
        name, _, rest = line.strip().partition(" ")
        if name not in self._commands:
            print(f"unknown command {name}\n{HELP}")
            return
        try:
            self._commands[name](rest.strip())
        except SpecError as error:
            print(_sentence(error))

    def _answer(self, line: str) -> None:
        forgotten = self.conversation.forgotten
        try:
            self._show(self.conversation.say(line))
        except SpecError as error:
            print(_sentence(error))
        if self.conversation.forgotten > forgotten:
            print(f"(the oldest {self.conversation.forgotten} messages no longer fit and are forgotten)")

    def _show(self, pieces: Iterator[str]) -> None:
        if self._markdown:
            _show_markdown(pieces)
            return
        try:
            for piece in pieces:
                print(_visible(piece), end="", flush=True)
            print()
        except KeyboardInterrupt:
            print(" …")

    def _reset(self, rest: str) -> None:
        self.conversation.reset()
        print("forgotten")

    def _undo(self, rest: str) -> None:
        if not self.conversation.turns:
            raise SpecError("nothing is remembered, so there is no turn to forget", "/retry continues the text anew")
        asked = self.conversation.undo()
        print("there is no turn to forget" if asked is None else f"forgotten: {asked}")

    def _retry(self, rest: str) -> None:
        asked = self.conversation.undo()
        if asked is None:
            print("nothing was asked yet")
        else:
            self._answer(asked)

    def _system(self, rest: str) -> None:
        if not self.conversation.turns:
            raise SpecError("a text that is continued has no system message", "start with --turns to make it a chat")
        self.conversation.system = rest or None
        print(f"system message: {rest}" if rest else "no system message")

    def _set(self, rest: str) -> None:
        settings = self.conversation.settings
        now = dataclasses.asdict(settings)
        for pair in rest.split():
            key, _, value = pair.partition("=")
            if key not in now:
                raise SpecError(f"there is no setting {key!r}", f"settings: {', '.join(now)}")
            try:
                changed = {key: type(now[key])(value)}
            except ValueError:
                raise SpecError(f"{pair}: {value!r} is no {type(now[key]).__name__}", f"it is {now[key]}") from None
            settings = dataclasses.replace(settings, **changed)
        self.conversation.settings = settings
        print("  ".join(f"{key}={value}" for key, value in dataclasses.asdict(settings).items()))

    def _save(self, rest: str) -> None:
        if not rest:
            raise SpecError("/save needs a file", "/save chats.jsonl")
        count = self.conversation.save(self._folder / Path(rest).expanduser())
        print(f"{count} messages added to {rest}")


def _show_markdown(pieces: Iterator[str]) -> None:
    """The end of the text while it comes, then the whole of it as Markdown; Ctrl-C ends it there."""
    from rich.console import Console
    from rich.live import Live
    from rich.markdown import Markdown
    from rich.text import Text

    console, text, cut = Console(), "", False
    with Live(console=console, transient=True, refresh_per_second=12) as live:
        try:
            for piece in pieces:
                text += _visible(piece)
                lines = Text(text).wrap(console, console.width)[-max(1, console.height - 2) :]
                live.update(Text("\n").join(lines))
        except KeyboardInterrupt:
            cut = True
    console.print(Markdown(text, hyperlinks=False))
    if cut:
        print(" …")


def _draws() -> bool:
    """Whether stdout is a terminal that moves its cursor, with a person before it."""
    return sys.stdout.isatty() and not os.environ.get("CI") and os.environ.get("TERM", "dumb") != "dumb"


def _visible(text: str) -> str:
    """Text that commands the terminal nothing: an escape character is shown as its picture."""
    return text.replace("\x1b", "␛") if sys.stdout.isatty() else text


def _sentence(error: SpecError) -> str:
    return f"{error.message}; {error.hint}" if error.hint else error.message


def _enable_line_editing() -> None:
    try:
        import readline  # noqa: F401  (input() edits lines once this is imported)
    except ImportError:
        return
