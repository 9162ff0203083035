from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence, Split

from gptcli.tokenize.encoding.characters import LOWER, UPPER, character_classes
from gptcli.tokenize.encoding.words import PATTERNS, WordRules, one_word_tokenizer, rules_of, word_bounds

NAMES = {rules.pattern: pattern for pattern, rules in PATTERNS.items()}
PLAIN = ByteLevel(add_prefix_space=False, use_regex=False)
STEPS: dict[str, Any] = {
    **{name: Sequence([Split(Regex(pattern), "isolated"), PLAIN]) for name, pattern in NAMES.items()},
    "bytelevel": ByteLevel(add_prefix_space=False),
    "digits": Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]),
}
# The same patterns as published, written out: PATTERNS builds them from their parts.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
PUBLISHED = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama3": LLAMA3,
    "qwen2": LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}"),
    "qwen3.5": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "o200k": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "tekken": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}
STRANGE = (
    "  \t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u1680\u180e\u200b\u2028\u2029\u3000''’sStTrReEvVmMlLdDkK\u017f\u212aaAßéÉ\ufb06"
    "ǅʰªあ漢ا٣12²Ⅷ½,.!/_-\u0301\u0903\u20dd😀\u200d🇩\ufe0f\x00\ue000\U00011de0\U00010d40\U0001e900"
)


def stored(steps: Any) -> dict[str, Any]:
    """A tokenizer.json, parsed, with these pre-tokenizer steps."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = steps
    parsed: dict[str, Any] = json.loads(tokenizer.to_str())
    return parsed


def rules_for(name: str) -> WordRules:
    rules = rules_of(stored(STEPS[name]))
    assert rules is not None
    return rules


def ends(texts: list[str], rules: WordRules, room: int = 1 << 16) -> list[int]:
    parts = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, parts)])
    data, bounds = np.frombuffer(b"".join(parts), np.uint8), np.empty(room, np.int64)
    found: list[int] = []
    position = 0
    while position < offsets[-1]:
        before = position
        count, position = word_bounds(data, offsets, position, bounds, rules)
        assert bounds[0] == before and bounds[count] == position
        found += bounds[1 : count + 1].tolist()
    return found


def expected(texts: list[str], steps: Any) -> list[int]:
    """Ends of the package's words in bytes; a byte is a character in the pieces of ByteLevel."""
    lengths = [len(piece) for text in texts for piece, _ in steps.pre_tokenize_str(text)]
    return np.cumsum(lengths, dtype=np.int64).tolist()


def samples(data_dir: Path) -> list[str]:
    """The head, and some of the middle, of real texts: English, German, French, Japanese, code, stories, chats."""
    kinds = {
        "tinyshakespeare": "*.txt",
        "multilingual-dev": "*.txt",
        "gutenberg-dev": "*.txt",
        "tinystories-sample": "*.txt",
        "wikitext2-valid": "*",
        "html-dev": "**/*.html",
        "glaive-toolcall-demo": "*.json",
        "c4-demo": "*.json*",
        "gguf-vocab-gpt2": "*.inp",
    }
    texts = []
    for folder, pattern in kinds.items():
        files = sorted(path for path in (data_dir / folder).glob(pattern) if path.suffix != ".gz")[:4]
        assert files, folder
        for path in files:
            data = path.read_bytes()
            for start in (0, len(data) // 2):
                texts.append(data[start : start + 15_000].decode("utf-8", "replace"))
            if folder == "multilingual-dev":
                texts.append(data[:15_000].decode("latin-1"))
    return texts


@pytest.mark.parametrize("name", STEPS)
def test_words_of_real_texts_are_those_of_the_package(name: str, data_dir: Path) -> None:
    texts = samples(data_dir)
    found = ends(texts, rules_for(name))
    assert found == expected(texts, STEPS[name])
    assert found[-1] == sum(len(text.encode()) for text in texts)


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.one_of(st.text(STRANGE, max_size=14), st.text(max_size=6)), max_size=3), st.integers(2, 5))
@example(["don'T 'ſ'K we'LL've", "  \r\n \n  x", "\n "], 2)
@example(["あAB あb AあB'sx !\u0301ABC \u0301AB! ABあ'ſ", " \u0301", "!\n/'s"], 3)
def test_words_of_strange_texts_are_those_of_the_package(texts: list[str], room: int) -> None:
    for name, steps in STEPS.items():
        rules = rules_for(name)
        assert ends(texts, rules) == ends(texts, rules, room) == expected(texts, steps), name


