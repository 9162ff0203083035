"""From ids to text as a tokenizer.json's `decoder` says, whole or as a stream, by one table of bytes.

Each id stands for some bytes; all bytes joined and read as UTF-8 are the text, but for what two steps do to it as a
whole. Decoders of any other make are asked as they are, at the end of a stream.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gptcli.engines.byte_level import bytes_of
from gptcli.engines.engine import REPLACEMENT
from gptcli.engines.json_vocabulary import Vocabulary
from gptcli.engines.streaming import EACH_BYTE, MAXIMAL_PART, ReplaceText, StripStart, TextStep, Utf8

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_UNKNOWN = REPLACEMENT.encode()


@dataclass(frozen=True)
class Reading:
    """A decoder understood.

    `byte_level`: pieces are spelled byte by byte; `replacements`: within each piece, in order; `byte_pieces`: `<0x0A>`
    is a byte; `first_drops`: a character that the first piece leaves out; `after`: steps on the whole text, ("replace",
    pattern, content) or ("strip", character, count); `errors`: how broken UTF-8 shows.
    """

    byte_level: bool = False
    replacements: tuple[tuple[str, str], ...] = ()
    byte_pieces: bool = False
    first_drops: str = ""
    after: tuple[tuple[str, str, str | int], ...] = ()

    @property
    def errors(self) -> str:
        return MAXIMAL_PART if self.byte_level else EACH_BYTE

    def bytes_of(self, piece: str) -> bytes:
        """What a piece stands for anywhere but at the beginning."""
        if self.byte_level:
            return bytes_of(piece)
        for pattern, content in self.replacements:
            piece = piece.replace(pattern, content)
        found = _BYTE_PIECE.fullmatch(piece) if self.byte_pieces else None
        return bytes([int(found[1], 16)]) if found else piece.encode()

    def steps(self) -> list[TextStep]:
        """Fresh steps on the whole text."""
        return [
            StripStart(first, int(second)) if kind == "strip" else ReplaceText(first, str(second))
            for kind, first, second in self.after
        ]


def read_decoder(decoder: Any) -> Reading | None:
    """How a `decoder` of tokenizer.json works; None where it does what a table of bytes can't say."""
    if not isinstance(decoder, dict):
        return None
    steps = decoder.get("decoders") if decoder.get("type") == "Sequence" else [decoder]
    steps = [step for step in steps or [] if isinstance(step, dict)]
    kinds = [step.get("type") for step in steps]
    if kinds in (["ByteLevel"], ["ByteLevel", "Fuse"]):
        return Reading(byte_level=True)
    if kinds == ["Metaspace"]:
        return _metaspace(steps[0])
    cut = kinds.index("Fuse") if "Fuse" in kinds else len(kinds)
    before, after = steps[:cut], [_after(step) for step in steps[cut + 1 :]]
    byte_pieces = bool(before) and before[-1].get("type") == "ByteFallback"
    replacements = [_replacement(step) for step in (before[:-1] if byte_pieces else before)]
    if cut == len(kinds) or not all(after) or not all(replacements):
        return None
    return Reading(
        replacements=tuple(pair for pair in replacements if pair),
        byte_pieces=byte_pieces,
        after=tuple(step for step in after if step),
    )


def _metaspace(step: dict[str, Any]) -> Reading:
    character = str(step.get("replacement", ""))
    # Before there was prepend_scheme, add_prefix_space said the same.
    scheme = step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "never")
    return Reading(replacements=((character, " "),), first_drops="" if scheme == "never" else character)


def _replacement(step: dict[str, Any]) -> tuple[str, str] | None:
    pattern = step.get("pattern")
    text = pattern.get("String") if isinstance(pattern, dict) else None
    if step.get("type") != "Replace" or not isinstance(text, str) or not text:
        return None
    return text, str(step.get("content", ""))


def _after(step: dict[str, Any]) -> tuple[str, str, str | int] | None:
    if step.get("type") == "Strip" and step.get("stop") == 0 and len(str(step.get("content", ""))) == 1:
        return "strip", step["content"], int(step.get("start", 0))
    pair = _replacement(step)
    return ("replace", *pair) if pair else None


