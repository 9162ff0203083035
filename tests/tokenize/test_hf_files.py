from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from gptcli.tokenize.hf_files import tokenizer_config, tokenizer_json, write_tokenizer
from gptcli.tokenize.learning.counting import count_words
from gptcli.tokenize.learning.train import CONTROL_PIECES, train_model
from gptcli.tokenizer import open_model

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", *CONTROL_PIECES)


def test_user_tokens_are_added_tokens_that_no_merge_makes(code_texts: list[str]) -> None:
    tokens = ("self", "se", "(")
    model = train_model(count_words([pa.array(code_texts, pa.large_string())]), vocab_size=600, user_tokens=tokens)
    content = tokenizer_json(model)
    added = {token["content"]: token for token in content["added_tokens"]}
    assert list(added) == [*SPECIAL, *tokens]
    assert [added[token]["id"] for token in tokens] == [22, 23, 24]
    assert all(not added[token]["special"] and added[token]["normalized"] for token in tokens)
    assert all(added[token]["special"] and not added[token]["normalized"] for token in SPECIAL)
    merges = {(left, right) for left, right in content["model"]["merges"]}
    assert merges and not any({*pair, "".join(pair)} & {*tokens, *SPECIAL} for pair in merges)
    assert "self" not in tokenizer_config(model)["additional_special_tokens"]


def test_a_unigram_vocabulary_has_the_model_s_scores(code_texts: list[str]) -> None:
    model = train_model(count_words([pa.array(code_texts, pa.large_string())]), vocab_size=600, model_type="unigram")
    processor, content = open_model(model, "model"), tokenizer_json(model)
    assert content["model"]["type"] == "Unigram" and content["model"]["unk_id"] == 0
    vocabulary = content["model"]["vocab"]
    assert [piece for piece, _ in vocabulary] == [processor.id_to_piece(index) for index in range(600)]
    scores = [score for _, score in vocabulary]
    assert scores[278:] == [processor.get_score(index) for index in range(278, 600)]
    assert max(scores[:278]) < 1000 * min(scores[278:]), "no path goes through a special token or a byte"


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_the_files_are_the_same_each_time(model_type: str, code_texts: list[str], tmp_path: Path) -> None:
    model = train_model(count_words([pa.array(code_texts, pa.large_string())]), vocab_size=500, model_type=model_type)
    for name in ("one", "two"):
        write_tokenizer(tmp_path / name, model)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["chat_template.jinja", "tokenizer.json", "tokenizer.model", "tokenizer_config.json"]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert json.loads((tmp_path / "one" / "tokenizer_config.json").read_text())["eos_token"] == "</s>"
