"""One face over the tokenizer engines: ids from text, text from ids, whole or as a stream.

User text is never markup: `encode` gives control ids for no text whatever. Nothing here loads torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from gptcli.artifacts.durable import write_bytes
from gptcli.engines.engine import Engine, StreamingDecoder
from gptcli.engines.json_vocabulary import TURN_END, TURN_START
from gptcli.engines.roles import CONFIG_FILE, MAP_FILE, read_roles
from gptcli.engines.sentence_piece import SentencePiece, open_model
from gptcli.engines.vocabulary_pair import find_pair, json_of_pair
from gptcli.errors import ArtifactError, SpecError

MODEL_FILE = "tokenizer.model"
JSON_FILE = "tokenizer.json"
ENGINE_FILES = (MODEL_FILE, JSON_FILE)  # the first that is there is the tokenizer
TEMPLATE_FILE = "chat_template.jinja"
CARRIED_FILES = (MODEL_FILE, JSON_FILE, CONFIG_FILE, TEMPLATE_FILE, MAP_FILE)


class Tokenizer:
    """A loaded tokenizer directory.

    engine: what does the work; vocab_size: the largest id + 1; bos_id, pad_id: int | None; eos_id, eot_id: int (eot_id
    ends a chat turn: the `<|im_end|>` control piece, or eos where the model has none); marker_ids: the chat's control
    markers, {} when the model lacks them; fingerprint: SHA-256 of the engine's file, hex.
    """

    def __init__(
        self, directory: Path, engine: Engine, fingerprint: str, made: Mapping[str, bytes] | None = None
    ) -> None:
        self.directory = directory
        self._made = made or {}  # files that stand for others in the directory
        self.fingerprint = fingerprint
        self.engine = engine
        self.vocab_size = engine.vocab_size
        self.bos_id = engine.bos_id
        self.pad_id = engine.pad_id
        self.eos_id = engine.eos_id
        self.marker_ids = self._markers()
        self.eot_id = self.marker_ids.get(TURN_END, self.eos_id)

    @classmethod
    def load(cls, directory: Path) -> Tokenizer:
        """Open the tokenizer.model of `directory`, its tokenizer.json, or what its vocabulary and merges amount to.

        Raises ArtifactError where neither is there, or the one is broken or has no end-of-sequence piece.
        """
        directory = Path(directory)
        pair = find_pair(directory) if engine_file(directory) is None else None
        if pair is not None:
            data, config = json_of_pair(*pair)
            made = {JSON_FILE: data, CONFIG_FILE: config}
            return cls(directory, open_engine(directory / JSON_FILE, data), hashlib.sha256(data).hexdigest(), made)
        path = engine_file(directory) or directory / MODEL_FILE
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ArtifactError(
                f"{path}: no tokenizer here ({error.strerror or error})", "make one with: gptcli tokenize"
            ) from None
        return cls(directory, open_engine(path, data), hashlib.sha256(data).hexdigest())

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that travel with a model: those of CARRIED_FILES that are there."""
        return tuple(name for name in CARRIED_FILES if name in self._made or (self.directory / name).is_file())

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without bos or eos; never a control id. Raises SpecError for a lone surrogate."""
        return self.engine.encode(text)

    def encode_batch(self, texts: list[str], threads: int = -1) -> list[list[int]]:
        """`encode` of each text; `threads` 1: in this thread, -1: in as many of the engine's own as there are cores."""
        return self.engine.encode_batch(texts, threads)

    def document(self, text: str) -> list[int]:
        """`[bos] encode(text) eos`: a document as it stands in token shards (no bos where the model has none)."""
        head = [] if self.bos_id is None else [self.bos_id]
        return [*head, *self.encode(text), self.eos_id]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; control ids are skipped, an id outside the vocabulary and an invalid byte give U+FFFD."""
        return self.engine.decode(ids)

    def decoder(self) -> StreamingDecoder:
        """A fresh streaming decoder."""
        return self.engine.decoder()

    def piece(self, token_id: int) -> str:
        """The vocabulary's own spelling of an id (`▁the`, `Ġthe`, `<0x0A>`, `</s>`), '' where no piece has it. Raises
        SpecError outside the vocabulary."""
        if not 0 <= token_id < self.vocab_size:
            raise SpecError(f"token id {token_id} is outside the vocabulary of {self.vocab_size}")
        return self.engine.piece(token_id)

    def is_control(self, token_id: int) -> bool:
        """Whether an id stands for a control piece (bos, eos, pad, chat markers), which no text encodes to."""
        return self.engine.is_control(token_id)

    def copy_to(self, directory: Path, model_max_length: int | None = None) -> tuple[str, ...]:
        """Copy the tokenizer's files into `directory`; returns their names.

        `model_max_length` (tokens) is written to tokenizer_config.json, where there is one.
        """
        names = self.files
        for name in names:
            data = self._made.get(name) or (self.directory / name).read_bytes()
            if name == CONFIG_FILE and model_max_length is not None:
                config = {**json.loads(data), "model_max_length": model_max_length}
                data = (json.dumps(config, ensure_ascii=False, indent=1) + "\n").encode()
            write_bytes(directory / name, data)
        return names

    def _markers(self) -> dict[str, int]:
        found = {}
        for name in (TURN_START, TURN_END):
            token_id = self.engine.id_of(name)
            if token_id is not None and self.engine.is_control(token_id):
                found[name] = token_id
        return found if len(found) == 2 else {}


def engine_file(directory: Path) -> Path | None:
    """The file that is the tokenizer of a directory: tokenizer.model, or tokenizer.json where there is no other."""
    return next((directory / name for name in ENGINE_FILES if (directory / name).is_file()), None)


def open_engine(path: Path, data: bytes) -> Engine:
    """The engine of a tokenizer file's bytes; files beside it tell a tokenizer.json's roles. Raises ArtifactError."""
    if path.suffix != ".json":
        return SentencePiece(open_model(data, str(path)))
    from gptcli.engines.tokenizers_json import TokenizersJson  # most tokenizers need none of that package

    return TokenizersJson(data, str(path), read_roles(path.parent))


__all__ = [
    "CARRIED_FILES",
    "CONFIG_FILE",
    "ENGINE_FILES",
    "JSON_FILE",
    "MODEL_FILE",
    "TEMPLATE_FILE",
    "TURN_END",
    "TURN_START",
    "Tokenizer",
    "engine_file",
    "open_engine",
    "open_model",
]
