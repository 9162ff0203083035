"""The same tokenizer for the rest of the world: tokenizer.json, tokenizer_config.json, chat_template.jinja.

The JSON is what Hugging Face's tokenizers reads, written here by hand, so that making it needs none of their packages.
It holds for our own lossless models (see train.py).

BPE: the merges are every way to join two pieces into a third, ranked by the third's score: sentencepiece merges by the
score of the result, not by a list of pairs. User tokens take part in no merge. They are matched after normalisation,
as sentencepiece does, so that neither an escape nor a special token's spelling in the text hides one.

Unigram: `tokenizers` matches every entry of the vocabulary in the text, so those that are no pieces (special tokens,
bytes) get a score that no path takes: the trainer made all characters of their spellings pieces. And every unknown
character then costs more than that; which doesn't matter, since each path meets the same ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gptcli.artifacts.durable import write_bytes, write_text
from gptcli.engines.model_proto import read_settings, user_token_ids
from gptcli.templates import CHAT_TEMPLATE
from gptcli.tokenizer import CONFIG_FILE, JSON_FILE, MODEL_FILE, TEMPLATE_FILE, open_model

_NEVER = -float(1 << 20)  # a score below that of any other way through a special token's spelling
NO_LENGTH_LIMIT = 10**30  # how transformers says that a tokenizer knows no longest sequence


def write_tokenizer(directory: Path, model: bytes, model_max_length: int = NO_LENGTH_LIMIT) -> None:
    """Write a model of ours as a tokenizer directory; `model_max_length` in tokens."""
    write_bytes(directory / MODEL_FILE, model)
    write_text(directory / JSON_FILE, _dump(tokenizer_json(model)))
    write_text(directory / CONFIG_FILE, _dump(tokenizer_config(model, model_max_length)))
    write_text(directory / TEMPLATE_FILE, CHAT_TEMPLATE)


def tokenizer_json(model: bytes) -> dict[str, Any]:
    """The content of tokenizer.json, equal to the sentencepiece `model` with `encode_special_tokens` set."""
    processor = open_model(model, MODEL_FILE)
    pieces = [processor.id_to_piece(index) for index in range(processor.vocab_size())]
    special = [index for index in range(len(pieces)) if processor.is_control(index) or processor.is_unknown(index)]
    user = user_token_ids(model)
    apart = {*special, *user}
    plain = [index for index in range(len(pieces)) if index not in apart and not processor.is_byte(index)]
    settings = read_settings(model)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(index, pieces[index], index in special) for index in sorted(apart)],
        "normalizer": _steps([_replace("\ue000", "\ue000A"), _replace("\u2581", "\ue000B"), _replace(" ", "\u2581")]),
        "pre_tokenizer": None,
        "post_processor": _begin_with(pieces[processor.bos_id()], processor.bos_id()),
        "decoder": {
            "type": "Sequence",
            "decoders": [
                _replace("\u2581", " "),
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                _replace("\ue000B", "\u2581"),
                _replace("\ue000A", "\ue000"),
            ],
        },
        "model": (_bpe if settings.is_bpe else _unigram)(processor, pieces, plain),
    }


def tokenizer_config(model: bytes, model_max_length: int = NO_LENGTH_LIMIT) -> dict[str, Any]:
    """The content of tokenizer_config.json."""
    processor = open_model(model, MODEL_FILE)
    named = {
        "unk_token": processor.unk_id(),
        "bos_token": processor.bos_id(),
        "eos_token": processor.eos_id(),
        "pad_token": processor.pad_id(),
    }
    controls = [index for index in range(processor.vocab_size()) if processor.is_control(index)]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{name: processor.id_to_piece(index) for name, index in named.items()},
        "additional_special_tokens": [
            processor.id_to_piece(index) for index in controls if index not in named.values()
        ],
        "clean_up_tokenization_spaces": False,
        "model_max_length": model_max_length,
    }


def _bpe(processor: Any, pieces: list[str], plain: list[int]) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": pieces[processor.unk_id()],
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": True,
        "ignore_merges": False,
        "vocab": {piece: index for index, piece in enumerate(pieces)},
        "merges": _merges({pieces[index]: index for index in plain}),
    }


def _unigram(processor: Any, pieces: list[str], plain: list[int]) -> dict[str, Any]:
    characters = {pieces[index] for index in plain if len(pieces[index]) == 1}
    for index in range(len(pieces)):
        if not characters.issuperset(pieces[index]):
            raise ValueError(f"{pieces[index]!r} holds a character that is no piece: the two engines would differ")
    scores = [_NEVER] * len(pieces)
    for index in plain:
        scores[index] = processor.get_score(index)
    return {
        "type": "Unigram",
        "unk_id": processor.unk_id(),
        "vocab": [list(pair) for pair in zip(pieces, scores, strict=True)],
        "byte_fallback": True,
    }


def _merges(ranks: dict[str, int]) -> list[tuple[str, str]]:
    """Every split of a piece into two pieces, by the piece's rank (our trainer numbers pieces by falling score)."""
    found = []
    for piece, rank in ranks.items():
        for place in range(1, len(piece)):
            left, right = piece[:place], piece[place:]
            if left in ranks and right in ranks:
                found.append((rank, ranks[left], ranks[right], left, right))
    return [(left, right) for *_, left, right in sorted(found)]


def _added_token(index: int, content: str, special: bool) -> dict[str, Any]:
    exact = dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    return {"id": index, "content": content, **exact, "normalized": not special, "special": special}


def _steps(steps: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": steps}


def _replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


def _begin_with(token: str, index: int) -> dict[str, Any]:
    def special(type_id: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": type_id}}

    def sequence(name: str, type_id: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": type_id}}

    first = [special(0), sequence("A", 0)]
    return {
        "type": "TemplateProcessing",
        "single": first,
        "pair": [*first, special(1), sequence("B", 1)],
        "special_tokens": {token: {"id": token, "ids": [index], "tokens": [token]}},
    }


def _dump(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"
