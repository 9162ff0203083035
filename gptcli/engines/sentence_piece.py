"""tokenizer.model: a sentencepiece model with the settings stored in it.

sentencepiece matches control pieces in no text, so nothing a user writes becomes one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import sentencepiece

from gptcli.engines.engine import REPLACEMENT, SPACE
from gptcli.engines.model_proto import Settings, read_settings
from gptcli.engines.streaming import EACH_BYTE, Utf8, utf8
from gptcli.errors import ArtifactError

ESCAPE = "\ue000"  # our own models write U+E000 as U+E000 'A' and U+2581 as U+E000 'B'
_TIKTOKEN = re.compile(rb"(?:[A-Za-z0-9+/]+=* \d+\r?\n){3}")  # how its files begin: Base64 and a rank a line
ESCAPE_RULES = frozenset({(SPACE, ESCAPE + "B"), (ESCAPE, ESCAPE + "A")})


class SentencePiece:
    """The engine over a `processor` of the package sentencepiece."""

    name = "sentencepiece"

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.vocab_size: int = processor.vocab_size()
        self.bos_id = _known(processor.bos_id())
        self.eos_id: int = processor.eos_id()
        self.pad_id = _known(processor.pad_id())
        self.unk_id = _known(processor.unk_id())
        self.escapes = processor.decode_pieces([ESCAPE + "B"]) == SPACE
        self.strips_first = processor.decode_pieces([SPACE + "a"]) == "a"
        self.strips_until_text = self.strips_first and processor.decode_pieces([SPACE, SPACE + "a"]) == "a"

    @property
    def model(self) -> bytes:
        """The serialized model."""
        data: bytes = self.processor.serialized_model_proto()
        return data

    @cached_property
    def settings(self) -> Settings:
        """What decides how the model treats its input."""
        return read_settings(self.model)

    @cached_property
    def is_lossless(self) -> bool:
        """Spaces are kept as they are, unknown characters fall back to bytes, and the only normalisation is our own
        escape, which decoding undoes."""
        settings = self.settings
        return (
            settings.byte_fallback
            and settings.escape_whitespaces
            and not settings.space_is_suffix
            and not settings.add_dummy_prefix
            and not settings.remove_extra_whitespaces
            and bool(settings.charsmap)
            and self.only_escapes
            and self.escapes
        )

    @cached_property
    def only_escapes(self) -> bool:
        """Whether the model's normalisation is our escape and nothing else; False where a release can't tell."""
        normalizer = sentencepiece.SentencePieceNormalizer(model_proto=self.model)
        return hasattr(normalizer, "Decompile") and set(map(tuple, normalizer.Decompile())) == ESCAPE_RULES

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.processor.encode(utf8(text))
        return ids

    def encode_batch(self, texts: Sequence[str], threads: int = -1) -> list[list[int]]:
        ids: list[list[int]] = self.processor.encode([utf8(text) for text in texts], num_threads=threads)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; an invalid byte gives U+FFFD."""
        if all(0 <= token_id < self.vocab_size for token_id in ids):
            text: str = self.processor.decode(list(ids))
            return text
        decoder = self.decoder()
        return "".join(map(decoder.feed, ids)) + decoder.finish()

    def decoder(self) -> Decoder:
        return Decoder(self)

    def id_of(self, piece: str) -> int | None:
        token_id: int = self.processor.piece_to_id(piece)  # the unknown id where there is no such piece
        return token_id if 0 <= token_id < self.vocab_size and self.piece(token_id) == piece else None

    def piece(self, token_id: int) -> str:
        piece: str = self.processor.id_to_piece(token_id)
        return piece

    def piece_bytes(self, token_id: int) -> bytes | None:
        if self.is_control(token_id) or self.is_unknown(token_id):
            return None
        piece = self.piece(token_id)
        return bytes([int(piece[3:5], 16)]) if self.is_byte(token_id) else piece.replace(SPACE, " ").encode()

    def is_control(self, token_id: int) -> bool:
        return bool(self.processor.is_control(token_id))

    def is_byte(self, token_id: int) -> bool:
        return bool(self.processor.is_byte(token_id))

    def is_unknown(self, token_id: int) -> bool:
        return bool(self.processor.is_unknown(token_id))


