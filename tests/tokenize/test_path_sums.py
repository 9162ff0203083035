from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest

from gptcli.engines.sentence_piece import SentencePiece
from gptcli.tokenize.encoding.encode import Encoder
from gptcli.tokenize.encoding.merging import spelled_pieces
from gptcli.tokenize.encoding.path_sums import PathSums
from gptcli.tokenize.hf_files import write_tokenizer
from gptcli.tokenize.learning.counting import count_words
from gptcli.tokenize.learning.train import train_model
from gptcli.tokenizer import Tokenizer, open_model


@pytest.fixture(scope="module")
def encoder(code_texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    directory = tmp_path_factory.mktemp("unigram")
    words = count_words([pa.array(code_texts, pa.large_string())])
    write_tokenizer(directory, train_model(words, model_type="unigram", vocab_size=1200))
    return Encoder(Tokenizer.load(directory))


def test_parts_are_as_exact_as_the_whole_up_to_the_bound(encoder: Encoder, code_texts: list[str]) -> None:
    engine = encoder.tokenizer.engine
    assert isinstance(engine, SentencePiece) and not encoder.why_whole
    sums = PathSums.of(engine, spelled_pieces(engine))
    assert sums is not None
    generator = random.Random(5)
    texts = ["".join(generator.choices("ab eé日\n(_.\u2581", k=generator.choice((10, 500, 5000)))) for _ in range(60)]
    texts += [*code_texts, *(text * 4 for text in code_texts), "", "日" * 4000]
    column = pa.array(texts, pa.large_string())
    wholes = sums.wholes(column)
    assert not wholes[:60].all() and wholes.any(), "both ways are taken"
    ids, offsets = encoder.encode(column)
    for row, text in enumerate(texts):
        assert ids[offsets[row] : offsets[row + 1]].tolist() == engine.encode(text), text[:80]


def test_scores_of_other_models_are_not_trusted(data_dir: Path) -> None:
    (path,) = (data_dir / "sentencepiece-model").glob("*.model")
    engine = SentencePiece(open_model(path.read_bytes(), str(path)))
    assert PathSums.of(engine, spelled_pieces(engine)) is None
