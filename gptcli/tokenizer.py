"""One face over the tokenizer engine: ids from text, text from ids, whole or as a stream.

User text is never markup: `encode` gives control ids for no text whatever, because sentencepiece doesn't match control
pieces in its input. Nothing here loads torch.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import sentencepiece

from gptcli.artifacts.durable import write_bytes
from gptcli.errors import ArtifactError, SpecError

MODEL_FILE = "tokenizer.model"
CONFIG_FILE = "tokenizer_config.json"
CARRIED_FILES = (MODEL_FILE, "tokenizer.json", CONFIG_FILE, "chat_template.jinja", "special_tokens_map.json")
TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"

_SPACE = "\u2581"  # how sentencepiece writes a space inside a piece
_ESCAPE = "\ue000"  # our own models write U+E000 as U+E000 'A' and U+2581 as U+E000 'B'
_REPLACEMENT = "\ufffd"


class Tokenizer:
    """A loaded tokenizer directory.

    vocab_size: int; bos_id, pad_id: int | None; eos_id, eot_id: int (eot_id ends a chat turn: the `<|im_end|>` control
    piece, or eos where the model has none); marker_ids: the chat's control markers, {} when the model lacks them;
    fingerprint: SHA-256 of tokenizer.model, hex.
    """

    def __init__(self, directory: Path, processor: Any, fingerprint: str) -> None:
        self.directory = directory
        self.fingerprint = fingerprint
        self.processor = processor
        self.vocab_size: int = processor.vocab_size()
        self.bos_id = _known(processor.bos_id())
        self.pad_id = _known(processor.pad_id())
        self.eos_id: int = processor.eos_id()
        self.marker_ids = self._markers()
        self.eot_id = self.marker_ids.get(TURN_END, self.eos_id)
        self.escapes = processor.decode_pieces([_ESCAPE + "B"]) == _SPACE
        self._strips_first = processor.decode_pieces([_SPACE + "a"]) == "a"
        self._strips_until_text = self._strips_first and processor.decode_pieces([_SPACE, _SPACE + "a"]) == "a"

    @classmethod
    def load(cls, directory: Path) -> Tokenizer:
        """Open `directory`/tokenizer.model with the settings stored in it.

        Raises ArtifactError where the file is missing, is no sentencepiece model, or has no end-of-sequence piece.
        """
        path = Path(directory) / MODEL_FILE
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ArtifactError(
                f"{path}: no tokenizer here ({error.strerror or error})", "make one with: gptcli tokenize"
            ) from None
        processor = open_model(data, str(path))
        return cls(Path(directory), processor, hashlib.sha256(data).hexdigest())

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that travel with a model: those of CARRIED_FILES that are there."""
        return tuple(name for name in CARRIED_FILES if (self.directory / name).is_file())

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without bos or eos; never a control id. Raises SpecError for a lone surrogate."""
        ids: list[int] = self.processor.encode(_utf8(text))
        return ids

    def encode_batch(self, texts: list[str], threads: int = -1) -> list[list[int]]:
        """`encode` of each text by the engine's own threads (-1: as many as there are cores)."""
        ids: list[list[int]] = self.processor.encode([_utf8(text) for text in texts], num_threads=threads)
        return ids

    def document(self, text: str) -> list[int]:
        """`[bos] encode(text) eos`: a document as it stands in token shards (no bos where the model has none)."""
        head = [] if self.bos_id is None else [self.bos_id]
        return [*head, *self.encode(text), self.eos_id]

    def decode(self, ids: list[int]) -> str:
        """Text of `ids`; control ids are skipped, an id outside the vocabulary and an invalid byte give U+FFFD."""
        if all(0 <= token_id < self.vocab_size for token_id in ids):
            text: str = self.processor.decode(list(ids))
            return text
        decoder = Decoder(self)
        return "".join(map(decoder.feed, ids)) + decoder.finish()

    def decoder(self) -> Decoder:
        """A fresh streaming decoder."""
        return Decoder(self)

    def piece(self, token_id: int) -> str:
        """The vocabulary's own spelling of an id (`▁the`, `<0x0A>`, `</s>`). Raises SpecError outside it."""
        if not 0 <= token_id < self.vocab_size:
            raise SpecError(f"token id {token_id} is outside the vocabulary of {self.vocab_size}")
        piece: str = self.processor.id_to_piece(token_id)
        return piece

    def is_control(self, token_id: int) -> bool:
        """Whether an id stands for a control piece (bos, eos, pad, chat markers), which no text encodes to."""
        return bool(self.processor.is_control(token_id))

    def copy_to(self, directory: Path, model_max_length: int | None = None) -> tuple[str, ...]:
        """Copy the tokenizer's files into `directory`; returns their names.

        `model_max_length` (tokens) is written to tokenizer_config.json, where there is one.
        """
        names = self.files
        for name in names:
            data = (self.directory / name).read_bytes()
            if name == CONFIG_FILE and model_max_length is not None:
                config = {**json.loads(data), "model_max_length": model_max_length}
                data = (json.dumps(config, ensure_ascii=False, indent=1) + "\n").encode()
            write_bytes(directory / name, data)
        return names

    def _markers(self) -> dict[str, int]:
        found = {}
        for name in (TURN_START, TURN_END):
            token_id = self.processor.piece_to_id(name)
            if self.processor.is_control(token_id):
                found[name] = token_id
        return found if len(found) == 2 else {}


