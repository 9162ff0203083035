"""The words that a byte-level tokenizer's pre-tokenizer makes of a text, found without its regular expressions.

A byte-level tokenizer (Radford et al. 2019) merges inside words only, and the words come from one pattern tried again
at the end of each match. The patterns in use are few and none looks back, so each of them is a loop over characters
here: with the same words, and in linear time on every input (the regular expressions give up, with a panic, on some
millions of spaces).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from unicodedata import normalize

from gptcli.runtime.compiled import readonly
from gptcli.tokenize.encoding.characters import LETTERS, MARK, character_classes, classes_with_digits_alone
from gptcli.tokenize.encoding.chunks import Bytes, Offsets
from gptcli.tokenize.encoding.word_ends import CL100K, GPT2, O200K, scan_words

_ANY_NUMBER = 1 << 62


@dataclass(frozen=True)
class WordRules:
    """How a tokenizer cuts words, and what must be true of a document for those words to be the tokenizer's.

    pattern: a name for reports; family: which loop finds words; digits: most numeric characters of a word;
    contractions: whether 's, 't … stay with the word before them (family o200k; in the others they are words);
    marks_are_letters: combining marks count as letters; digits_alone: a digit is a word, and ends the text before it.
    needs_nfc: the tokenizer brings a text into normalisation form C first, so words are right for documents that are in
    it already (`characters.maybe_not_composed` finds the others). literals: added tokens that are not special, which
    the tokenizer looks for in a text before it makes words, and not even `encode_special_tokens` stops it: words are
    right for documents that contain none of them.
    """

    pattern: str
    family: int
    digits: int = _ANY_NUMBER
    contractions: bool = True
    marks_are_letters: bool = False
    digits_alone: bool = False
    needs_nfc: bool = False
    literals: tuple[str, ...] = ()


_GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_FOLDED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_END = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_CL100K_START = _FOLDED + r"|[^\r\n\p{L}\p{N}]?\p{L}+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = tuple(rf"[^\r\n\p{{L}}\p{{N}}]?{case}" for case in (f"{_UPPER}*{_LOWER}+", f"{_UPPER}+{_LOWER}*"))

PATTERNS = {
    _GPT2_PATTERN: WordRules("gpt2", GPT2),
    _CL100K_START + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _END: WordRules("llama3", CL100K, 3),
    _CL100K_START + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _END: WordRules("qwen2", CL100K, 1),
    _FOLDED + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + _END: WordRules(
        "qwen3.5", CL100K, 1, marks_are_letters=True
    ),
    f"{_CASED[0]}{_FOLDED}?|{_CASED[1]}{_FOLDED}?" + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + _END: WordRules(
        "o200k", O200K, 3
    ),
    f"{_CASED[0]}|{_CASED[1]}" + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + _END: WordRules(
        "tekken", O200K, 1, contractions=False
    ),
}


def rules_of(tokenizer_json: dict[str, Any]) -> WordRules | None:
    """The rules by which a parsed tokenizer.json makes words, or None where they are not known to be one of PATTERNS.

    Encoding every word alone and joining the ids then equals encoding the whole text without special tokens, for the
    documents that `needs_nfc` and `literals` allow.
    """
    rules = _pattern_rules(tokenizer_json.get("pre_tokenizer"))
    forms = _normalizers(tokenizer_json.get("normalizer"))
    if rules is None or any(form != {"type": "NFC"} for form in forms):
        return None
    if (tokenizer_json.get("model") or {}).get("dropout"):
        return None  # ids drawn anew every time
    added = [token["content"] for token in tokenizer_json.get("added_tokens") or [] if not token.get("special")]
    if forms:  # they are looked for in that form too
        added += [normalize("NFC", content) for content in added]
    return replace(rules, needs_nfc=bool(forms), literals=tuple(content for content in dict.fromkeys(added) if content))


def one_word_tokenizer(tokenizer_json: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer.json like the given one, which takes every text for one word as it stands.

    It gives a word the ids that the given one does, and can do so for words of any length: no regular expression runs.
    """
    whole = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    nothing: dict[str, Any] = {
        "normalizer": None,
        "post_processor": None,
        "truncation": None,
        "padding": None,
        "added_tokens": [],
    }
    return {**tokenizer_json, **nothing, "pre_tokenizer": whole}


def word_bounds(data: Bytes, offsets: Offsets, start: int, bounds: Offsets, rules: WordRules) -> tuple[int, int]:
    """Words from byte `start` of `data` on: how many were found, and the byte reached.

    data: uint8, valid UTF-8; offsets: int64 [documents + 1], where each document begins and ends; start: offsets[0] or
    what the last call reached; bounds: int64 scratch of at least 2, filled with `start` and the end of each word in
    turn until it is full or the last document ends. No word crosses from one document to the next.
    """
    classes = classes_with_digits_alone() if rules.digits_alone else character_classes()
    letters = LETTERS | MARK if rules.marks_are_letters else LETTERS
    return scan_words(
        readonly(data),
        readonly(offsets),
        start,
        bounds,
        classes,
        rules.family,
        letters,
        rules.digits,
        rules.contractions,
    )


def _pattern_rules(pre_tokenizer: Any) -> WordRules | None:
    steps = [pre_tokenizer]
    if isinstance(pre_tokenizer, dict) and pre_tokenizer.get("type") == "Sequence":
        steps = pre_tokenizer["pretokenizers"]
    if not steps or not all(isinstance(step, dict) for step in steps):
        return None
    *first, last = steps
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space") is not False or len(first) > 1:
        return None
    if last.get("use_regex", True):
        if not first:
            return PATTERNS[_GPT2_PATTERN]
        if first[0].get("type") == "Digits" and first[0].get("individual_digits") is True:
            return replace(PATTERNS[_GPT2_PATTERN], pattern="gpt2, digits alone", digits_alone=True)
        return None
    return _split_rules(first[0]) if first else None


def _split_rules(step: dict[str, Any]) -> WordRules | None:
    """Rules of a Split by one of PATTERNS. Their matches cover every text, so removing the rest removes nothing."""
    ways = (("Isolated", False), ("Removed", True))
    if step.get("type") != "Split" or (step.get("behavior"), step.get("invert")) not in ways:
        return None
    pattern = step.get("pattern")
    return PATTERNS.get(pattern.get("Regex", "")) if isinstance(pattern, dict) else None


def _normalizers(normalizer: Any) -> list[Any]:
    if normalizer is None:
        return []
    if isinstance(normalizer, dict) and normalizer.get("type") == "Sequence":
        return [form for inner in normalizer["normalizers"] for form in _normalizers(inner)]
    return [normalizer]
