from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import combinations, pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptcli.artifacts.project import Project
from gptcli.artifacts.shards import shard_paths
from gptcli.runtime.executor import map_ordered
from gptcli.tokenize.learning import counting
from gptcli.tokenize.learning.counting import CountingRules, WordCounts, count_corpus, count_words

LEFT_OUT = "\t\0\x1f\u2585"
SCRIPTS = (set("aZé"), set(".\n。"), set("日あア"), set("я"))
FINE = CountingRules(split_by_script=True, split_digits=True)


def texts(*strings: str) -> pa.Array:
    return pa.array(strings, pa.large_string())


def one_by_one(strings: list[str]) -> dict[str, int]:
    """The rule for words, told a character at a time."""
    counts: Counter[str] = Counter()
    for string in strings:
        word = ""
        for before, character in zip(["", *string], string, strict=False):
            begins = (character == " " and before != " ") or (before == "\n" and character != "\n")
            if begins or character in LEFT_OUT:
                counts[word] += 1
                word = ""
            if character not in LEFT_OUT:
                word += character
        counts[word] += 1
    del counts[""]
    return dict(counts)


def test_words_are_counted_by_the_rule() -> None:
    generator = random.Random(1)
    letters = "ab \n\t\0\x1f\u2585é\r\u2581\U0001f600"
    strings = ["".join(generator.choices(letters, k=generator.randrange(40))) for _ in range(300)]
    counted = count_words([texts(*strings[:150]), texts("left out", *strings[150:]).slice(1)])
    assert counted.as_dict() == one_by_one(strings)
    assert counted.words.to_pylist() == sorted(counted.words.to_pylist())
    assert (counted.documents, counted.document_bytes) == (300, sum(len(string.encode()) for string in strings))
    assert counted.total == sum(one_by_one(strings).values())


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.sampled_from("aZ9 \n\t.é日あ。アя\u2585\u2581ー\u0301"), max_size=30), max_size=5))
def test_finer_cuts_keep_every_character_and_cut_where_no_piece_may_stand(strings: list[str]) -> None:
    def letters(found: dict[str, int]) -> Counter[str]:
        counts: Counter[str] = Counter()
        for word, times in found.items():
            for letter in word:
                counts[letter] += times
        return counts

    coarse, fine = count_words([texts(*strings)]).as_dict(), count_words([texts(*strings)], FINE).as_dict()
    assert letters(coarse) == letters(fine)
    for word in fine:
        assert not any(digit in word for digit in "9") or word == "9"
        for left, right in pairwise(word):
            assert not any({left, right} & one and {left, right} & other for one, other in combinations(SCRIPTS, 2))


def test_user_tokens_are_left_out_longest_first() -> None:
    rules = CountingRules(user_tokens=("<tool>", "<tool>x", "é", "self"))
    found = count_words([texts("a<tool>xb <tool>y selfself café selfie sel")], rules).as_dict()
    assert found == {"a": 1, "b": 1, " ": 3, "y": 1, " caf": 1, "ie": 1, " sel": 1}


@pytest.mark.parametrize("word", ["x" * 9000, "é" * 5000, "日" * 5000, " " * 9000, "\n" * 9000])
def test_long_words_are_cut_between_characters(word: str) -> None:
    found = count_words([texts(word)])
    assert sum(len(each) * count for each, count in found.as_dict().items()) == len(word)
    assert max(len(each.encode()) for each in found.as_dict()) <= counting.MAX_WORD_BYTES + 3


def test_any_slicing_and_number_of_processes_count_the_same(
    project: Project,
    write_corpus: Callable[..., list[str]],
    code_texts: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = [line for text in code_texts for line in text.splitlines(keepends=True)]
    write_corpus(project, {"train": [lines[:200], lines[200:500], code_texts]})
    shards = shard_paths(project.place("corpus", "main"), "train")
    here = count_corpus(shards, FINE)
    there = count_corpus(shards, FINE, run_map=partial(run_in, 2))
    whole = count_words([texts(*lines[:500], *code_texts)], FINE)
    assert here.as_dict() == there.as_dict() == whole.as_dict()
    assert here.words.equals(there.words) and here.documents == there.documents == 500 + len(code_texts)
    monkeypatch.setattr(counting, "SLICE_BYTES", 1000)
    assert count_corpus(shards, FINE).words.equals(here.words)
    some = count_corpus(shards, FINE, sample_bytes=20_000, seed=5)
    assert 0 < some.documents < 500
    assert some.as_dict() != count_corpus(shards, FINE, sample_bytes=20_000, seed=6).as_dict()


def run_in(workers: int, function: Callable[..., object], items: list[Path]) -> object:
    return map_ordered(function, items, workers)


def test_the_rarest_are_left_out_first(tmp_path: Path) -> None:
    words = count_words([texts("a a a", "b b", "c", "d")])
    assert words.as_dict() == {"a": 1, " a": 2, "b": 1, " b": 1, "c": 1, "d": 1}
    assert words.most_frequent(2).as_dict() == {" a": 2, " b": 1}
    assert words.most_frequent(6) is words
    words.save(tmp_path / "words.arrow")
    loaded = WordCounts.load(tmp_path / "words.arrow")
    assert loaded.as_dict() == words.as_dict() and loaded.rules == words.rules and loaded.documents == 4
    assert list(loaded.lines()) == [b" a\t2", b" b\t1", b"a\t1", b"b\t1", b"c\t1", b"d\t1"]


def test_nothing_to_count() -> None:
    empty = count_words([texts(), texts("", "\t\0")])
    assert len(empty) == 0 and empty.total == 0 and list(empty.lines()) == [] and empty.documents == 2
