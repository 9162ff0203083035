from __future__ import annotations

import hashlib
import re
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptcli.corpus.filters.hashed_words import BUCKETS, MOST_BYTES, features, is_empty
from gptcli.corpus.filters.logistic import auc, load_weights, train
from gptcli.corpus.filters.quality import QualityFilter
from gptcli.corpus.filters.view import View
from gptcli.errors import ArtifactError, SpecError


@pytest.fixture(scope="module")
def code() -> list[str]:
    library = Path(sysconfig.get_path("stdlib"))
    return [path.read_text("utf-8", "replace") for path in sorted(library.glob("*.py"))]


def prose(data_dir: Path) -> list[str]:
    wiki = (data_dir / "wikitext2-valid" / "valid.txt").read_text(encoding="utf-8")
    parts = re.split(r"\n (?== [^=]+ = \n)", wiki)
    for path in sorted((data_dir / "gutenberg-dev").glob("*.txt")):
        text = path.read_bytes().decode("utf-8-sig", "replace")
        parts += [text[start : start + 6000] for start in range(0, len(text), 12_000)]
    return parts


def test_tells_source_code_from_prose(data_dir: Path, code: list[str], tmp_path: Path) -> None:
    texts = prose(data_dir)
    weights = train(code, texts)
    assert weights.stats["auc"] >= 0.98 and weights.stats["accuracy"] >= 0.95, weights.stats
    assert weights.stats["held_out"] >= 60
    stored = weights.to_bytes()
    assert stored == train(list(reversed(code)), texts).to_bytes(), "the order of the documents changes nothing"
    assert stored == train([*code, *code[:50]], texts).to_bytes(), "nor does a document that is there twice"
    assert stored != train(code, texts, seed=1).to_bytes()
    path = tmp_path / "weights.npy"
    path.write_bytes(stored)
    chosen = QualityFilter(like="code.jsonl", weights=str(path))
    assert chosen.verdict(View("def f(x):\n    return self.x[0] + x\n\n\nclass A(B):\n    pass\n" * 5)).keep
    refused = chosen.verdict(View("She walked down to the river, and there she sat until the evening. " * 5))
    assert refused.reason == "low_quality" and 0 < float(refused.value) < 0.5
    assert QualityFilter(like="code.jsonl", weights=str(path), min_score=0).verdict(View("She walked.")).keep
    assert load_weights(path).score(code[0]) == weights.score(code[0])


def test_the_weights_are_pinned_by_the_texts_alone() -> None:
    """In every process the same: hashes that hung on the interpreter's seed would differ."""
    good = [f"alpha beta gamma {number} delta" for number in range(30)]
    bad = [f"one two three {'x' * (number + 1)} four" for number in range(30)]
    weights = train(good, bad)
    assert weights.stats == {"like": 30, "unlike": 30, "held_out": 12, "accuracy": 1.0, "auc": 1.0}
    buckets, values = features("Hello world, hello 1984")
    assert buckets.tolist() == PINNED
    assert np.isclose((values.astype(np.float64) ** 2).sum(), 1)
    assert hashlib.sha256(weights.to_bytes()).digest() == hashlib.sha256(train(good, bad).to_bytes()).digest()


PINNED = [9521, 22512, 29353, 74994, 143131, 151933, 188836, 235879]


def test_features_are_words_and_pairs() -> None:
    def found(text: str) -> set[int]:
        return set(features(text)[0].tolist())

    assert found("Hello  World") == found("hello\nworld"), "neither case nor spaces count"
    assert found("in 1984") == found("in 2001") != found("in 84"), "digits count by their number"
    assert len(found("a b")) == 3 and found("a b") != found("b a"), "two words and their pair"
    assert len(found("f(x)")) == 7, "signs are words of their own"
    assert len(found("猫である")) == 7, "so are characters of scripts without spaces"
    assert len(found("naïve café")) == 3


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_has_features_of_length_one(text: str) -> None:
    buckets, values = features(text)
    assert ((buckets >= 0) & (buckets < BUCKETS)).all() and (np.diff(buckets) > 0).all()
    assert not len(values) or np.isclose((values.astype(np.float64) ** 2).sum(), 1, atol=1e-5)
    assert len(values) or is_empty(text)


def test_only_the_head_is_read() -> None:
    head = ("word " * MOST_BYTES)[:MOST_BYTES]
    assert features(head + " other")[0].tolist() == features(head)[0].tolist()


def test_auc() -> None:
    assert auc(np.array([3.0, 2.0, 1.0]), np.array([True, True, False])) == 1
    assert auc(np.array([1.0, 1.0]), np.array([True, False])) == 0.5
    assert auc(np.array([0.0, 1.0, 2.0, 3.0]), np.array([True, False, True, False])) == 0.25


def test_too_few_documents() -> None:
    with pytest.raises(SpecError, match="19 different documents in unlike"):
        train((f"good {'a' * n}" for n in range(40)), [f"bad {'a' * n}" for n in range(19)] * 2 + ["", " \n"])


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00"], ids=["empty", "text", "cut"])
def test_weights_that_are_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.npy"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"weights\.npy"):
        load_weights(path)
    np.save(path, np.zeros(7, dtype=np.float32))
    with pytest.raises(ArtifactError, match="not the weights"):
        load_weights(path)


def test_it_wants_weights_and_names_its_files() -> None:
    with pytest.raises(SpecError, match="has no weights"):
        QualityFilter(like="good.jsonl").verdict(View("text"))
    assert QualityFilter(like="good.jsonl").files() == ["good.jsonl"]
    assert QualityFilter(like="good.jsonl", unlike="bad.txt").files() == ["good.jsonl", "bad.txt"]
    trained = QualityFilter(like="good.jsonl", weights="w.npy")
    assert trained.content() == QualityFilter(like="good.jsonl").content(), "where the weights lie decides nothing"
