"""A sentencepiece BPE model built from pieces and scores, as other formats carry them.

Protocol buffers' wire format by hand, field numbers of sentencepiece_model.proto; see engines/model_proto.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace

from gptcli.errors import ArtifactError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # SentencePiece.Type, and GGUF's token types
_VARINT, _LENGTH, _FIXED32 = 0, 2, 5
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3  # of ModelProto
_MODEL_TYPE, _VOCAB_SIZE, _BYTE_FALLBACK = 3, 4, 35  # of TrainerSpec
_IDS, _NAMES = {"unk": 40, "bos": 41, "eos": 42, "pad": 43}, {"unk": 45, "bos": 46, "eos": 47, "pad": 48}
_NAME, _CHARSMAP, _DUMMY_PREFIX, _FOLD_SPACES, _ESCAPE_SPACES = 1, 2, 3, 4, 5  # of NormalizerSpec
_BPE = 2
_LARGEST_SCORE = (2 - 2**-23) * 2.0**127  # the largest float32


@dataclass(frozen=True)
class Piece:
    """A piece as sentencepiece spells it (U+2581 for a space), its score, and its type."""

    text: str
    score: float
    kind: int = NORMAL


@dataclass(frozen=True)
class Vocabulary:
    """The pieces in order of their ids, the ids of the special ones, and how a text is prepared."""

    pieces: tuple[Piece, ...]
    unk_id: int
    bos_id: int | None
    eos_id: int
    pad_id: int | None = None
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = False
    charsmap: bytes = b""


def model_bytes(vocabulary: Vocabulary, where: str) -> bytes:
    """The serialized model; its special pieces become control pieces, which no text encodes to.

    Raises ArtifactError, beginning with `where`, for pieces that are empty or there twice, scores that are no float32,
    and ids without a piece.
    """
    roles = {"unk": vocabulary.unk_id, "bos": vocabulary.bos_id, "eos": vocabulary.eos_id, "pad": vocabulary.pad_id}
    pieces = list(vocabulary.pieces)
    for role, number in roles.items():
        if number is not None and not 0 <= number < len(pieces):
            raise ArtifactError(f"{where}: the {role} id {number} is outside the {len(pieces)} pieces", _HINT)
        if number is not None and role != "unk" and number != vocabulary.unk_id:
            pieces[number] = replace(pieces[number], kind=CONTROL)
    pieces[vocabulary.unk_id] = replace(pieces[vocabulary.unk_id], kind=UNKNOWN)
    seen: dict[str, int] = {}
    for number, piece in enumerate(pieces):
        first = seen.setdefault(piece.text, number)
        if first != number or not piece.text:
            what = f"pieces {first} and {number} are both {piece.text!r}" if piece.text else f"piece {number} is empty"
            raise ArtifactError(f"{where}: {what}", _HINT)
        if not abs(piece.score) <= _LARGEST_SCORE:
            raise ArtifactError(f"{where}: the score of piece {number} is {piece.score}, no float32", _HINT)
    trainer = _integer(_MODEL_TYPE, _BPE) + _integer(_VOCAB_SIZE, len(pieces))
    trainer += _integer(_BYTE_FALLBACK, any(piece.kind == BYTE for piece in pieces))
    for role, number in roles.items():
        trainer += _integer(_IDS[role], -1 if number is None else number)
    for role, number in roles.items():
        trainer += _text(_NAMES[role], pieces[number].text) if number is not None else b""
    normalizer = _text(_NAME, "identity") + (_bytes(_CHARSMAP, vocabulary.charsmap) if vocabulary.charsmap else b"")
    normalizer += _integer(_DUMMY_PREFIX, vocabulary.add_dummy_prefix)
    normalizer += _integer(_FOLD_SPACES, vocabulary.remove_extra_whitespaces) + _integer(_ESCAPE_SPACES, True)
    return _all_pieces(pieces) + _bytes(_TRAINER, trainer) + _bytes(_NORMALIZER, normalizer)


_HINT = "name the tokenizer that the model was trained with: --tokenizer DIR"


def _all_pieces(pieces: Iterable[Piece]) -> bytes:
    out = bytearray()
    for piece in pieces:
        kind = b"" if piece.kind == NORMAL else _integer(3, piece.kind)
        score = _varint(2 << 3 | _FIXED32) + struct.pack("<f", piece.score)
        out += _bytes(_PIECES, _text(1, piece.text) + score + kind)
    return bytes(out)


def _integer(number: int, value: int) -> bytes:
    return _varint(number << 3 | _VARINT) + _varint(int(value) & (1 << 64) - 1)


def _text(number: int, value: str) -> bytes:
    return _bytes(number, value.encode())


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
