"""What a tokenizer engine is: text to ids and back, and what each id stands for.

User text is never markup: no engine gives a control id for any text whatever. An id outside the vocabulary, or one that
no piece has, decodes to U+FFFD; control ids decode to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

SPACE = "\u2581"  # how sentencepiece, and those that follow it, write a space inside a piece
REPLACEMENT = "\ufffd"


class StreamingDecoder(Protocol):
    """Text from a stream of ids, as early as it is certain.

    No call returns part of a character, and all texts joined, with `finish`, equal `Engine.decode` of all ids.
    """

    def feed(self, token_id: int) -> str:
        """The text that `token_id` settles, possibly ''."""

    def finish(self) -> str:
        """What is still held back: an unfinished character as U+FFFD. The decoder is then done with."""


class Engine(Protocol):
    """One tokenizer, opened. `vocab_size`: the largest id + 1; `unk_id`: what text without pieces becomes, if any."""

    name: str
    vocab_size: int
    bos_id: int | None
    eos_id: int
    pad_id: int | None
    unk_id: int | None

    @property
    def is_lossless(self) -> bool:
        """Whether the settings promise that every text decodes to itself."""

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, none of them a control id. Raises SpecError for a lone surrogate."""

    def encode_batch(self, texts: Sequence[str], threads: int = -1) -> list[list[int]]:
        """`encode` of each text; `threads` 1: in this thread, -1: in as many of the engine's own as there are cores."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`."""

    def decoder(self) -> StreamingDecoder:
        """A fresh streaming decoder."""

    def id_of(self, piece: str) -> int | None:
        """The id of a piece by the vocabulary's own spelling, or None."""

    def piece(self, token_id: int) -> str:
        """The vocabulary's own spelling of an id below vocab_size (`▁the`, `Ġthe`, `<0x0A>`); '' where none has it."""

    def piece_bytes(self, token_id: int) -> bytes | None:
        """The UTF-8 bytes an id below vocab_size stands for in running text; None: a control or the unknown piece, or
        an id that no piece has. An escape character of ours (U+E000) stands as it is, since the piece behind it
        decides its meaning."""

    def is_control(self, token_id: int) -> bool:
        """Whether an id stands for a control piece (bos, eos, pad, chat markers), which no text encodes to."""

    def is_byte(self, token_id: int) -> bool:
        """Whether an id stands for a single byte that is not a character of its own accord: a byte-fallback piece, or a
        byte-level piece of one byte beyond ASCII."""

    def is_unknown(self, token_id: int) -> bool:
        """Whether an id stands for what the vocabulary cannot spell."""