class Decoder:
    """Text from a stream of ids, as early as it is certain.

    No call returns part of a character, and all texts joined, with `finish`, equal `Tokenizer.decode` of all ids.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._processor = tokenizer.processor
        self._bytes = b""  # byte pieces that don't make whole characters yet
        self._held = ""  # an escape character whose meaning the next one decides
        self._may_strip = tokenizer._strips_first
        self._any_text = False
        self._stripped = False

    def feed(self, token_id: int) -> str:
        """The text that `token_id` settles, possibly ''."""
        if not 0 <= token_id < self._tokenizer.vocab_size:
            return self._unescape(self._flush_bytes() + self._saw(_REPLACEMENT))
        if self._processor.is_byte(token_id):
            self._bytes += bytes([int(self._processor.id_to_piece(token_id)[3:5], 16)])
            text, self._bytes = _whole_characters(self._bytes)
            return self._unescape(self._saw(text))
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
        if self._may_strip and piece.startswith(_SPACE):
            piece = piece[1:]
            self._stripped = not self._tokenizer._strips_until_text
        return self._saw(piece.replace(_SPACE, " "))

    def _flush_bytes(self) -> str:
        text, rest = _whole_characters(self._bytes)
        self._bytes = b""
        return self._saw(text + _REPLACEMENT * len(rest))

    def _saw(self, text: str) -> str:
        self._any_text = self._any_text or bool(text)
        return text

    def _unescape(self, text: str) -> str:
        if not self._tokenizer.escapes:
            return text
        text, self._held = self._held + text, ""
        if text.endswith(_ESCAPE):
            text, self._held = text[:-1], _ESCAPE
        return text.replace(_ESCAPE + "B", _SPACE).replace(_ESCAPE + "A", _ESCAPE)


def open_model(data: bytes, name: str) -> Any:
    """A sentencepiece processor of a serialized model; `name` is for messages. Raises ArtifactError."""
    sentencepiece.set_min_log_level(2)  # the engine writes to stderr on its own otherwise
    processor = sentencepiece.SentencePieceProcessor()
    hint = "restore it from its source, or train a new one with: gptcli tokenize"
    try:
        processor.load_from_serialized_proto(data)
        size = processor.vocab_size()
    except (RuntimeError, ValueError, OSError):
        raise ArtifactError(f"{name}: not a sentencepiece model", hint) from None
    if size == 0:
        raise ArtifactError(f"{name}: a sentencepiece model without pieces", hint)
    if processor.eos_id() < 0:
        raise ArtifactError(f"{name}: the model has no end-of-sequence piece, so nothing marks a document's end", hint)
    return processor


def _known(token_id: int) -> int | None:
    return token_id if token_id >= 0 else None


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise SpecError(
            f"the text holds a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}",
            "text must be valid Unicode: decode the source with errors='replace'",
        ) from None


def _whole_characters(data: bytes) -> tuple[str, bytes]:
    """The characters `data` surely begins with (an impossible byte is U+FFFD), and the bytes that wait for more."""
    text = []
    while data:
        size = _length_by_lead(data[0])
        if any(not 0x80 <= byte < 0xC0 for byte in data[1:size]):
            size = 0
        if 0 < len(data) < size:
            break
        try:
            text.append(data[:size].decode("utf-8") or _REPLACEMENT)
        except UnicodeDecodeError:  # overlong, a surrogate, or beyond U+10FFFF: each byte stands alone
            size = 0
            text.append(_REPLACEMENT)
        data = data[max(size, 1) :]
    return "".join(text), data


def _length_by_lead(byte: int) -> int:
    """Bytes of a UTF-8 character by its first byte; 0 where none begins so."""
    if byte < 0x80:
        return 1
    if byte < 0xC0 or byte >= 0xF8:
        return 0
    return 2 + (byte >= 0xE0) + (byte >= 0xF0)
