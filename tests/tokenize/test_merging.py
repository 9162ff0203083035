from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptcli.engines.sentence_piece import SentencePiece
from gptcli.tokenize.encoding.chunks import text_bytes
from gptcli.tokenize.encoding.merging import LONGEST, Merger, spelled_pieces
from gptcli.tokenizer import open_model


@pytest.fixture(scope="session")
def engine(code_model: bytes) -> SentencePiece:
    return SentencePiece(open_model(code_model, "model"))


@pytest.fixture(scope="session")
def merger(engine: SentencePiece) -> Merger:
    found = Merger.of(engine, spelled_pieces(engine))
    assert found is not None
    return found


def check(engine: SentencePiece, merger: Merger, texts: list[str]) -> int:
    """Compare with the engine; how many parts were left to it."""
    ids, ends, left = merger.encode(*text_bytes(pa.array(texts, pa.large_string())))
    for number, text in enumerate(texts):
        found = ids[ends[number] : ends[number + 1]].tolist()
        if number in left:
            assert not found and (len(text) > LONGEST or "\u2581" in text or "\ue000" in text), text
        else:
            assert found == engine.encode(text), text
    return len(left)


WORDS = [
    "self",
    ".",
    "def ",
    "    ",
    " ",
    "\n",
    "(",
    "):",
    "\u00e9",
    "\u65e5",
    "ing",
    "\u2581",
    "\ue000",
    "aaaa",
    "\0",
    "tion",
]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(st.text(max_size=12), st.lists(st.sampled_from(WORDS), max_size=9).map("".join)), max_size=9))
def test_parts_get_the_ids_that_the_engine_gives(engine: SentencePiece, merger: Merger, texts: list[str]) -> None:
    check(engine, merger, texts)


def test_words_of_real_text(engine: SentencePiece, merger: Merger, code_texts: list[str]) -> None:
    words = [word for text in code_texts for word in text.split(" ")]
    lines = [line for text in code_texts for line in text.splitlines()]
    assert check(engine, merger, words) < 100
    assert 0 < check(engine, merger, lines) < len(lines), "long lines are left out, short ones are not"


def test_a_foreign_vocabulary(data_dir: Path) -> None:
    """Scores that tie, characters that are no pieces, pieces whose halves are none."""
    model = (data_dir / "stories260K-hf" / "tokenizer.model").read_bytes()
    engine = SentencePiece(open_model(model, "model"))
    merger = Merger.of(engine, spelled_pieces(engine))
    assert merger is not None
    text = (data_dir / "tinystories-sample" / "tinystories_sample.txt").read_text("utf-8")[:200_000]
    bare = [word for word in text.split() if engine.processor.normalize(word) == "\u2581" + word]
    prefix = engine.encode("a")[:-1]
    ids, ends, left = merger.encode(*text_bytes(pa.array([" " + word for word in bare], pa.large_string())))
    assert not len(left) and len(prefix) <= 1
    assert [ids[ends[i] : ends[i + 1]].tolist() for i in range(len(bare))] == [engine.encode(word) for word in bare]
