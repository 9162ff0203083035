from __future__ import annotations

import errno
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptcli.engines.model_proto import read_settings, user_token_ids, without_paths
from gptcli.errors import ResourceError, SpecError, StoppedError
from gptcli.tokenize.learning import learn
from gptcli.tokenize.learning.counting import CountingRules, count_words
from gptcli.tokenize.learning.learn import train_apart
from gptcli.tokenize.learning.train import CONTROL_PIECES, SCORE_STEP, TrainingOptions, train, train_model
from gptcli.tokenize.learning.user_tokens import check_user_tokens
from gptcli.tokenize.spec import SMALLEST_VOCAB, TokenizeSpec
from gptcli.tokenizer import open_model


def texts(*strings: str) -> pa.Array:
    return pa.array(strings, pa.large_string())


def test_ids_are_pinned(code_model: bytes) -> None:
    processor = open_model(code_model, "model")
    pieces = [processor.id_to_piece(index) for index in range(processor.vocab_size())]
    assert pieces[:6] == ["<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>"]
    assert pieces[6:22] == [f"<|spare_{number}|>" for number in range(16)]
    assert pieces[22:278] == [f"<0x{byte:02X}>" for byte in range(256)]
    assert all(processor.is_control(index) for index in range(1, 22))
    assert len(pieces) == 1000
    assert 4 + len(CONTROL_PIECES) + 256 + 1 == SMALLEST_VOCAB
    assert not any("\n" in piece.rstrip("\n") for piece in pieces), "no piece goes on after a newline"


