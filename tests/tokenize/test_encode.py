from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import sentencepiece
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from gptcli.tokenize.encoding import chunks
from gptcli.tokenize.encoding import encode as encode_module
from gptcli.tokenize.encoding.encode import Encoder, PartTooLongError
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


def test_many_parts_at_once_and_few(encoder: Encoder, code_texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode_module, "PARTS_AT_ONCE", 3)
    check(Encoder(encoder.tokenizer), ["", *code_texts[0].splitlines()[:200], "", "a", ""])


def test_a_full_cache_starts_anew(encoder: Encoder, code_texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode_module, "CACHE_BYTES", 100)
    small = Encoder(encoder.tokenizer)
    for text in code_texts:
        check(small, text.splitlines(keepends=True))


FOREIGN = ["Once upon a time", "  two  spaces ", "", "ﬁ ½ Ａ", "line\nline", " ", "\u2581a \u2581", "a\tb\r\n"]


@pytest.mark.parametrize("source", ["stories260K-hf", "sentencepiece-model"])
def test_models_that_rewrite_spaces_encode_whole_texts(source: str, data_dir: Path, tmp_path: Path) -> None:
    model = next(path for path in sorted((data_dir / source).iterdir()) if path.suffix == ".model")
    (tmp_path / "tokenizer.model").write_bytes(model.read_bytes())
    foreign = Encoder(Tokenizer.load(tmp_path))
    assert foreign.why_whole
    check(foreign, FOREIGN)


def test_a_space_before_every_text_is_not_put_before_its_parts(code_texts: list[str], tmp_path: Path) -> None:
    """As Llama-2's model is: BPE with byte fallback and a dummy prefix."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in code_texts for line in text.splitlines()), model_writer=model,
        model_type="bpe", vocab_size=900, byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, minloglevel=2,
    )  # fmt: skip
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    prefixing = Encoder(Tokenizer.load(tmp_path))
    assert not prefixing.why_whole
    lines = [line for text in code_texts for line in text.splitlines(keepends=True)]
    check(prefixing, [*FOREIGN, *lines[:500], *code_texts])


@pytest.mark.parametrize("is_gpt2", [True, False])
def test_byte_level_tokenizers_are_split_at_their_words(is_gpt2: bool, code_texts: list[str], tmp_path: Path) -> None:
    engine = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=not is_gpt2))
    llama3 = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(llama3), "isolated")
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=is_gpt2)
    engine.pre_tokenizer = byte_level if is_gpt2 else tokenizers.pre_tokenizers.Sequence([split, byte_level])
    engine.normalizer = None if is_gpt2 else tokenizers.normalizers.NFC()
    engine.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=1200, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    engine.train_from_iterator(code_texts, trainer)
    engine.add_tokens(["<tool>"])  # ordinary, and looked for in every text
    engine.save(str(tmp_path / "tokenizer.json"))
    encoder = Encoder(Tokenizer.load(tmp_path))
    assert not encoder.why_whole
    lines = [line for text in code_texts for line in text.splitlines(keepends=True)]
    check(encoder, [*FOREIGN, *lines[:500], *code_texts, "a<tool>b", "e\u0301 <tool>", "x<|endoftext|>y"])


def test_what_cannot_be_split_is_refused_by_its_place(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode_module, "LONGEST_PART", 1000)
    texts = pa.array(["self.x = 1\n" * 500, "", " " * 2000], pa.large_string())
    with pytest.raises(PartTooLongError) as caught:
        list(encoder.documents(texts))
    assert (caught.value.document, caught.value.size) == (2, 2000)


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
