"""Whether tokenizer.model and tokenizer.json are one tokenizer, and whether any text gives a control id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gptcli.tokenize.views.awkward import AWKWARD
from gptcli.tokenizer import JSON_FILE, MODEL_FILE, Tokenizer, engine_file

PARITY = "parity"  # kind of a finding

_SHOWN_CHARS = 40
_AROUND = ("{}", "a{}b", " {} ", "{0}{0}", "x\n{}\ny", "{}</s>")

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class Parity:
    """Compares a tokenizer's tokenizer.model with its tokenizer.json; `json` None where there is only one of the two.

    `fault`: why tokenizer.json can't be read, or "".
    """

    json: Encode | None
    fault: str = ""

    @staticmethod
    def of(tokenizer: Tokenizer) -> Parity:
        """Both files of the tokenizer's directory, tokenizer.json read by the package `tokenizers`."""
        if not (tokenizer.directory / JSON_FILE).is_file() or not (tokenizer.directory / MODEL_FILE).is_file():
            return Parity(None)
        import tokenizers

        try:
            engine: Any = tokenizers.Tokenizer.from_file(str(tokenizer.directory / JSON_FILE))
        except Exception as error:  # the package raises Exception itself
            return Parity(None, f"{JSON_FILE} cannot be read: {error}")
        engine.encode_special_tokens = True  # text is never markup

        def encode(text: str) -> list[int]:
            ids: list[int] = engine.encode(text, add_special_tokens=False).ids
            return ids

        return Parity(encode)

    def difference(self, text: str, model: list[int]) -> str:
        """Where tokenizer.json parts from the ids `model` of a text, in words; "" where nowhere or there is no such."""
        if self.json is None:
            return ""
        json = self.json(text)
        if model == json:
            return ""
        at = next((at for at, pair in enumerate(zip(model, json, strict=False)) if pair[0] != pair[1]), None)
        at = min(len(model), len(json)) if at is None else at
        return f"from token {at} on {MODEL_FILE} gives {_some(model, at)} and {JSON_FILE} {_some(json, at)}"


def check_tokenizer(tokenizer: Tokenizer, add: Callable[[str, str], None]) -> dict[str, int]:
    """Look at a tokenizer by itself: both files on the awkward texts, and the spelling of every control token in texts.

    `add` is called with kind and example of every fault; returns how many texts were looked at.
    """
    parity = Parity.of(tokenizer)
    if parity.fault:
        add(PARITY, parity.fault)
    texts, keeps = injections(tokenizer), tokenizer.engine.is_lossless
    for text in (*AWKWARD, *texts):
        ids = tokenizer.encode(text)
        if told := parity.difference(text, ids):
            add(PARITY, f"{shown(text)}: {told}")
        if keeps and tokenizer.decode(ids) != text:
            add("round_trip", f"{shown(text)} decodes to another text")
    own = engine_file(tokenizer.directory)
    engines: dict[str, Encode] = {own.name if own else "": tokenizer.encode}
    for name, encode in (engines | ({JSON_FILE: parity.json} if parity.json else {})).items():
        for text in texts:
            found = [token_id for token_id in encode(text) if tokenizer.is_control(token_id)]
            if found:
                add("injection", f"{shown(text)} gives the control id {found[0]} from {name}")
    return {"awkward_texts": len(AWKWARD), "injected_texts": len(texts)}


def injections(tokenizer: Tokenizer) -> list[str]:
    """Texts that spell control tokens: each alone and among other characters, then all of them in a row."""
    ids = range(tokenizer.vocab_size)
    spelled = [tokenizer.piece(token_id) for token_id in ids if tokenizer.is_control(token_id)]
    texts = [around.format(piece) for piece in spelled if piece for around in _AROUND]
    return [*texts, "".join(spelled), " ".join(spelled)]


def shown(text: str) -> str:
    """A text as Python writes it in ASCII, cut."""
    return ascii(text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…")


def _some(ids: Sequence[int], at: int) -> str:
    part = ids[at : at + 4]
    return " ".join(map(str, part)) + (" …" if len(ids) > at + 4 else "") if part else "nothing"
