"""tokenizer.json: a byte-level BPE, a sentencepiece-like BPE or a Unigram model, through the package tokenizers.

Its ids are those of Hugging Face's tokenizers with `encode_special_tokens` (transformers: `split_special_tokens=True`),
without what a post-processor puts around a text. `clean_up_tokenization_spaces` is never applied.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar

import tokenizers

from gptcli.engines.byte_level import CHARACTERS
from gptcli.engines.engine import StreamingDecoder
from gptcli.engines.json_decoding import TableDecoding, WholeDecoding, read_decoder
from gptcli.engines.json_lossless import keeps_text, spells_every_byte
from gptcli.engines.json_roles import RoleIds, find_roles
from gptcli.engines.json_vocabulary import DISGUISE, HINT, Vocabulary, for_engine, parse, read_vocabulary
from gptcli.engines.roles import Roles
from gptcli.engines.streaming import utf8
from gptcli.errors import ArtifactError

_T = TypeVar("_T")
_PROBE = "A probe: 3 words,\n\ttabs, \u00e9\u65e5\U0001f600 and </s>"


class TokenizersJson:
    """The engine over a tokenizer.json.

    vocabulary: the file's pieces, and which are control; is_byte_level: pieces are spelled byte by byte.
    """

    name = "tokenizers"

    def __init__(self, data: bytes, name: str, roles: Roles) -> None:
        """Open the bytes of a tokenizer.json; `name` is for messages. Raises ArtifactError where they are not sound,
        and where no eos can be told."""
        self._name, self._data, self._roles = name, data, roles
        vocabulary, found = self._read()
        self.vocab_size = max(vocabulary.pieces) + 1
        self._ids = {piece: token_id for token_id, piece in vocabulary.pieces.items()}
        self.bos_id, self.eos_id, self.pad_id, self.unk_id = found.bos_id, found.eos_id, found.pad_id, vocabulary.unk_id
        self._text = for_engine(vocabulary, 0)
        self.vocabulary = vocabulary.without_lists()  # tens of megabytes that only opening needs
        self._forbidden = vocabulary.control - {vocabulary.unk_id}
        self._may_hit = vocabulary.finds_words
        self._tokenizer = self._open(self._text)
        reading = read_decoder(self.vocabulary.content.get("decoder"))
        self.is_byte_level = reading is not None and reading.byte_level
        self._decoding: TableDecoding | WholeDecoding
        if reading is None:
            self._decoding = WholeDecoding(self.vocabulary, self._decode_by_engine)
        else:
            self._decoding = TableDecoding(self.vocabulary, reading, self.vocab_size)
        with _quiet():
            self.encode(_PROBE)  # what only shows at work shows here

    @property
    def content(self) -> dict[str, Any]:
        """The tokenizer.json that the engine works by, parsed: the file's, but that nothing in it leads from a text to
        a control piece. Read anew at every call."""
        content: dict[str, Any] = json.loads(self._text)
        return content

    @cached_property
    def is_lossless(self) -> bool:
        return keeps_text(self.vocabulary)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._guard(text, lambda: self._tokenizer.encode(text, add_special_tokens=False).ids)
        return self._free_of_control(text, ids)

    def encode_batch(self, texts: Sequence[str], threads: int = -1) -> list[list[int]]:
        if threads == 1:
            return [self.encode(text) for text in texts]
        rows = self._guard(texts, lambda: self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False))
        return [self._free_of_control(text, row.ids) for text, row in zip(texts, rows, strict=True)]

    def decode(self, ids: Sequence[int]) -> str:
        return self._decoding.decode(ids)

    def decoder(self) -> StreamingDecoder:
        return self._decoding.decoder()

    def id_of(self, piece: str) -> int | None:
        return self._ids.get(piece)

    def piece(self, token_id: int) -> str:
        return self.vocabulary.pieces.get(token_id, "")

    def piece_bytes(self, token_id: int) -> bytes | None:
        if token_id not in self.vocabulary.pieces or token_id in self.vocabulary.control or self.is_unknown(token_id):
            return None
        if isinstance(self._decoding, TableDecoding):
            return self._decoding.table[token_id]
        return self.piece(token_id).encode()

    def is_control(self, token_id: int) -> bool:
        return token_id in self.vocabulary.control and token_id != self.unk_id

    def is_byte(self, token_id: int) -> bool:
        piece = self.piece(token_id)
        if self.is_byte_level:
            return len(piece) == 1 and piece in _BEYOND_ASCII and piece in self.vocabulary.of_model
        data = self.piece_bytes(token_id)
        return data is not None and len(data) == 1 and len(piece) == 6 and piece.startswith("<0x")

    def is_unknown(self, token_id: int) -> bool:
        return token_id == self.unk_id

    def _read(self) -> tuple[Vocabulary, RoleIds]:
        content = parse(self._data, self._name)
        try:
            vocabulary = read_vocabulary(content, self._name, self._roles)
            found = find_roles(vocabulary, content.get("post_processor"), self._roles, self._name)
            return _apart_from_unknown(vocabulary, found, self._name), found
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            # One handler in place of a question about the type of every value of a file of any making.
            raise ArtifactError(f"{self._name} is not laid out as a tokenizer.json ({error})", HINT) from None

    def _open(self, text: str) -> Any:
        with _quiet():
            tokenizer = self._guard("", lambda: tokenizers.Tokenizer.from_str(text))
        tokenizer.encode_special_tokens = True
        for number, token in tokenizer.get_added_tokens_decoder().items():
            known = self.vocabulary.pieces.get(number)
            if known != token.content and not token.content.startswith(DISGUISE):
                raise ArtifactError(
                    f"{self._name}: the added token {token.content!r} gets the id {number}, not the one in the file",
                    "the ids of added tokens must follow the model's without a gap",
                )
        return tokenizer

    def _free_of_control(self, text: str, ids: list[int]) -> list[int]:
        """`ids`, or where the text holds even the disguise of a control piece, those under another disguise."""
        disguise = 0
        while self._may_hit and not self._forbidden.isdisjoint(ids):
            disguise += 1
            ids = self._open(for_engine(self._read()[0], disguise)).encode(text, add_special_tokens=False).ids
        return ids

    def _decode_by_engine(self, ids: list[int]) -> str:
        text: str = self._guard("", lambda: self._tokenizer.decode(ids, skip_special_tokens=False))
        return text

    def _guard(self, texts: str | Sequence[str], work: Callable[[], _T]) -> _T:
        """`work()`, its failures as ours: the engine is another language's, and its panics are no Exceptions."""
        try:
            return work()
        except BaseException as error:
            if isinstance(error, TypeError):
                for text in [texts] if isinstance(texts, str) else texts:
                    utf8(text)
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise ArtifactError(
                f"{self._name}: the package tokenizers can't work with it: {_first_line(error)}",
                HINT,
            ) from None


_BEYOND_ASCII = frozenset(CHARACTERS[0x80:])


def _apart_from_unknown(vocabulary: Vocabulary, roles: RoleIds, name: str) -> Vocabulary:
    """GPT-2's configs call its one special token the unknown one as well, which a model that can spell every byte never
    needs; another would end documents in their midst."""
    if vocabulary.unk_id is None or vocabulary.unk_id not in (roles.bos_id, roles.eos_id):
        return vocabulary
    if not spells_every_byte(vocabulary):
        raise ArtifactError(
            f"{name}: what it can't spell becomes {vocabulary.pieces[vocabulary.unk_id]!r}, which ends a document",
            "set unk_token to null in its model, or to a token of its own",
        )
    return replace(vocabulary, unk_id=None)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing on stderr: a panicking engine writes there by itself, past Python."""
    try:
        kept = os.dup(2)
    except OSError:  # there is none
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
