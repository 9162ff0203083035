"""Text as it is generated, whole characters at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from gptcli.tokenizer import Tokenizer


def stream_text(tokenizer: Tokenizer, token_ids: Iterable[int], after: Sequence[int] = ()) -> Iterator[str]:
    """Yield the text of `token_ids` as early as it is certain, never part of a character.

    `after` are the ids before them: text that continues a prompt keeps the space that text at a start would drop.
    """
    decoder = tokenizer.decoder()
    for token_id in after:
        decoder.feed(token_id)
    for token_id in token_ids:
        text = decoder.feed(token_id)
        if text:
            yield text
    rest = decoder.finish()
    if rest:
        yield rest