class TableDecoding:
    """Decoding by a table of each id's bytes."""

    def __init__(self, vocabulary: Vocabulary, reading: Reading, vocab_size: int) -> None:
        self.reading = reading
        self.table = [_UNKNOWN] * vocab_size  # what no piece has shows as U+FFFD, as an id beyond the vocabulary does
        for token_id, piece in vocabulary.pieces.items():
            # An added token that is not the model's stands for its own letters, whatever the spelling of the others.
            own = piece in vocabulary.of_model
            self.table[token_id] = reading.bytes_of(piece) if own else piece.encode()
        for token_id in vocabulary.control:
            self.table[token_id] = b""
        if vocabulary.unk_id is not None:
            self.table[vocabulary.unk_id] = _UNKNOWN
        self.control = vocabulary.control - {vocabulary.unk_id}
        self.pieces = vocabulary.pieces
        # Among byte-fallback pieces a control piece ends a character, as in sentencepiece; else it is as if not there.
        self.breaks = reading.byte_pieces

    def decode(self, ids: Sequence[int]) -> str:
        start, end = 0, len(ids)
        while start < end and ids[start] in self.control:
            start += 1
        while start < end and ids[end - 1] in self.control:
            end -= 1
        body = ids[start:end]
        if self.breaks and not self.control.isdisjoint(body):
            decoder = self.decoder()
            return "".join(map(decoder.feed, ids)) + decoder.finish()
        table, size = self.table, len(self.table)
        found = [table[token_id] if 0 <= token_id < size else _UNKNOWN for token_id in body]
        if found:
            found[0] = self.bytes_of(body[0], True)
        text = b"".join(found).decode("utf-8", self.reading.errors)
        for step in self.reading.steps():
            text = step.feed(text) + step.finish()
        return text

    def decoder(self) -> TableDecoder:
        return TableDecoder(self)

    def bytes_of(self, token_id: int, first: bool) -> bytes:
        """What `token_id` stands for; `first`: it is the first that is no control id."""
        if not 0 <= token_id < len(self.table):
            return _UNKNOWN
        dropped = self.reading.first_drops
        if first and dropped and dropped in self.pieces.get(token_id, ""):
            return self.pieces[token_id].replace(dropped, "").encode()
        return self.table[token_id]


class TableDecoder:
    """The stream of a TableDecoding."""

    def __init__(self, decoding: TableDecoding) -> None:
        self._decoding = decoding
        self._utf8 = Utf8(decoding.reading.errors)
        self._steps = decoding.reading.steps()
        self._first = True

    def feed(self, token_id: int) -> str:
        """The text that `token_id` settles, possibly ''."""
        is_control = token_id in self._decoding.control
        text = self._utf8.feed(self._decoding.bytes_of(token_id, self._first))
        if is_control and self._decoding.breaks:
            text += self._utf8.finish()
        self._first = self._first and is_control
        for step in self._steps:
            text = step.feed(text)
        return text

    def finish(self) -> str:
        """What is still held back. The decoder is then done with."""
        text = self._utf8.finish()
        for step in self._steps:
            text = step.feed(text) + step.finish()
        return text


class WholeDecoding:
    """Decoding by the engine, for decoders that look at all ids before they say anything."""

    def __init__(self, vocabulary: Vocabulary, decode: Callable[[list[int]], str]) -> None:
        self._vocabulary = vocabulary
        self._decode = decode

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the runs between ids that no piece has, each of which shows as U+FFFD."""
        runs: list[list[int]] = [[]]
        for token_id in ids:
            if token_id in self._vocabulary.control and token_id != self._vocabulary.unk_id:
                continue
            if token_id in self._vocabulary.pieces and token_id != self._vocabulary.unk_id:
                runs[-1].append(token_id)
            else:
                runs.append([])
        return REPLACEMENT.join(self._decode(run) if run else "" for run in runs)

    def decoder(self) -> WholeDecoder:
        return WholeDecoder(self)


class WholeDecoder:
    """A stream that says everything at its end."""

    def __init__(self, decoding: WholeDecoding) -> None:
        self._decoding = decoding
        self._ids: list[int] = []

    def feed(self, token_id: int) -> str:
        self._ids.append(token_id)
        return ""

    def finish(self) -> str:
        return self._decoding.decode(self._ids)
