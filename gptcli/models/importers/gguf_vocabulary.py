"""The tokenizer in a GGUF file's metadata, as files that gptcli.tokenizer opens.

"llama" is a sentencepiece BPE (pieces, scores, types); "gpt2" a byte-level BPE (pieces, merges, types), whose word
pattern `tokenizer.ggml.pre` names. A whole tokenizer.json in `tokenizer.huggingface.json` goes before both.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gptcli.artifacts.durable import write_bytes, write_text
from gptcli.engines import conversion
from gptcli.engines.json_vocabulary import MOST_IDS
from gptcli.engines.roles import Roles
from gptcli.errors import ArtifactError
from gptcli.models.importers.foreign import ForeignTokenizer
from gptcli.models.importers.gguf_file import GgufFile, damage_told
from gptcli.models.importers.sentencepiece_bytes import CONTROL, NORMAL, UNKNOWN, USER_DEFINED, Piece, model_bytes
from gptcli.models.importers.sentencepiece_bytes import Vocabulary as SentencePieces
from gptcli.models.importers.tokenizer_files import CONFIG, JSON, MODEL, TEMPLATE

_KEY = "tokenizer.ggml"
# Where words end, by tokenizer.ggml.pre. Llama 3: up to three digits a word (its published tokenizer.json).
_LLAMA3_WORDS = conversion.QWEN2_WORDS.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
_PATTERNS = {
    "gpt-2": "GPT2Tokenizer",
    "qwen2": conversion.QWEN2_CLASS,
    "llama-bpe": _LLAMA3_WORDS,
    "llama3": _LLAMA3_WORDS,
}
_HINT = "name the tokenizer that the model was trained with: --tokenizer DIR"


def vocabulary_of(file: GgufFile) -> tuple[ForeignTokenizer | None, str]:
    """The tokenizer of a file; where there is none, or one whose rules are not known here, None and why."""
    kind, whole = file.text(f"{_KEY}.model"), file.text("tokenizer.huggingface.json")
    if whole is not None:
        return _written(file, lambda target: _write_json(file, whole, target)), ""
    if kind == "llama":
        return _written(file, lambda target: _write_sentencepiece(file, target)), ""
    if kind != "gpt2":
        what = f"a tokenizer of the kind {kind[:40]!r}, which is not known here" if kind else "no tokenizer"
        return None, f"{file.path} holds {what}"
    words = file.text(f"{_KEY}.pre") or "gpt-2"
    if words not in _PATTERNS:
        return None, f"{file.path}: how its tokenizer ({words[:40]!r}) cuts text into words is not known here"
    return _written(file, lambda target: _write_bytelevel(file, words, target)), ""


def _written(file: GgufFile, write: Callable[[Path], None]) -> ForeignTokenizer:
    def guarded(target: Path) -> None:
        with damage_told(file.path):
            write(target)

    return ForeignTokenizer((), guarded)


def _write_json(file: GgufFile, whole: str, target: Path) -> None:
    write_bytes(target / JSON, whole.encode())
    _write_config(file, target, {"tokenizer_class": conversion.FAST_CLASS})


def _write_sentencepiece(file: GgufFile, target: Path) -> None:
    tokens, kinds, scores = _tokens(file), _kinds(file), file.numbers(f"{_KEY}.scores")
    if scores is None or len(scores) != len(tokens):
        raise ArtifactError(f"{file.path}: its pieces have no scores", _HINT)
    pieces = tuple(Piece(text, float(score), kind) for text, score, kind in zip(tokens, scores, kinds, strict=True))
    unk, eos = _id(file, "unknown"), _id(file, "eos")
    unk = next((number for number, kind in enumerate(kinds) if kind == UNKNOWN), None) if unk is None else unk
    if unk is None or eos is None:
        raise ArtifactError(f"{file.path}: its tokenizer has no {'unknown piece' if unk is None else 'eos'}", _HINT)
    charsmap = file.numbers(f"{_KEY}.precompiled_charsmap", whole=True)
    vocabulary = SentencePieces(
        pieces,
        unk,
        _id(file, "bos"),
        eos,
        _id(file, "padding"),
        add_dummy_prefix=file.flag(f"{_KEY}.add_space_prefix", True),
        remove_extra_whitespaces=file.flag(f"{_KEY}.remove_extra_whitespaces", False),
        charsmap=b"" if charsmap is None else charsmap.tobytes(),
    )
    write_bytes(target / MODEL, model_bytes(vocabulary, str(file.path)))
    told = {"tokenizer_class": "LlamaTokenizer", "unk_token": tokens[unk], "legacy": False}
    _write_config(file, target, {**told, "add_bos_token": _adds_bos(file, default=True), "add_eos_token": False})


def _write_bytelevel(file: GgufFile, words: str, target: Path) -> None:
    tokens, kinds, merges = _tokens(file), _kinds(file), file.texts(f"{_KEY}.merges")
    vocab = {text: number for number, text in enumerate(tokens)}
    if len(vocab) != len(tokens) or merges is None:
        fault = "has no merges" if len(vocab) == len(tokens) else "has a piece twice"
        raise ArtifactError(f"{file.path}: its tokenizer {fault}", _HINT)
    pairs = conversion.read_merges("\n".join(merges).encode(), str(file.path), vocab)
    added = {
        str(number): {"content": text, "special": kind == CONTROL}
        for number, (text, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (CONTROL, USER_DEFINED)
    }
    pattern = _PATTERNS[words]
    is_class = pattern.endswith("Tokenizer")
    config: dict[str, Any] = {"tokenizer_class": pattern if is_class else "", "added_tokens_decoder": added}
    roles = {f"{role}_token": text for role, text in _named(file, tokens).items()}
    content = conversion.tokenizer_json(vocab, pairs, config, {}, Roles(roles, frozenset(roles.values())))
    if not is_class:
        split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        level = {**content["pre_tokenizer"], "use_regex": False}
        content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, level]}
        content["model"]["ignore_merges"] = True
    write_bytes(target / JSON, json.dumps(content, ensure_ascii=False).encode())
    told = {"tokenizer_class": conversion.FAST_CLASS, "add_bos_token": _adds_bos(file, default=False)}
    _write_config(file, target, told)


def _write_config(file: GgufFile, target: Path, told: dict[str, Any]) -> None:
    """tokenizer_config.json, and the chat template as a file of its own, as later transformers write it."""
    tokens = _tokens(file) if f"{_KEY}.tokens" in file.metadata else []
    config = {
        **told,
        **{f"{role}_token": text for role, text in _named(file, tokens).items()},
        "clean_up_tokenization_spaces": False,
        "model_max_length": conversion.NO_LENGTH_LIMIT,
    }
    write_text(target / CONFIG, json.dumps(config, ensure_ascii=False, indent=1) + "\n")
    template = file.text("tokenizer.chat_template")
    if template is not None:
        write_text(target / TEMPLATE, template)


def _tokens(file: GgufFile) -> list[str]:
    tokens = file.texts(f"{_KEY}.tokens")
    if not tokens or len(tokens) > MOST_IDS:
        raise ArtifactError(f"{file.path}: its tokenizer has no pieces", _HINT)
    return tokens


def _kinds(file: GgufFile) -> list[int]:
    """The type of every piece, sentencepiece's numbers; NORMAL where none is given."""
    kinds, count = file.numbers(f"{_KEY}.token_type", whole=True), len(_tokens(file))
    if kinds is None:
        return [NORMAL] * count
    if len(kinds) != count:
        raise ArtifactError(f"{file.path}: {count} pieces and {len(kinds)} types of them", _HINT)
    return [kind if 1 <= kind <= 6 else NORMAL for kind in kinds.tolist()]


def _id(file: GgufFile, role: str) -> int | None:
    number = file.integer(f"{_KEY}.{role}_token_id")
    return number if number is not None and 0 <= number < len(_tokens(file)) else None


def _named(file: GgufFile, tokens: list[str]) -> dict[str, str]:
    """The spelling of each special token that the metadata names by id."""
    roles = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    found = {role: file.integer(f"{_KEY}.{key}_token_id") for role, key in roles.items()}
    return {role: tokens[number] for role, number in found.items() if number is not None and 0 <= number < len(tokens)}


def _adds_bos(file: GgufFile, default: bool) -> bool:
    return file.flag(f"{_KEY}.add_bos_token", default) and _id(file, "bos") is not None
