"""The few settings of a serialized sentencepiece model that its Python API doesn't tell, read from the bytes.

Protocol buffers' wire format (https://protobuf.dev/programming-guides/encoding): a message is a row of fields, each a
varint tag (number << 3 | wire type) and a value. Field numbers are those of sentencepiece_model.proto. Reading them
here saves the protobuf package at run time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
PIECES, TRAINER_SPEC, NORMALIZER_SPEC, DENORMALIZER_SPEC = 1, 2, 3, 5  # fields of ModelProto
PIECE_TEXT, PIECE_SCORE = 1, 2  # of SentencePiece
PIECE_TYPE, NORMAL, USER_DEFINED, UNUSED = 3, 1, 4, 5  # of SentencePiece; three of SentencePiece.Type
MODEL_TYPE, SUFFIX_SPACE, BYTE_FALLBACK, SEEDS_PATH = 3, 24, 35, 54  # of TrainerSpec
CHARSMAP, DUMMY_PREFIX, FOLD_SPACES, ESCAPE_SPACES, RULES_PATH = 2, 3, 4, 5, 6  # of NormalizerSpec
BPE = 2  # a TrainerSpec.ModelType


@dataclass(frozen=True)
class Settings:
    """What decides how a model treats its input.

    `has_user_defined`: some pieces are matched in the text before any merge; `has_unused`: some are taken apart again
    after it; `charsmap`: the compiled normalisation rules, b"" for none.
    """

    is_bpe: bool
    byte_fallback: bool
    has_user_defined: bool
    has_unused: bool
    space_is_suffix: bool
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    escape_whitespaces: bool
    charsmap: bytes


def read_settings(model: bytes) -> Settings:
    """Settings of a serialized model, with the schema's defaults for what is not stored."""
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    kinds: set[int | bytes] = set()
    for number, value, _ in _fields(model):
        if number == PIECES and isinstance(value, bytes) and b"\x18" in value:  # a type's tag: most have the default
            kinds.update(kind for inner, kind, _ in _fields(value) if inner == PIECE_TYPE)
        if number == TRAINER_SPEC and isinstance(value, bytes):
            trainer.update({inner: content for inner, content, _ in _fields(value)})
        if number == NORMALIZER_SPEC and isinstance(value, bytes):
            normalizer.update({inner: content for inner, content, _ in _fields(value)})
    charsmap = normalizer.get(CHARSMAP, b"")
    return Settings(
        is_bpe=trainer.get(MODEL_TYPE, 1) == BPE,
        byte_fallback=bool(trainer.get(BYTE_FALLBACK, 0)),
        has_user_defined=USER_DEFINED in kinds,
        has_unused=UNUSED in kinds,
        space_is_suffix=bool(trainer.get(SUFFIX_SPACE, 0)),
        add_dummy_prefix=bool(normalizer.get(DUMMY_PREFIX, 1)),
        remove_extra_whitespaces=bool(normalizer.get(FOLD_SPACES, 1)),
        escape_whitespaces=bool(normalizer.get(ESCAPE_SPACES, 1)),
        charsmap=charsmap if isinstance(charsmap, bytes) else b"",
    )


def without_paths(model: bytes) -> bytes:
    """The same model without the paths of the files it was trained with, which differ from run to run."""
    paths = {NORMALIZER_SPEC: RULES_PATH, DENORMALIZER_SPEC: RULES_PATH, TRAINER_SPEC: SEEDS_PATH}
    out = bytearray()
    for number, value, raw in _fields(model):
        if number in paths and isinstance(value, bytes):
            kept = b"".join(part for inner, _, part in _fields(value) if inner != paths[number])
            raw = _varint(number << 3 | LENGTH) + _varint(len(kept)) + kept
        out += raw
    return bytes(out)


def without_prefix(model: bytes) -> bytes:
    """The same model, but putting no space before a text."""
    out = bytearray()
    for number, value, raw in _fields(model):
        if number == NORMALIZER_SPEC and isinstance(value, bytes):
            kept = b"".join(part for inner, _, part in _fields(value) if inner != DUMMY_PREFIX)
            kept += _varint(DUMMY_PREFIX << 3 | VARINT) + _varint(0)
            raw = _varint(number << 3 | LENGTH) + _varint(len(kept)) + kept
        out += raw
    return bytes(out)


def user_token_ids(model: bytes) -> list[int]:
    """The ids of the pieces that are matched in the text before all others."""
    pieces = (value for number, value, _ in _fields(model) if number == PIECES and isinstance(value, bytes))
    kinds = (next((kind for inner, kind, _ in _fields(piece) if inner == PIECE_TYPE), NORMAL) for piece in pieces)
    return [index for index, kind in enumerate(kinds) if kind == USER_DEFINED]


def with_pieces(model: bytes, change: Callable[[str, float, int], tuple[str, float]]) -> bytes:
    """The same model with the text and score of each piece as `change(text, score, type)` gives them."""
    out = bytearray()
    for number, value, raw in _fields(model):
        if number == PIECES and isinstance(value, bytes):
            given = {inner: content for inner, content, _ in _fields(value)}
            text, score, kind = given.get(PIECE_TEXT, b""), given.get(PIECE_SCORE, bytes(4)), given.get(PIECE_TYPE, 1)
            assert isinstance(text, bytes) and isinstance(score, bytes) and isinstance(kind, int)
            new_text, new_score = change(text.decode(), struct.unpack("<f", score)[0], kind)
            data = new_text.encode()
            kept = _varint(PIECE_TEXT << 3 | LENGTH) + _varint(len(data)) + data
            kept += _varint(PIECE_SCORE << 3 | FIXED32) + struct.pack("<f", new_score)
            kept += b"".join(part for inner, _, part in _fields(value) if inner not in (PIECE_TEXT, PIECE_SCORE))
            raw = _varint(number << 3 | LENGTH) + _varint(len(kept)) + kept
        out += raw
    return bytes(out)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes, bytes]]:
    """(field number, value, the field's own bytes) of each field of a message."""
    position = 0
    while position < len(message):
        start = position
        tag, position = _read_varint(message, position)
        number, wire_type = tag >> 3, tag & 7
        value: int | bytes
        if wire_type == VARINT:
            value, position = _read_varint(message, position)
        else:
            if wire_type == LENGTH:
                size, position = _read_varint(message, position)
            else:
                size = {FIXED64: 8, FIXED32: 4}[wire_type]
            value = message[position : position + size]
            position += size
        yield number, value, message[start:position]


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
