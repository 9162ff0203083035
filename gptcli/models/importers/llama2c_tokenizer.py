"""llama2.c's tokenizer.bin: the longest piece's bytes, then (fp32 score, int32 bytes, the bytes) for every id.

Ids 0 to 2 are unknown, bos and eos, 3 to 258 the bytes; spaces stand as spaces. A sentencepiece model or a
tokenizer.json of the same size beside it says more of the same tokenizer, and is taken before it.
"""

from __future__ import annotations

import re
import struct
from functools import partial
from pathlib import Path

from gptcli.artifacts.durable import write_bytes, write_json
from gptcli.errors import ArtifactError
from gptcli.models.importers.foreign import ForeignTokenizer
from gptcli.models.importers.sentencepiece_bytes import BYTE, CONTROL, NORMAL, UNKNOWN, Piece, Vocabulary, model_bytes
from gptcli.models.importers.tokenizer_files import CONFIG, MODEL, tokenizer_files

UNK, BOS, EOS = 0, 1, 2
_SPECIAL = {UNK: "<unk>", BOS: "<s>", EOS: "</s>"}
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_MOST_BYTES = 1 << 28
_SPACE = "\u2581"


def find_tokenizer(path: Path, vocab_size: int) -> ForeignTokenizer | None:
    """The tokenizer beside a model of `vocab_size` ids: Hugging Face's files, tokenizer.bin, or tokN.bin; None where
    none of that size is there, or several are."""
    beside = tokenizer_files(path.parent)
    if beside is not None and _size_of(path.parent) == vocab_size:
        return beside
    named = [path.with_name("tokenizer.bin"), path.with_name(f"tok{vocab_size}.bin")]
    for candidate in (*named, *_others(path, named)):
        if candidate.is_file() and len(_pieces_or_none(candidate, vocab_size) or ()) == vocab_size:
            return ForeignTokenizer((candidate,), partial(write_tokenizer, candidate))
    return None


def _others(path: Path, named: list[Path]) -> list[Path]:
    found = [each for each in sorted(path.parent.glob("tok*.bin")) if each not in named and each != path]
    return found if len(found) == 1 else []


def _size_of(directory: Path) -> int | None:
    from gptcli.tokenizer import Tokenizer

    try:
        return Tokenizer.load(directory).vocab_size
    except ArtifactError:
        return None


def read_pieces(path: Path) -> list[tuple[bytes, float]]:
    """Bytes and score of every id. Raises ArtifactError for a file that ends inside a piece, or is too large."""
    if path.stat().st_size > _MOST_BYTES:
        raise ArtifactError(f"{path} is too large for a tokenizer", "name another with --tokenizer DIR")
    data = path.read_bytes()
    pieces: list[tuple[bytes, float]] = []
    at = 4
    while at < len(data):
        if at + 8 > len(data):
            raise ArtifactError(f"{path} ends inside piece {len(pieces)}", "fetch it again from its source")
        score, length = struct.unpack_from("<fI", data, at)
        at += 8 + length
        if at > len(data):
            raise ArtifactError(f"{path} ends inside piece {len(pieces)}", "fetch it again from its source")
        pieces.append((data[at - length : at], score))
    return pieces


def write_tokenizer(path: Path, target: Path) -> None:
    """Write a tokenizer.bin as tokenizer.model and tokenizer_config.json. Raises ArtifactError where it is none."""
    rows = read_pieces(path)
    if len(rows) <= EOS:
        raise ArtifactError(f"{path} has {len(rows)} pieces, no vocabulary", "name another with --tokenizer DIR")
    pieces = tuple(_piece(path, number, *row) for number, row in enumerate(rows))
    write_bytes(target / MODEL, model_bytes(Vocabulary(pieces, UNK, BOS, EOS), str(path)))
    write_json(
        target / CONFIG,
        {
            "tokenizer_class": "LlamaTokenizer",
            **{f"{role}_token": _SPECIAL[number] for role, number in (("unk", UNK), ("bos", BOS), ("eos", EOS))},
            "add_bos_token": True,
            "add_eos_token": False,
            "legacy": False,
            "clean_up_tokenization_spaces": False,
        },
    )


def _pieces_or_none(path: Path, vocab_size: int) -> list[tuple[bytes, float]] | None:
    try:
        return read_pieces(path) if path.stat().st_size >= 8 * vocab_size else None
    except ArtifactError:
        return None


def _piece(path: Path, number: int, data: bytes, score: float) -> Piece:
    if number in _SPECIAL:
        return Piece(_SPECIAL[number], score, UNKNOWN if number == UNK else CONTROL)
    try:
        text = data.decode().replace(" ", _SPACE)
    except UnicodeDecodeError:
        raise ArtifactError(f"{path}: piece {number} is no UTF-8", "fetch it again from its source") from None
    return Piece(text, score, BYTE if _BYTE.fullmatch(text) else NORMAL)
