"""Byte-level spelling: each of the 256 bytes written as one printable character, so that pieces are strings.

The table is GPT-2's (openai/gpt-2, src/encoder.py): printable Latin-1 characters stand for themselves, the other bytes
take the characters from U+0100 on, in order.
"""

from __future__ import annotations

_PRINTABLE = frozenset([*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)])


def _spelling() -> tuple[str, ...]:
    others = iter(range(0x100, 0x200))
    return tuple(chr(byte if byte in _PRINTABLE else next(others)) for byte in range(256))


CHARACTERS = _spelling()  # of each byte
BYTES = {character: byte for byte, character in enumerate(CHARACTERS)}


def bytes_of(piece: str) -> bytes:
    """The bytes of a byte-level piece; where a character is none of the table's, the piece as UTF-8."""
    try:
        return bytes([BYTES[character] for character in piece])
    except KeyError:
        return piece.encode()
