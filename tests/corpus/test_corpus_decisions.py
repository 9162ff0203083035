from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptcli.corpus.decisions import copies_of, first_of, smallest_in, split_of
from gptcli.corpus.filters import FILTERS
from gptcli.corpus.filters.length import LengthFilter
from gptcli.corpus.filters.regex import RegexFilter
from gptcli.corpus.filters.view import View
from gptcli.corpus.spec import CorpusSpec
from gptcli.errors import SpecError
from gptcli.spec import resolve


def hashes(texts: list[str]) -> np.ndarray:
    data = b"".join(hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts)
    return np.frombuffer(data, dtype="<u8").reshape(-1, 2)


@given(st.lists(st.integers(0, 9), max_size=40))
def test_first_of_equals(values: list[int]) -> None:
    found = first_of(hashes([str(value) for value in values])) if values else []
    assert list(found) == [values.index(value) for value in values]


def test_hashes_that_share_a_half_differ() -> None:
    pairs = np.array([[1, 2], [1, 3], [2, 2], [1, 2]], dtype=np.uint64)
    assert list(first_of(pairs)) == [0, 1, 2, 0]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 99)), max_size=30))
def test_a_cluster_is_named_by_its_smallest(rows: list[tuple[int, int]]) -> None:
    clusters = np.array([cluster for cluster, _ in rows], dtype=np.int64)
    values = np.array([value for _, value in rows], dtype=np.uint64)
    wanted = [min(value for other, value in rows if other == cluster) for cluster, _ in rows]
    assert smallest_in(clusters, values).tolist() == wanted


def test_copies_follow_the_weight() -> None:
    names = hashes([f"document {number}" for number in range(10_000)])[:, 1]
    for weight in (0.25, 1.0, 2.5):
        copies = copies_of(names, np.full(len(names), weight))
        assert abs(copies.mean() - weight) < 0.03 and set(copies) <= {int(weight), int(weight) + 1}


def test_splits_have_their_shares_and_stay() -> None:
    many = hashes([f"document {number}" for number in range(20_000)])
    splits = split_of(many[:, 0], 0.05, 0.1, 0)
    assert np.allclose(np.bincount(splits) / len(many), [0.85, 0.05, 0.1], atol=0.01)
    assert (split_of(many[:, 0], 0.05, 0.0, 0) == 1).sum() == (splits == 1).sum(), "test_share moves no val document"
    other = split_of(many[:, 0], 0.05, 0.1, 7)
    assert 0 < ((splits == 1) & (other == 1)).sum() < 150, "another seed holds out others"
    assert split_of(many[:, 0], 0.0, 0.0, 0).max() == 0
    # Pinned: a later version that splits otherwise would leak test documents into training.
    assert "".join(map(str, splits[:60])) == PINNED


PINNED = "000000000020001000000000000200002012200100000000000000000010"


@pytest.mark.parametrize("filter_class", FILTERS)
def test_filters_say_what_they_are(filter_class: type) -> None:
    assert filter_class.model_fields["name"].default in filter_class.__module__


def test_length_filter() -> None:
    def judge(text: str) -> str:
        return LengthFilter(min_words=2, max_words=3).verdict(View(text)).reason

    assert [judge(text) for text in ("a", "a b", "a b c", "a b c d")] == ["too_few_words", "", "", "too_many_words"]
    assert LengthFilter(min_words=0, max_words=0).verdict(View("")).keep


def test_regex_filter() -> None:
    def judge(text: str) -> tuple[str, object]:
        found = RegexFilter(keep="^def ", drop="TODO").verdict(View(text))
        return found.reason, found.value

    assert judge("x\ndef f") == ("", 0.0)
    assert judge("def f # TODO") == ("drop_found", "TODO")
    assert judge("class A") == ("keep_not_found", 0.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "source is missing"),
        ({"source": []}, "source = "),
        ({"source": "a", "filters": ["nonsense"]}, "nonsense"),
        ({"source": "a", "filters": ["regex"]}, "needs keep or drop"),
        ({"source": "a", "filters": [{"name": "regex", "drop": "("}]}, "no valid regular expression"),
        ({"source": "a", "filters": [{"name": "length", "min_word": 1}]}, "did you mean min_words"),
        ({"source": "a", "separator": "x*"}, "matches the empty string"),
        ({"source": "a", "val_share": 0.5, "test_share": 0.5}, "nothing to train on"),
        ({"source": "a", "min_chars": 5, "max_chars": 4}, "max_chars = 4 is under min_chars"),
        ({"source": "python:docstrings"}, "holds chats"),
        ({"source": "a", "shard_byts": 1}, "did you mean shard_bytes"),
        ({"source": "a", "encoding": "klingon"}, "encoding"),
    ],
)
def test_specs_that_cannot_be(values: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        resolve(CorpusSpec, [("recipe", values)])
    assert message in caught.value.message


def test_workers_are_no_content() -> None:
    one, four = (CorpusSpec(source=["a"], workers=workers) for workers in (1, 4))
    assert one.content() == four.content() and "workers" not in one.content()
