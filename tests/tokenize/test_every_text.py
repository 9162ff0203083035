"""Our own tokenizers on all the real texts and on random Unicode: each text comes back, and cutting changes no id."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptcli.tokenize.encoding.encode import Encoder
from gptcli.tokenize.hf_files import write_tokenizer
from gptcli.tokenize.importing import find, import_tokenizer
from gptcli.tokenize.learning.counting import count_words
from gptcli.tokenize.learning.train import train_model
from gptcli.tokenizer import Tokenizer

MOST_CHARS = 100_000  # of one file, in a test that everybody runs
WIDE = st.text(st.characters(codec="utf-8"), max_size=40)  # every plane, controls, marks, bidirectional ones
DENSE = st.text("ab \n\t\r\0.,'\u00e9e\u0301\u2581\ue000\u2585\u202e\u200d\U0001f469\ufffd\u3042\u5b57", max_size=40)


def real_texts(folder: Path) -> Iterator[str]:
    """Every file of the data that is text, in the encoding it is in."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix in {".gz", ".safetensors", ".bin", ".model", ".gguf", ".parquet", ".bz2"}:
            continue
        data = path.read_bytes()
        try:
            yield data.decode("utf-8")
        except UnicodeDecodeError:
            yield data.decode("latin-1")


def made(texts: list[str], model_type: str, vocab_size: int, directory: Path) -> Encoder:
    words = count_words([pa.array(texts, pa.large_string())])
    write_tokenizer(
        directory, train_model(words, model_type=model_type, vocab_size=vocab_size, character_coverage=0.99)
    )
    return Encoder(Tokenizer.load(directory))


def check(encoder: Encoder, texts: list[str]) -> None:
    ids, offsets = encoder.encode(pa.array(texts, pa.large_string()))
    for row, text in enumerate(texts):
        found = ids[offsets[row] : offsets[row + 1]].tolist()
        assert found == encoder.tokenizer.encode(text), text[:200]
        assert encoder.tokenizer.decode(found) == text, text[:200]


@pytest.fixture(scope="module", params=[("bpe", 512), ("bpe", 8192), ("unigram", 2000)], ids=lambda p: f"{p[0]}-{p[1]}")
def encoder(request: pytest.FixtureRequest, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    heads = [text[:MOST_CHARS] for text in real_texts(data_dir)]
    return made(heads, *request.param, tmp_path_factory.mktemp("tokenizer"))


def test_heads_of_every_file(encoder: Encoder, data_dir: Path) -> None:
    heads = [text[:MOST_CHARS] for text in real_texts(data_dir)]
    check(encoder, [*heads, *(line for head in heads for line in head[:5000].splitlines(keepends=True))])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(WIDE, DENSE), min_size=20, max_size=50))
def test_random_unicode(encoder: Encoder, texts: list[str]) -> None:
    check(encoder, texts)


@pytest.mark.faults
@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
@pytest.mark.parametrize("vocab_size", [512, 8192, 65_536])
def test_every_document_of_every_file(model_type: str, vocab_size: int, data_dir: Path, tmp_path: Path) -> None:
    texts = list(real_texts(data_dir))
    encoder = made(texts, model_type, vocab_size, tmp_path)
    check(encoder, texts)
    check(encoder, [line for text in texts for line in text.splitlines(keepends=True)])


@pytest.mark.faults
@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_twenty_thousand_random_strings(model_type: str, data_dir: Path, tmp_path: Path) -> None:
    encoder = made([text[:MOST_CHARS] for text in real_texts(data_dir)], model_type, 4096, tmp_path)

    @settings(max_examples=500, deadline=None, database=None)
    @given(st.lists(st.one_of(WIDE, DENSE), min_size=40, max_size=60))
    def strings(texts: list[str]) -> None:
        check(encoder, texts)

    strings()


@pytest.fixture(scope="module")
def gpt2(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    directory = tmp_path_factory.mktemp("gpt2")
    import_tokenizer(find(data_dir / "gpt2-bpe-vocab"), directory)
    return Encoder(Tokenizer.load(directory))


def test_gpt2_on_heads_of_every_file(gpt2: Encoder, data_dir: Path) -> None:
    assert not gpt2.why_whole
    heads = [text[:20_000] for text in real_texts(data_dir)]
    check(gpt2, [*heads, *(line for head in heads for line in head[:2000].splitlines(keepends=True))])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(WIDE, DENSE), min_size=20, max_size=50))
def test_gpt2_on_random_unicode(gpt2: Encoder, texts: list[str]) -> None:
    check(gpt2, texts)


def test_gpt2_as_llama_cpp_cuts_its_cases(gpt2: Encoder, data_dir: Path) -> None:
    """Cases stand between lines of `__ggml_vocab_test__`, their ids one line a case."""
    (given_file,) = (data_dir / "gguf-vocab-gpt2").glob("*.inp")
    cases = given_file.read_text("utf-8").split("\n__ggml_vocab_test__\n")[:-1]  # the last one ends the file
    wanted = given_file.with_suffix(".out").read_text("utf-8").splitlines()
    ids, offsets = gpt2.encode(pa.array(cases, pa.large_string()))
    found = [ids[offsets[row] : offsets[row + 1]].tolist() for row in range(len(cases))]
    assert found == [list(map(int, line.split())) for line in wanted] and len(cases) > 40