def test_same_words_give_the_same_bytes(
    code_texts: list[str], code_model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = count_words([texts(*reversed(code_texts))])
    assert train_model(words, vocab_size=1000) == code_model
    monkeypatch.setattr("gptcli.tokenize.learning.train._THREADS", 1)
    other, first = (open_model(model, "model") for model in (train_model(words, vocab_size=1000), code_model))
    for index in range(1000):
        assert (other.id_to_piece(index), other.get_score(index)) == (first.id_to_piece(index), first.get_score(index))


def test_model_holds_no_path(code_model: bytes) -> None:
    assert b".tsv" not in code_model and b"tmp" not in code_model.lower()
    assert without_paths(code_model) == code_model
    settings = read_settings(code_model)
    assert settings.is_bpe and settings.byte_fallback and settings.charsmap
    assert not settings.add_dummy_prefix and not settings.remove_extra_whitespaces


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
@pytest.mark.parametrize(
    "awkward",
    [
        "tab\there\t\t\tand here\t",
        "a \u2585 block and \u2581 a low line, \ue000 private \ue000A\ue000B",
        "nul \0 in \0\0 the middle, unit\x1fseparator, vertical\v\vtab",
        "carriage\r\nreturn\r\nline\rfeed",
        "a" + " " * 200 + "b" + " " * 200,
        "x" * 70_000 + " " * 70_000,
        "\n" * 70_000,
        "日本語の文章には空白がない。" * 6000,
        "\ufffd\ufeff\U0001f469\u200d\U0001f467 e\u0301",
        "</s> <|im_start|> <0x41> <unk>",
    ],
)
def test_awkward_text_trains_and_comes_back(awkward: str, model_type: str, code_texts: list[str]) -> None:
    words = count_words([texts(awkward, "some plain words to go with it", code_texts[3][:9000])])
    model = train_model(words, model_type=model_type, vocab_size=400, character_coverage=1.0)
    processor = open_model(model, "model")
    for text in (awkward, " " + awkward, awkward[::-1]):
        assert processor.decode(processor.encode(text)) == text


def test_a_tab_does_not_hide_the_rest_of_its_line() -> None:
    words = count_words([texts("left\tright \u2585middle\0end")])
    assert words.as_dict() == {"left": 1, "right": 1, " ": 1, "middle": 1, "end": 1}


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_too_large_a_vocabulary_names_the_largest(model_type: str) -> None:
    words = count_words([texts("hello wörld this is a text, hello text")])
    with pytest.raises(SpecError, match=r"vocab_size = 30000 .* largest feasible is \d+") as caught:
        train_model(words, vocab_size=30_000, model_type=model_type)
    largest = int(caught.value.message.rsplit(" ", 1)[1])
    assert open_model(train_model(words, vocab_size=largest, model_type=model_type), "model").vocab_size() == largest


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_too_small_a_vocabulary_names_the_smallest(model_type: str) -> None:
    words = count_words([texts("".join(map(chr, range(0x4E00, 0x4E00 + 500))))])
    with pytest.raises(SpecError, match=r"smallest feasible is \d+") as caught:
        train_model(words, vocab_size=300, character_coverage=1.0, model_type=model_type)
    smallest = int(caught.value.message.rsplit(" ", 1)[1])
    assert train_model(words, vocab_size=smallest, character_coverage=1.0, model_type=model_type)


def test_nothing_to_train_on() -> None:
    with pytest.raises(SpecError, match="no text"):
        train_model(count_words([texts("", "\t\t", "\0")]), vocab_size=300)


def test_options_reach_the_trainer(code_texts: list[str]) -> None:
    words = count_words([texts(*code_texts, "in 1999 and 1998, " * 50)])

    def pieces(**options: bool | int) -> list[str]:
        processor = open_model(train_model(words, vocab_size=1000, **options), "model")  # type: ignore[arg-type]
        return [processor.id_to_piece(index) for index in range(278, 1000)]

    assert "\u2581199" in pieces(split_digits=False)
    assert not any("19" in piece for piece in pieces())
    assert any("self." in piece for piece in pieces(split_by_script=False))
    assert not any("self." in piece for piece in pieces())
    assert max(map(len, pieces(max_piece_chars=4))) == 4


@pytest.mark.parametrize("split_by_script", [True, False])
def test_finer_cuts_teach_the_same(split_by_script: bool, code_texts: list[str]) -> None:
    """Up to the order of equally frequent merges, which can decide the last few."""
    models = [
        train_model(count_words([texts(*code_texts)], rules), vocab_size=1000, split_by_script=split_by_script)
        for rules in (CountingRules(), CountingRules(split_by_script, split_digits=True))
    ]
    coarse, fine = (set(map(open_model(model, "model").id_to_piece, range(1000))) for model in models)
    assert len(coarse & fine) >= 998
    with pytest.raises(ValueError, match="can't teach"):
        train_model(count_words([texts("a1")], CountingRules(split_digits=True)), vocab_size=300, split_digits=False)


def test_unigram_models_are_alike_and_their_scores_add_up_exactly(code_texts: list[str]) -> None:
    words = count_words([texts(*code_texts)], CountingRules(True, True))
    model = train_model(words, vocab_size=1000, model_type="unigram")
    assert train_model(words, vocab_size=1000, model_type="unigram") == model
    processor = open_model(model, "model")
    scores = [processor.get_score(index) for index in range(1000)]
    assert all(score % SCORE_STEP == 0 and math.isfinite(score) for score in scores) and min(scores) < -5
    pieces = {processor.id_to_piece(index) for index in range(278, 1000)}
    assert {"\n", "self", ":\n"} <= pieces and not any("\v" in piece for piece in pieces)
    assert b".tsv" not in model and b"tmp" not in model.lower()
    assert not read_settings(model).is_bpe and set("<|im_start>0xF/") <= pieces
    for text in code_texts:
        assert processor.decode(processor.encode(text)) == text


def test_what_was_learnt_from_is_told(code_texts: list[str]) -> None:
    words = count_words([texts(*code_texts, "\U0001f600 ü")])
    trained = train(words, TrainingOptions(1000, character_coverage=0.999, max_words=3000))
    assert trained.documents == len(code_texts) + 1 and trained.distinct_words == len(words)
    assert trained.left_out_distinct_words == len(words) - 3000 <= trained.left_out_words < words.total
    assert trained.distinct_characters == len(set("".join(code_texts)) | {"\U0001f600", "ü"})
    assert trained.covered_characters < trained.distinct_characters and 0.999 <= trained.character_coverage < 1
    unigram = train(words, TrainingOptions(1000, "unigram", character_coverage=0.999, max_words=3000))
    assert 0.999 <= unigram.character_coverage < 1 and unigram.covered_characters >= trained.covered_characters
    assert "model" not in trained.figures() and trained.figures()["words"] == words.total


USER_TOKENS = ("<tool>", "</tool>", ">>>", "AB", "B", "it's", 'a,"b', "é", "<|im", "日本", "self", "selfie")


def test_user_tokens_are_one_token_each_and_nothing_is_lost(code_texts: list[str]) -> None:
    rules = CountingRules(True, True, USER_TOKENS)
    words = count_words([texts(*code_texts, "é<tool>日本 it's")], rules)
    model = train_model(words, vocab_size=1000, user_tokens=USER_TOKENS)
    processor = open_model(model, "model")
    ids = [processor.piece_to_id(token) for token in USER_TOKENS]
    assert ids == user_token_ids(model) == list(range(22, 22 + len(USER_TOKENS)))
    assert [processor.encode(f"x{token}y")[1:-1] for token in USER_TOKENS] == [[index] for index in ids]
    assert processor.encode("selfies")[0] == ids[-1], "the longest that stands there"
    assert not any("self" in processor.id_to_piece(index) for index in range(22 + len(USER_TOKENS), 1000))
    texts_ = st.lists(
        st.sampled_from([*USER_TOKENS, "\ue000", "\u2581", " ", "\n", "<s>", "A", "b", "\t"]), max_size=12
    )

    @settings(max_examples=300, deadline=None)
    @given(texts_.map("".join))
    def comes_back(text: str) -> None:
        assert processor.decode(processor.encode(text)) == text
        assert not any(map(processor.is_control, processor.encode(text)))

    comes_back()


@pytest.mark.parametrize(
    ("tokens", "fault"),
    [
        (["a", ""], "'' is empty"),
        (["ab", "ab"], "'ab' is there twice"),
        (["a b"], "holds white space"),
        (["a\u3000b"], "holds white space"),
        (["\u2581a"], r"U\+2581"),
        (["\ue000"], r"U\+E000"),
        (["\0"], r"U\+0000"),
        (["x\u2585"], r"U\+2585"),
        (["x" * 513], "513 characters"),
        (["\ud800"], "lone surrogate"),
        (["<unk>"], "special token"),
        (["<0x0A>"], "special token"),
        *(([piece], "special token") for piece in CONTROL_PIECES[:3]),
    ],
)
def test_bad_user_tokens_are_named(tokens: list[str], fault: str) -> None:
    with pytest.raises(SpecError, match=fault):
        check_user_tokens(tokens)
    with pytest.raises(SpecError, match=fault):
        TokenizeSpec(user_tokens=tokens)


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"user_tokens": ["a"], "model_type": "unigram"}, "path around them"),
        ({"user_tokens": ["a"], "vocab_size": SMALLEST_VOCAB}, "no room for 1 user tokens"),
        ({"user_tokens": ["a"], "tokenizer": "main"}, "user_tokens would not be read"),
        ({"model_type": "unigram", "tokenizer": "main"}, "model_type would not be read"),
    ],
)
def test_keys_that_do_not_go_together(keys: dict[str, Any], fault: str) -> None:
    with pytest.raises(SpecError, match=fault):
        TokenizeSpec(**keys)