def test_only_the_long_s_folds_into_a_contraction() -> None:
    cased = np.flatnonzero((character_classes() & (UPPER | LOWER)) != 0)
    for frame in ("'{}", "'{}e", "'{}l", "'r{}", "'v{}", "'l{}"):
        text = "\n".join(frame.format(chr(point)) for point in cased)
        for name in ("gpt2", "llama3", "o200k"):
            assert ends([text], rules_for(name)) == expected([text], STEPS[name]), (frame, name)


@pytest.mark.parametrize("tail", ["", "x", "\n", "é", "1"])
@pytest.mark.parametrize("unit", [" ", " \n", "\n", "a", "A", "é", "'", "\u3000", "1", "あ", "\u0301", "!\n/"])
def test_long_runs(unit: str, tail: str) -> None:
    text = unit * 4_000 + tail
    for name, steps in STEPS.items():
        assert ends([text], rules_for(name)) == expected([text], steps), name


@pytest.mark.parametrize("name", ["gpt2", "llama3", "o200k"])
def test_runs_too_long_for_the_regular_expressions(name: str) -> None:
    n = 10_000_000
    spaces = [n - 1, n + 1]  # they give up on these, at 10 million steps back
    assert ends([" " * n + "x"], rules_for(name)) == spaces
    assert ends(["\u3000" * (n // 4) + "x"], rules_for(name))[0] == 3 * (n // 4 - 1)
    newlines = ends([" \n" * (n // 2) + "x"], rules_for(name))
    assert newlines == ([n - 1, n, n + 1] if name == "gpt2" else [n, n + 1])
    assert ends(["é" * (n // 2)], rules_for(name)) == [n]


def test_a_text_ends_with_its_document() -> None:
    rules = rules_for("gpt2")
    assert ends(["a  ", "", "b", "  ", "c"], rules) == [1, 3, 4, 6, 7]
    data, bounds = np.frombuffer(b"??a b??", np.uint8), np.zeros(9, np.int64)
    assert word_bounds(data, np.array([2, 2, 5, 5]), 2, bounds, rules) == (2, 5)
    assert bounds[:3].tolist() == [2, 3, 5]
    assert word_bounds(data, np.array([2, 5]), 5, bounds, rules) == (0, 5)
    assert word_bounds(data[:0], np.array([0]), 0, bounds, rules) == (0, 0)


def trained(name: str, texts: list[str], ignore_merges: bool) -> Tokenizer:
    """A byte-level tokenizer of 900 ids; with `ignore_merges`, its longest words can't be reached by merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = STEPS[name]
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    parsed = json.loads(tokenizer.to_str())
    if ignore_merges:
        parsed["model"]["ignore_merges"] = True
        parsed["model"]["merges"] = parsed["model"]["merges"][:400]
    found = Tokenizer.from_str(json.dumps(parsed))
    found.encode_special_tokens = True
    return found


def check_ids(tokenizer: Tokenizer, texts: list[str]) -> None:
    """Whole texts, their words each alone, and their words each as one: the same ids."""
    parsed = json.loads(tokenizer.to_str())
    rules = rules_of(parsed)
    assert rules is not None
    one_word = Tokenizer.from_str(json.dumps(one_word_tokenizer(parsed)))
    for text in texts:
        data, cuts = text.encode(), [0, *ends([text], rules)]
        words = [data[start:end].decode() for start, end in pairwise(cuts)]
        whole = tokenizer.encode(text, add_special_tokens=False).ids
        for each in (tokenizer, one_word):
            alone = each.encode_batch(words, add_special_tokens=False)
            assert [token for encoding in alone for token in encoding.ids] == whole
        assert tokenizer.decode(whole) == text


@pytest.mark.parametrize("ignore_merges", [False, True])
@pytest.mark.parametrize("name", ["bytelevel", "digits", "llama3", "o200k"])
def test_ids_of_words_joined_are_the_ids_of_the_text(name: str, ignore_merges: bool, code_texts: list[str]) -> None:
    tokenizer = trained(name, code_texts, ignore_merges)
    check_ids(tokenizer, [text[:20_000] for text in code_texts])
    check_ids(tokenizer, ["", STRANGE, "a <|endoftext|>b", "  <|endoftext|>\n", " " * 5000 + "x", "é" * 999])

    @settings(max_examples=60, deadline=None)
    @given(st.one_of(st.text(STRANGE, max_size=30), st.text(max_size=20)))
    def strange(text: str) -> None:
        check_ids(tokenizer, [text])

    strange()


def test_ids_differ_where_an_added_token_stands_that_is_not_special(code_texts: list[str]) -> None:
    tokenizer = trained("llama3", code_texts, ignore_merges=False)
    tokenizer.add_tokens(["lambda x", AddedToken("<think>", special=True)])
    rules = rules_of(json.loads(tokenizer.to_str()))
    assert rules is not None and rules.literals == ("lambda x",)
    check_ids(tokenizer, ["lambda y: <think> </think>"])
    with pytest.raises(AssertionError):
        check_ids(tokenizer, ["lambda xy"])


def test_the_known_patterns_are_the_published_ones() -> None:
    assert PUBLISHED == NAMES
    assert {name: rules_for(name).pattern for name in PUBLISHED} == {name: name for name in PUBLISHED}
    assert rules_for("bytelevel") == rules_for("gpt2")


def test_what_decides_the_words_is_read_from_the_file() -> None:
    parsed = stored(STEPS["qwen2"])
    for normalizer, needs_nfc in [
        (None, False),
        ({"type": "NFC"}, True),
        ({"type": "Sequence", "normalizers": []}, False),
        ({"type": "Sequence", "normalizers": [{"type": "NFC"}]}, True),
    ]:
        rules = rules_of({**parsed, "normalizer": normalizer})
        assert rules is not None and rules.needs_nfc == needs_nfc
    old = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}  # as GPT-2's file says it
    assert rules_of({"pre_tokenizer": old}) == PATTERNS[PUBLISHED["gpt2"]]
    inverted = Sequence([Split(Regex(PUBLISHED["o200k"]), "removed", invert=True), PLAIN])
    rules = rules_of(stored(inverted))
    assert rules == rules_for("o200k")
    assert ends([STRANGE], rules) == expected([STRANGE], inverted)


@pytest.mark.parametrize(
    "steps",
    [
        None,
        ByteLevel(add_prefix_space=True),
        PLAIN,
        Split(Regex(LLAMA3), "isolated"),
        Sequence([Split(Regex(LLAMA3 + "|x"), "isolated"), PLAIN]),
        Sequence([Split(Regex(LLAMA3), "removed"), PLAIN]),
        Sequence([Split(Regex(LLAMA3), "isolated"), ByteLevel(add_prefix_space=False)]),
        Sequence([Split(Regex(LLAMA3), "isolated"), ByteLevel(add_prefix_space=True, use_regex=False)]),
        Sequence([Split(LLAMA3, "isolated"), PLAIN]),
        Sequence([Digits(individual_digits=False), ByteLevel(add_prefix_space=False)]),
        Sequence([Digits(individual_digits=True), Split(Regex(LLAMA3), "isolated"), PLAIN]),
        Sequence([]),
        pre_tokenizers.Metaspace(),
    ],
    ids=str,
)
def test_no_rules_for_other_ways_to_make_words(steps: Any) -> None:
    parsed = stored(STEPS["gpt2"])
    parsed["pre_tokenizer"] = None if steps is None else stored(steps)["pre_tokenizer"]
    assert rules_of(parsed) is None


def test_no_rules_for_other_normalizers_and_for_dropout() -> None:
    parsed = stored(STEPS["gpt2"])
    for normalizer in ({"type": "NFKC"}, {"type": "Lowercase"}, {"type": "Sequence", "normalizers": [{"type": "NFD"}]}):
        assert rules_of({**parsed, "normalizer": normalizer}) is None
    assert rules_of({**parsed, "model": {"type": "BPE", "dropout": 0.1}}) is None
