from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pyarrow as pa
import pytest

from gptcli.engines.sentence_piece import open_model
from gptcli.tokenize.hf_files import tokenizer_json
from gptcli.tokenize.learning.counting import count_words
from gptcli.tokenize.learning.train import TrainingOptions, train


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_characters_seen_once_in_billions_are_pieces(code_texts: list[str], model_type: Literal["bpe", "unigram"]):
    """The trainer alone forgets them: it adds up the shares of the others in 32-bit floats, to 1."""
    text = "".join(code_texts).translate({ord("<"): None, ord("|"): None}) + "é漢\v"
    words = count_words([pa.array([text], pa.large_string())])
    frequent = words.counts.copy()
    frequent[frequent.argmax()] = 1 << 34
    trained = train(replace(words, counts=frequent), TrainingOptions(600, model_type, character_coverage=1.0))
    processor = open_model(trained.model, "model")
    assert all(processor.piece_to_id(character) != processor.unk_id() for character in "é漢\v")
    assert trained.covered_characters == trained.distinct_characters
    tokenizer_json(trained.model)  # of unigram it needs the characters of the special tokens' spellings
