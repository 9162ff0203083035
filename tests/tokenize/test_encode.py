from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptcli.tokenize import chunks
from gptcli.tokenize import encode as encode_module
from gptcli.tokenize.encode import Encoder, joined_bytes, keeps_text
from gptcli.tokenize.hf_files import write_tokenizer
from gptcli.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def encoder(code_model: bytes, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    directory = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(directory, code_model)
    return Encoder(Tokenizer.load(directory))


def check(encoder: Encoder, texts: list[str]) -> None:
    padded = pa.array(["before", *texts, "after"], pa.large_string())
    ids, offsets = encoder.encode(padded.slice(1, len(texts)))
    assert len(offsets) == len(texts) + 1
    for row, text in enumerate(texts):
        assert ids[offsets[row] : offsets[row + 1]].tolist() == encoder.tokenizer.encode(text), text


FRAGMENTS = st.sampled_from(
    [
        "self",
        "self.",
        "def ",
        "    ",
        " ",
        "\n",
        "\n\n",
        "\t",
        "\0",
        "(",
        "):",
        "é",
        "日",
        "\u2581",
        "\ue000",
        "B",
        "ing",
    ]
)
TEXTS = st.lists(st.one_of(st.text(max_size=20), st.lists(FRAGMENTS, max_size=20).map("".join)), max_size=8)


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_cuts_change_no_token(encoder: Encoder, texts: list[str]) -> None:
    check(encoder, texts)


def test_cuts_change_no_token_of_real_text(encoder: Encoder, code_texts: list[str]) -> None:
    lines = [line for text in code_texts for line in text.splitlines(keepends=True)]
    check(encoder, [*code_texts, *lines, "", *(text[::-1] for text in code_texts)])
    assert 0 < len(encoder._index) < len(lines) * 4, "the same parts are encoded once"


def test_text_is_cut_at_all(encoder: Encoder) -> None:
    joined = joined_bytes(encoder.tokenizer)
    assert joined is not None and not joined[ord("\n"), ord("x")] and joined[ord("i"), ord("n")]


def test_a_full_cache_starts_anew(encoder: Encoder, code_texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode_module, "CACHE_TOKENS", 100)
    small = Encoder(encoder.tokenizer)
    for text in code_texts:
        check(small, text.splitlines(keepends=True))


@pytest.mark.parametrize("source", ["stories260K-hf", "sentencepiece-model"])
def test_foreign_models_encode_whole_texts(source: str, data_dir: Path, tmp_path: Path) -> None:
    """One has a dummy prefix, the other is a unigram model with NFKC rules."""
    model = next(path for path in sorted((data_dir / source).iterdir()) if path.suffix == ".model")
    (tmp_path / "tokenizer.model").write_bytes(model.read_bytes())
    foreign = Encoder(Tokenizer.load(tmp_path))
    assert joined_bytes(foreign.tokenizer) is None and not keeps_text(foreign.tokenizer)
    check(foreign, ["Once upon a time", "  two  spaces ", "", "ﬁ ½ Ａ", "line\nline"])


def test_documents_are_framed(encoder: Encoder) -> None:
    (part,) = encoder.documents(pa.array(["a b", "", "é"], pa.large_string()))
    tokenizer = encoder.tokenizer
    documents = [part.tokens[part.offsets[row] : part.offsets[row + 1]].tolist() for row in range(3)]
    assert documents == [tokenizer.document(text) for text in ("a b", "", "é")]
    assert part.bytes.tolist() == [3, 0, 2] and part.tokens.dtype == np.uint16


def test_slices_hold_a_bounded_number_of_bytes() -> None:
    texts = pa.array(["aaaa", "", "bb", "c" * 50, "d", "", ""], pa.large_string())
    parts = [part.to_pylist() for part in chunks.slices(texts, limit=6)]
    assert parts == [["aaaa", "", "bb"], ["c" * 50], ["d", "", ""]]
    assert list(chunks.slices(texts.slice(0, 0))) == []
    assert [part.to_pylist() for part in chunks.slices(texts.slice(4, 3), limit=6)] == [["d", "", ""]]
