from __future__ import annotations

import json

import pytest

from gptcli.engines.vocabulary_pair import find_pair, json_of_pair
from gptcli.errors import ArtifactError


def test_two_files_make_one_tokenizer(data_dir, tmp_path):
    assert find_pair(tmp_path) is None
    (tmp_path / "vocab.json").write_text("{}")
    assert find_pair(tmp_path) is None
    pair = find_pair(data_dir / "ckpt-hf-tiny-gpt2")
    assert pair is not None and [path.name for path in pair] == ["vocab.json", "merges.txt"]
    data, config = json_of_pair(*pair)
    content, told = json.loads(data), json.loads(config)
    assert content["model"]["vocab"] == json.loads(pair[0].read_text(encoding="utf-8"))
    assert {token["content"] for token in content["added_tokens"]} == {"<unk>", "<|endoftext|>"}
    assert (told["eos_token"], told["tokenizer_class"]) == ("<|endoftext|>", "PreTrainedTokenizerFast")


def test_added_tokens_need_ids(tmp_path):
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    (tmp_path / "merges.txt").write_text("")
    (tmp_path / "added_tokens.json").write_text('{"x": "one"}')
    with pytest.raises(ArtifactError, match=r"added_tokens\.json: a token has no id"):
        json_of_pair(tmp_path / "vocab.json", tmp_path / "merges.txt")
