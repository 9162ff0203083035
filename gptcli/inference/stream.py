"""Text as it is generated: whole characters at a time, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from gptcli.errors import SpecError
from gptcli.tokenizer import Tokenizer

CONTEXT = 8  # ids before the first new one that decide how it is spelt: the rest of a character, a leading space


class TextWatcher:
    """Text from token ids, which ends before the first stop string.

    `text` is all that is certain to stay; what may be the beginning of a stop string, or part of a character, is held
    back until the next token tells. `stopped` says that a stop string came. Raises SpecError for an empty stop string.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = (), after: Sequence[int] = ()) -> None:
        if "" in stop:
            raise SpecError("an empty stop string would end every text before it begins", "leave it out")
        self._decoder = tokenizer.decoder()
        self._stop = tuple(stop)
        self._parts: list[str] = []
        self._held = ""
        self.stopped = False
        for token_id in after[-CONTEXT:]:
            self._decoder.feed(token_id)

    @property
    def text(self) -> str:
        """All that was settled so far."""
        return "".join(self._parts)

    def feed(self, token_id: int) -> str:
        """The text that `token_id` settles, possibly ''; nothing once `stopped`."""
        return "" if self.stopped else self._settle(self._decoder.feed(token_id), last=False)

    def finish(self) -> str:
        """What was held back and turned out to be text; an unfinished character becomes U+FFFD."""
        return "" if self.stopped else self._settle(self._decoder.finish(), last=True)

    def _settle(self, more: str, *, last: bool) -> str:
        text = self._held + more
        found = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            text, self._held = text[: min(found)], ""
        else:
            keep = 0 if last else self._undecided(text)
            text, self._held = text[: len(text) - keep], text[len(text) - keep :]
        if text:
            self._parts.append(text)
        return text

    def _undecided(self, text: str) -> int:
        """How many characters at the end are the beginning of a stop string."""
        longest = max((len(stop) - 1 for stop in self._stop), default=0)
        return next((n for n in range(min(longest, len(text)), 0, -1) if self._begins(text[-n:])), 0)

    def _begins(self, tail: str) -> bool:
        return any(stop.startswith(tail) for stop in self._stop)


def stream_text(
    tokenizer: Tokenizer, token_ids: Iterable[int], after: Sequence[int] = (), stop: Sequence[str] = ()
) -> Iterator[str]:
    """Yield the text of `token_ids` as early as it is certain, never part of a character, up to a stop string.

    `after` are the ids before them: text that continues a prompt keeps the space that text at a start would drop. At a
    stop string no further id is taken from `token_ids`.
    """
    watcher = TextWatcher(tokenizer, stop, after)
    for token_id in token_ids:
        text = watcher.feed(token_id)
        if text:
            yield text
        if watcher.stopped:
            return
    rest = watcher.finish()
    if rest:
        yield rest
