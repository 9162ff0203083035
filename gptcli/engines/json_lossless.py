"""Whether a tokenizer.json's settings promise that every text decodes to itself."""

from __future__ import annotations

from typing import Any

from gptcli.engines.byte_level import BYTES, bytes_of
from gptcli.engines.engine import SPACE
from gptcli.engines.json_decoding import read_decoder
from gptcli.engines.json_vocabulary import Vocabulary

_ESCAPE = "\ue000"  # as in our own models (sentence_piece.py)
_CUTTING = frozenset({"Split", "Digits", "Punctuation", "UnicodeScripts"})  # pre-tokenizers that cut and change nothing


def keeps_text(vocabulary: Vocabulary) -> bool:
    """True for byte-level models that normalise nothing and have all 256 bytes, and for our own escaped ones."""
    content, model = vocabulary.content, vocabulary.model
    if model.get("end_of_word_suffix"):
        return False
    if any(token.get("lstrip") or token.get("rstrip") for token in vocabulary.plain_added):
        return False
    reading = read_decoder(content.get("decoder"))
    if reading is None:
        return False
    if reading.byte_level:
        return (
            not _steps(content.get("normalizer"), "normalizers")
            and _only_cuts(content.get("pre_tokenizer"))
            and spells_every_byte(vocabulary)
            and all(_stands_for_itself(token["content"], vocabulary) for token in vocabulary.plain_added)
        )
    return (
        reading.byte_pieces
        and spells_every_byte(vocabulary)
        and content.get("pre_tokenizer") is None
        and not vocabulary.plain_added
        and _replacements(content.get("normalizer")) == [(_ESCAPE, _ESCAPE + "A"), (SPACE, _ESCAPE + "B"), (" ", SPACE)]
        and reading.replacements == ((SPACE, " "),)
        and reading.after == (("replace", _ESCAPE + "B", SPACE), ("replace", _ESCAPE + "A", _ESCAPE))
    )


def spells_every_byte(vocabulary: Vocabulary) -> bool:
    """Whether there is a piece for every single byte, so that nothing is unknown."""
    reading = read_decoder(vocabulary.content.get("decoder"))
    if reading is not None and reading.byte_level:
        return all(character in vocabulary.of_model for character in BYTES)
    return vocabulary.model.get("byte_fallback") is True and all(
        f"<0x{byte:02X}>" in vocabulary.of_model for byte in range(256)
    )


def _stands_for_itself(piece: str, vocabulary: Vocabulary) -> bool:
    return piece not in vocabulary.of_model or bytes_of(piece) == piece.encode()


def _only_cuts(pre_tokenizer: Any) -> bool:
    steps = _steps(pre_tokenizer, "pretokenizers")
    spelled = [step for step in steps if step.get("type") == "ByteLevel"]
    return (
        len(spelled) == 1
        and spelled[0].get("add_prefix_space") is False
        and all(
            step.get("type") == "ByteLevel" or (step.get("type") in _CUTTING and step.get("behavior") != "Removed")
            for step in steps
        )
    )


def _replacements(normalizer: Any) -> list[tuple[Any, Any]]:
    steps = _steps(normalizer, "normalizers")
    if any(step.get("type") != "Replace" or not isinstance(step.get("pattern"), dict) for step in steps):
        return []
    return [(step["pattern"].get("String"), step.get("content")) for step in steps]


def _steps(step: Any, inside: str) -> list[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, sequences in sequences flattened."""
    if not isinstance(step, dict):
        return []
    if step.get("type") != "Sequence":
        return [step]
    return [each for inner in step.get(inside) or [] for each in _steps(inner, inside)]
