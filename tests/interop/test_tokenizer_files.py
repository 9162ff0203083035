"""Our tokenizer directories, opened by transformers."""

from __future__ import annotations

import ast
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gptcli.templates import encode_chat
from gptcli.tokenize.hf_files import write_tokenizer
from gptcli.tokenize.learning.train import count_words, train_model
from gptcli.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

AWKWARD = json.loads((Path(__file__).parents[1] / "data" / "awkward.json").read_text(encoding="utf-8"))


def make(directory: Path, texts: list[str], vocab_size: int, **options: Any) -> tuple[Tokenizer, Any]:
    words = count_words([pa.array(texts, pa.large_string())])
    write_tokenizer(directory, train_model(words, vocab_size=vocab_size, **options), model_max_length=512)
    return Tokenizer.load(directory), transformers.AutoTokenizer.from_pretrained(directory)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Any]:
    code = Path(ast.__file__).read_text(encoding="utf-8")
    return make(tmp_path_factory.mktemp("tokenizer"), [code, *AWKWARD], 1500)


def theirs(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
    return ids


def test_awkward_strings_are_500_and_come_from_the_script() -> None:
    namespace: dict[str, Any] = {"__name__": "make_awkward"}
    script = Path(__file__).parents[1] / "data" / "make_awkward.py"
    exec(compile(script.read_text(encoding="utf-8"), str(script), "exec"), namespace)
    assert namespace["awkward_strings"]() == AWKWARD and len(set(AWKWARD)) == 500


def test_equal_ids_on_awkward_strings(pair: tuple[Tokenizer, Any]) -> None:
    ours, other = pair
    for text in AWKWARD:
        ids = ours.encode(text)
        assert theirs(other, text) == ids, text
        assert ours.decode(ids) == text and other.decode(ids) == text


@pytest.mark.parametrize("split_by_script", [True, False])
def test_equal_ids_where_merges_overlap(split_by_script: bool, tmp_path: Path) -> None:
    """Runs of few letters make pieces that overlap themselves, where the order of merges shows."""
    generator = random.Random(3)
    texts = ["".join(generator.choices("ab (\n", (9, 9, 3, 1, 1), k=200)) for _ in range(100)]
    ours, other = make(tmp_path, texts, 700, split_by_script=split_by_script)
    for _ in range(2000):
        text = "".join(generator.choices("ab (\n", (9, 9, 3, 1, 1), k=generator.randrange(60)))
        assert theirs(other, text) == ours.encode(text), text


def test_settings(pair: tuple[Tokenizer, Any]) -> None:
    ours, other = pair
    assert other("hi").input_ids == [ours.bos_id, *ours.encode("hi")]
    assert (other.bos_token_id, other.eos_token_id, other.pad_token_id, other.unk_token_id) == (1, 2, 3, 0)
    assert len(other) == ours.vocab_size and other.model_max_length == 512
    assert other.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>", "<|spare_15|>"]) == [4, 5, 21]
    assert other.decode([1, 4, *ours.encode("a , b"), 5, 2], skip_special_tokens=True) == "a , b"
    assert other("<|im_end|>", add_special_tokens=False).input_ids == [5], "markers match unless they are split"


@pytest.mark.parametrize("add_generation_prompt", [False, True])
def test_equal_chats(pair: tuple[Tokenizer, Any], add_generation_prompt: bool) -> None:
    ours, other = pair
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What does os.path.join do?\n\n    join(a, b)\n"},
        {"role": "assistant", "content": "(Join) two paths; see \u2581 日本 \U0001f600"},
        {"role": "user", "content": " \ttabs\r\n"},
    ]
    ids, _ = encode_chat(ours, chat, add_generation_prompt)
    rendered = other.apply_chat_template(
        chat, tokenize=True, return_dict=False, add_generation_prompt=add_generation_prompt
    )
    assert rendered == ids


def test_files_survive_a_copy(pair: tuple[Tokenizer, Any], tmp_path: Path) -> None:
    pair[0].copy_to(tmp_path, model_max_length=64)
    copy = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert copy.model_max_length == 64 and copy.chat_template == pair[1].chat_template
    assert copy("self.x").input_ids == pair[1]("self.x").input_ids
