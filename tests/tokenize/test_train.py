from __future__ import annotations

import errno
import os
import random
import tempfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from gptcli.engines.model_proto import read_settings, without_paths
from gptcli.errors import ResourceError, SpecError
from gptcli.tokenize import train
from gptcli.tokenize.spec import SMALLEST_VOCAB
from gptcli.tokenize.train import CONTROL_PIECES, count_words, train_model
from gptcli.tokenizer import open_model


def texts(*strings: str) -> pa.Array:
    return pa.array(strings, pa.large_string())


def words_one_by_one(strings: list[str]) -> Counter[str]:
    """The rule of count_words, told a character at a time."""
    counts: Counter[str] = Counter()
    for string in strings:
        word = ""
        for before, character in zip(["", *string], string, strict=False):
            begins = (character == " " and before != " ") or (before == "\n" and character != "\n")
            if begins or character in "\t\0\u2585":
                counts[word] += 1
                word = ""
            if character not in "\t\0\u2585":
                word += character
        counts[word] += 1
    del counts[""]
    return counts


def test_words_are_counted_by_the_rule() -> None:
    generator = random.Random(1)
    strings = ["".join(generator.choices("ab \n\t\0\u2585é\r", k=generator.randrange(40))) for _ in range(300)]
    assert count_words([texts(*strings[:150]), texts(*strings[150:])]) == words_one_by_one(strings)


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
    monkeypatch.setattr(train, "_THREADS", 1)
    other, first = (open_model(model, "model") for model in (train_model(words, vocab_size=1000), code_model))
    for index in range(1000):
        assert (other.id_to_piece(index), other.get_score(index)) == (first.id_to_piece(index), first.get_score(index))


def test_model_holds_no_path(code_model: bytes) -> None:
    assert b".tsv" not in code_model and b"tmp" not in code_model.lower()
    assert without_paths(code_model) == code_model
    settings = read_settings(code_model)
    assert settings.is_bpe and settings.byte_fallback and settings.charsmap
    assert not settings.add_dummy_prefix and not settings.remove_extra_whitespaces


@pytest.mark.parametrize(
    "awkward",
    [
        "tab\there\t\t\tand here\t",
        "a \u2585 block and \u2581 a low line, \ue000 private \ue000A\ue000B",
        "nul \0 in \0\0 the middle",
        "carriage\r\nreturn\r\nline\rfeed",
        "a" + " " * 200 + "b" + " " * 200,
        "x" * 70_000 + " " * 70_000,
        "\n" * 70_000,
        "日本語の文章には空白がない。" * 6000,
        "\ufffd\ufeff\U0001f469\u200d\U0001f467 e\u0301",
        "</s> <|im_start|> <0x41> <unk>",
    ],
)
def test_awkward_text_trains_and_comes_back(awkward: str) -> None:
    words = count_words([texts(awkward, "some plain words to go with it, and some more words")])
    model = train_model(words, vocab_size=330, character_coverage=1.0)
    processor = open_model(model, "model")
    for text in (awkward, " " + awkward, awkward[::-1]):
        assert processor.decode(processor.encode(text)) == text


def test_a_tab_does_not_hide_the_rest_of_its_line() -> None:
    words = count_words([texts("left\tright \u2585middle\0end")])
    assert words == {"left": 1, "right": 1, " ": 1, "middle": 1, "end": 1}


def test_too_large_a_vocabulary_names_the_largest() -> None:
    words = count_words([texts("hello wörld this is a text, hello text")])
    with pytest.raises(SpecError, match=r"vocab_size = 30000 .* largest feasible is \d+") as caught:
        train_model(words, vocab_size=30_000)
    largest = int(caught.value.message.rsplit(" ", 1)[1])
    assert open_model(train_model(words, vocab_size=largest), "model").vocab_size() == largest


def test_too_small_a_vocabulary_names_the_smallest() -> None:
    words = count_words([texts("".join(map(chr, range(0x4E00, 0x4E00 + 500))))])
    with pytest.raises(SpecError, match=r"smallest feasible is \d+") as caught:
        train_model(words, vocab_size=300, character_coverage=1.0)
    smallest = int(caught.value.message.rsplit(" ", 1)[1])
    assert train_model(words, vocab_size=smallest, character_coverage=1.0)


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


def test_a_full_or_missing_temporary_folder_is_a_resource_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    words = {"hello": 3, " there": 2}
    with monkeypatch.context() as patch, pytest.raises(ResourceError, match="no space left"):
        patch.setattr(Path, "write_text", full)
        train_model(words, vocab_size=290)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: full_of(FileNotFoundError(errno.ENOENT, "no usable folder")))
    with pytest.raises(ResourceError, match="no folder for temporary files"):
        train_model(words, vocab_size=290)


def full_of(error: OSError) -> str:
    raise error