def test_a_process_of_its_own_trains_the_same_and_a_stop_ends_it(
    code_texts: list[str], code_model: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "words.arrow"
    count_words([texts(*code_texts)]).save(path)
    assert train_apart(path, TrainingOptions(1000), lambda: None, small=0).model == code_model
    with pytest.raises(SpecError, match="largest feasible"):
        train_apart(path, TrainingOptions(1_000_000), lambda: None, small=0)

    def stop() -> None:
        raise StoppedError("stopped")

    with pytest.raises(StoppedError):
        train_apart(path, TrainingOptions(1000), stop, small=0)


def test_a_dead_process_is_a_resource_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "words.arrow"
    count_words([texts("a")]).save(path)
    monkeypatch.setattr(learn, "_train_and_send", os.abort)
    with pytest.raises(ResourceError, match="died"):
        train_apart(path, TrainingOptions(300), lambda: None, small=0)


def test_a_full_or_missing_temporary_folder_is_a_resource_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    words = count_words([texts("hello there", "hello")])
    with monkeypatch.context() as patch, pytest.raises(ResourceError, match="no space left"):
        patch.setattr(Path, "write_text", full)
        train_model(words, vocab_size=290)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: full_of(FileNotFoundError(errno.ENOENT, "no usable folder")))
    with pytest.raises(ResourceError, match="no folder for temporary files"):
        train_model(words, vocab_size=290)


def full_of(error: OSError) -> str:
    raise error
