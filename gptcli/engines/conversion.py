"""A tokenizer.json from the two files that byte-level BPE models came in before there was one: a vocabulary in JSON and
merges in text (vocab.json and merges.txt, or GPT-2's own names encoder.json and vocab.bpe)."""

from __future__ import annotations

from typing import Any

from gptcli.engines.byte_level import BYTES
from gptcli.engines.json_vocabulary import MOST_IDS, parse
from gptcli.engines.roles import ENDS, Roles, spelling
from gptcli.errors import ArtifactError

NO_LENGTH_LIMIT = 10**30  # how transformers says that a tokenizer knows no longest sequence
FAST_CLASS = "PreTrainedTokenizerFast"  # what transformers opens any tokenizer.json by
GPT2_CLASSES = frozenset({"", "GPT2Tokenizer", "CodeGenTokenizer", "RobertaTokenizer", FAST_CLASS})
QWEN2_CLASS = "Qwen2Tokenizer"
# Where Qwen2's words end: one digit a word, a punctuation mark's newlines with it (its published tokenizer.json).
QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_REPLACED = ("added_tokens_decoder", "auto_map", "special_tokens_map", "tokenizer_file", "vocab_file", "merges_file")
_HINT = "fetch both files again from their source"


def read_vocab(data: bytes, name: str) -> dict[str, int]:
    """Spelling → id of a vocabulary in JSON; ids from 0 without a gap. Raises ArtifactError."""
    found = parse(data, name)
    if "model" in found and isinstance(found["model"], dict):
        raise ArtifactError(f"{name} is a whole tokenizer, not a vocabulary", "name it tokenizer.json")
    if not found or not all(isinstance(number, int) and not isinstance(number, bool) for number in found.values()):
        raise ArtifactError(f"{name}: a vocabulary gives every piece an id, which this file does not", _HINT)
    if len(found) > MOST_IDS:
        raise ArtifactError(f"{name}: {len(found):,} pieces are more than any vocabulary has", _HINT)
    numbers = sorted(found.values())
    wrong = next((place for place, number in enumerate(numbers) if place != number), None)
    if wrong is not None:
        what = f"two pieces have the id {numbers[wrong]}" if numbers[wrong] < wrong else f"no piece has the id {wrong}"
        raise ArtifactError(f"{name}: {what}", _HINT)
    return found


def read_merges(data: bytes, name: str, vocab: dict[str, int]) -> list[list[str]]:
    """The pairs of a file of merges, best first, whose parts and results must be in `vocab`. Raises ArtifactError."""
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise ArtifactError(f"{name} is no UTF-8 text", _HINT) from None
    merges = []
    for number, line in enumerate(lines, 1):
        pair = line.rstrip("\r").split(" ")
        if pair == [""] or (number == 1 and line.startswith("#version")):
            continue
        if len(pair) != 2 or not all(pair):
            raise ArtifactError(f"{name}, line {number}: a merge is two pieces, not {line[:80]!r}", _HINT)
        for piece in (*pair, "".join(pair)):
            if piece not in vocab:
                raise ArtifactError(f"{name}, line {number}: the vocabulary has no {piece!r}", _HINT)
        merges.append(pair)
    return merges


def tokenizer_json(
    vocab: dict[str, int], merges: list[list[str]], config: dict[str, Any], added: dict[str, int], roles: Roles
) -> dict[str, Any]:
    """The content of tokenizer.json. `config` is tokenizer_config.json's and says whose words they are; `added` are
    further tokens with their ids. Raises ArtifactError for a model whose words are not known here."""
    kind = str(config.get("tokenizer_class") or "").removesuffix("Fast")
    if kind != QWEN2_CLASS and kind not in GPT2_CLASSES and f"{kind}Fast" not in GPT2_CLASSES:
        raise ArtifactError(
            f"how a {kind} cuts text into words is not known here",
            "save its tokenizer.json: transformers.AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)",
        )
    if not any(character in vocab for character in BYTES):
        raise ArtifactError("the vocabulary has no byte-level pieces", _HINT)
    words: dict[str, Any] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    prefixed = {**words, "add_prefix_space": config.get("add_prefix_space") is True}
    if kind == QWEN2_CLASS:
        split = {"type": "Split", "pattern": {"Regex": QWEN2_WORDS}, "behavior": "Isolated", "invert": False}
        prefixed = {"type": "Sequence", "pretokenizers": [split, {**prefixed, "use_regex": False}]}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(vocab, config, added, roles),
        "normalizer": {"type": "NFC"} if kind == QWEN2_CLASS else None,
        "pre_tokenizer": prefixed,
        "post_processor": None,
        "decoder": words,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges,
        },
    }


def tokenizer_config(config: dict[str, Any], eos_token: str) -> dict[str, Any]:
    """tokenizer_config.json for a tokenizer.json: what `config` says, without the other files it speaks of."""
    kept = {key: value for key, value in config.items() if key not in _REPLACED}
    kept.setdefault("model_max_length", NO_LENGTH_LIMIT)
    kept |= {"tokenizer_class": FAST_CLASS, "clean_up_tokenization_spaces": False}
    return kept if spelling(kept.get("eos_token")) else {**kept, "eos_token": eos_token}


def _added_tokens(
    vocab: dict[str, int], config: dict[str, Any], added: dict[str, int], roles: Roles
) -> list[dict[str, Any]]:
    rows: dict[int, dict[str, Any]] = {}
    ends = {token for row in ENDS for token in row} if "eos_token" not in roles.tokens else set()
    for piece in (roles.names | ends) & vocab.keys():
        rows[vocab[piece]] = _row(vocab[piece], {"content": piece, "special": True})
    for piece, number in added.items():
        rows[number] = _row(number, {"content": piece, "special": piece in roles.names})
    decoder = config.get("added_tokens_decoder")
    for number, token in decoder.items() if isinstance(decoder, dict) else ():
        if str(number).isdecimal() and isinstance(token, dict) and spelling(token):
            rows[int(number)] = _row(int(number), token)
    beyond = sorted(number for number in rows if number >= len(vocab))
    if beyond != list(range(len(vocab), len(vocab) + len(beyond))):
        raise ArtifactError(
            f"the ids of added tokens don't follow the vocabulary's {len(vocab):,} without a gap", _HINT
        )
    return [rows[number] for number in sorted(rows)]


def _row(number: int, token: dict[str, Any]) -> dict[str, Any]:
    settings = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return {"id": number, "content": token["content"], **{key: token.get(key) is True for key in settings}}