class Decoder:
    """Text from a stream of ids, equal to the processor's own decoding of them all."""

    def __init__(self, engine: SentencePiece) -> None:
        self._engine = engine
        self._processor = engine.processor
        self._bytes = Utf8(EACH_BYTE)  # byte pieces that don't make whole characters yet stay there
        self._held = ""  # an escape character whose meaning the next one decides
        self._may_strip = engine.strips_first
        self._any_text = False
        self._stripped = False

    def feed(self, token_id: int) -> str:
        """The text that `token_id` settles, possibly ''."""
        if not 0 <= token_id < self._engine.vocab_size:
            return self._unescape(self._flush_bytes() + self._saw(REPLACEMENT))
        if self._processor.is_byte(token_id):
            byte = int(self._processor.id_to_piece(token_id)[3:5], 16)
            return self._unescape(self._saw(self._bytes.feed(bytes([byte]))))
        text = self._flush_bytes()
        return self._unescape(text + self._plain(token_id))

    def finish(self) -> str:
        """What is still held back: an unfinished character as U+FFFD a byte. The decoder is then done with."""
        text, self._held = self._unescape(self._flush_bytes()) + self._held, ""
        return text

    def _plain(self, token_id: int) -> str:
        # A model with a dummy prefix drops the space it put before the first word: at the very start, until any
        # text or, where it does not fold spaces, one such space has gone by.
        if self._any_text or self._stripped:
            self._may_strip = False
        if self._processor.is_control(token_id):
            return ""
        if self._processor.is_unknown(token_id):
            unknown: str = self._processor.decode([token_id])
            return self._saw(unknown)
        piece: str = self._processor.id_to_piece(token_id)
        if self._may_strip and piece.startswith(SPACE):
            piece = piece[1:]
            self._stripped = not self._engine.strips_until_text
        return self._saw(piece.replace(SPACE, " "))

    def _flush_bytes(self) -> str:
        return self._saw(self._bytes.finish())

    def _saw(self, text: str) -> str:
        self._any_text = self._any_text or bool(text)
        return text

    def _unescape(self, text: str) -> str:
        if not self._engine.escapes:
            return text
        text, self._held = self._held + text, ""
        if text.endswith(ESCAPE):
            text, self._held = text[:-1], ESCAPE
        return text.replace(ESCAPE + "B", SPACE).replace(ESCAPE + "A", ESCAPE)


def open_model(data: bytes, name: str) -> Any:
    """A sentencepiece processor of a serialized model; `name` is for messages. Raises ArtifactError."""
    sentencepiece.set_min_log_level(2)  # the engine writes to stderr on its own otherwise
    processor = sentencepiece.SentencePieceProcessor()
    hint = "restore it from its source, or train a new one with: gptcli tokenize"
    try:
        processor.load_from_serialized_proto(data)
        size = processor.vocab_size()
    except (RuntimeError, ValueError, OSError):
        if _TIKTOKEN.match(data):
            hint = "take the tokenizer.json that is published with the same model"
            raise ArtifactError(f"{name}: tiktoken's ranks, not a sentencepiece model", hint) from None
        raise ArtifactError(f"{name}: not a sentencepiece model", hint) from None
    if size == 0:
        raise ArtifactError(f"{name}: a sentencepiece model without pieces", hint)
    if processor.eos_id() < 0:
        raise ArtifactError(f"{name}: the model has no end-of-sequence piece, so nothing marks a document's end", hint)
    return processor


def _known(token_id: int) -> int | None:
    return token_id if token_id >= 0 else None
