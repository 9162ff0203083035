from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from gptcli.errors import SpecError
from gptcli.inference.stream import TextWatcher, stream_text
from gptcli.tokenize.hf_files import write_tokenizer
from gptcli.tokenize.learning.train import count_words, train_model
from gptcli.tokenizer import Tokenizer

AWKWARD = "naïve 猫🐈‍⬛ e\u0301 \u2581\ue000 tab\t\r\n  end "


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    directory = tmp_path_factory.mktemp("tokenizer")
    words = count_words([pa.array([Path(__file__).read_text(encoding="utf-8")], pa.large_string())])
    write_tokenizer(directory, train_model(words, vocab_size=400))
    return Tokenizer.load(directory)


def test_no_piece_is_part_of_a_character(tokenizer):
    ids = tokenizer.encode(AWKWARD * 3)
    pieces = list(stream_text(tokenizer, iter(ids)))
    assert "".join(pieces) == AWKWARD * 3
    assert len(pieces) > len(AWKWARD) // 2
    assert "\ufffd" not in "".join(pieces) and "" not in pieces


def test_a_character_cut_off_by_the_end_is_shown_as_such(tokenizer):
    ids = tokenizer.encode("a🐈")
    assert "".join(stream_text(tokenizer, ids[:-1])) == tokenizer.decode(ids[:-1])


def test_text_after_a_prompt_keeps_its_space(data_dir):
    stories = Tokenizer.load(data_dir / "stories260K-hf")
    prompt, rest = stories.encode("Once upon"), stories.encode("Once upon a time")[len(stories.encode("Once upon")) :]
    assert "".join(stream_text(stories, rest, after=[stories.bos_id, *prompt])) == " a time"
    assert "".join(stream_text(stories, rest)) == "a time"


def test_nothing_of_a_stop_string_is_shown(tokenizer):
    text = "one two 🐈‍⬛ enough and on"
    ids = tokenizer.encode(text)
    for stop in ("two", "o 🐈‍", "🐈‍⬛ en", "one", "en"):
        taken: list[int] = []
        pieces = list(stream_text(tokenizer, (taken.append(i) or i for i in ids), stop=["never", stop]))
        assert "".join(pieces) == text[: text.index(stop)] and "" not in pieces
        assert stop in tokenizer.decode(taken) and stop not in tokenizer.decode(taken[:-1])
    for almost in ("enough and onw", "on on", "xyz"):
        assert "".join(stream_text(tokenizer, iter(ids), stop=[almost])) == text


def test_what_can_no_longer_become_a_stop_string_is_shown_at_once(tokenizer):
    ids = tokenizer.encode("a <b> c <d> e")
    shown = []
    for count in range(1, len(ids) + 1):
        watcher = TextWatcher(tokenizer, ["<d>"])
        for token_id in ids[:count]:
            watcher.feed(token_id)
        plain = tokenizer.decode(ids[:count])
        assert (plain.startswith(watcher.text) and len(plain) - len(watcher.text) <= 2) or watcher.stopped
        shown.append(watcher.text)
    assert shown[-1] == "a <b> c " and watcher.stopped


def test_an_empty_stop_string_is_refused(tokenizer):
    with pytest.raises(SpecError, match="empty stop string"):
        TextWatcher(tokenizer, ["end", ""])
