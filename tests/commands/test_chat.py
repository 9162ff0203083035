from __future__ import annotations

import io
import json
import shutil
import sys

import pytest
import torch

from gptcli.artifacts.project import Project
from gptcli.commands import terminal
from gptcli.commands.conversation import Conversation
from gptcli.commands.talk import Wish, run
from gptcli.commands.terminal import Terminal
from gptcli.errors import ArtifactError, ResourceError, SpecError
from gptcli.inference.generate import Session
from gptcli.inference.open import open_model
from gptcli.inference.sampling import Sampling
from gptcli.options import PlaceAndDevice
from gptcli.records.chats import Chats
from gptcli.templates import encode_chat
from gptcli.tokenizer import Tokenizer

GREEDY = Sampling(temperature=0.0)
STORY = "Once upon a time, there was a little girl named Lily"


@pytest.fixture
def stories(data_dir, project) -> Project:
    shutil.copytree(data_dir / "stories260K-hf", project.root / "stories")
    return project


@pytest.fixture
def talk(stories):
    """A conversation with the tiny story model; as a chat it has the plain-text template, eos ending a turn."""
    model, tokenizer, _ = open_model(stories, "./stories", torch.device("cpu"))

    def begin(turns: bool, **settings: object) -> Conversation:
        return Conversation(
            model, tokenizer, Sampling(**{"temperature": 0.0, "max_tokens": 12, **settings}), turns=turns
        )

    return begin


def ask(project: Project, settings: Sampling = GREEDY, **wish: object) -> None:
    shared = PlaceAndDevice(project=project.root, as_json=bool(wish.pop("as_json", False)))
    run(shared, Wish(**{"model": "./stories", "prompt": None, "system": None, "turns": None, **wish}), settings)


def test_one_prompt_goes_to_stdout_as_plain_completion(stories, capsys):
    ask(stories, prompt="Once upon a time", settings=Sampling(temperature=0.0, max_tokens=20))
    out = capsys.readouterr().out
    assert STORY.startswith("Once upon a time" + out[:20]) and out.startswith(",") and out.endswith("\n")


def test_a_pipe_is_the_prompt_and_json_one_object(stories, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Once upon a time\n"))
    ask(stories, as_json=True, settings=Sampling(temperature=0.0, max_tokens=5))
    answer = json.loads(capsys.readouterr().out)
    assert answer["tokens"] == 5 and STORY.startswith(answer["prompt"] + answer["text"])


def test_the_history_is_what_the_next_turn_reads(talk, monkeypatch):
    chat, prompts = talk(turns=True), []
    generate = chat._session.generate
    monkeypatch.setattr(
        chat._session, "generate", lambda ids, *rest: (prompts.append(list(ids)), generate(ids, *rest))[1]
    )
    chat.system = "Be kind."
    first = "".join(chat.say("Hello"))
    "".join(chat.say("And then?"))
    turns = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "And then?"},
    ]
    assert prompts[0] == encode_chat(chat.tokenizer, turns[:2], add_generation_prompt=True)[0]
    assert prompts[1] == encode_chat(chat.tokenizer, turns, add_generation_prompt=True)[0]
    chat.reset()
    assert "".join(chat.say("Hello")) == first


def test_when_the_positions_are_full_the_oldest_turns_go(talk):
    chat = talk(turns=True, max_tokens=60)
    for _ in range(6):
        "".join(chat.say("Tell me more about the little girl and her mum. " * 2))
    assert chat.forgotten > 0 and chat.messages[0]["role"] == "user"
    assert len(chat.messages) + chat.forgotten == 12
    before, forgotten = list(chat.messages), chat.forgotten
    with pytest.raises(SpecError, match="tokens"):
        "".join(chat.say("word " * 600))
    assert (chat.messages, chat.forgotten) == (before, forgotten)  # a message too long costs the chat nothing


def test_a_turn_that_fails_is_none(talk):
    chat = talk(turns=True)
    "".join(chat.say("Hello"))
    before = list(chat.messages)
    with torch.no_grad():
        weight = chat.model.model.norm.weight
        kept = weight.clone()
        try:
            weight[0] = torch.nan
            chat._session = Session(chat.model)  # which takes the weights as they are
            with pytest.raises(ArtifactError, match="no finite numbers"):
                "".join(chat.say("And then?"))
        finally:
            weight.copy_(kept)
    assert chat.messages == before


def test_an_answer_cut_off_stays_in_the_history(talk):
    chat = talk(turns=True, max_tokens=40)
    answer = chat.say("Hello")
    shown = next(answer) + next(answer)
    answer.close()
    assert chat.messages[-1] == {"role": "assistant", "content": shown}


def test_generation_stops_at_the_end_of_a_turn(talk, monkeypatch):
    chat = talk(turns=True, max_tokens=40)
    free = "".join(chat.say("Hello"))
    third = chat.tokenizer.encode(free)[3]
    chat.reset()
    chat._stops = {third}
    assert len("".join(chat.say("Hello"))) < len(free)
    assert chat.token_count <= 3
    assert {chat.tokenizer.eot_id, chat.tokenizer.eos_id} <= talk(turns=True)._stops


def test_the_terminal_knows_its_commands(talk, capsys):
    lines = iter(["/help", "/reset", "/nonsense", "", "Once upon a time", "/exit"])
    Terminal(talk(turns=False)).converse("stories", read=lambda _: next(lines))
    out = capsys.readouterr().out
    assert terminal.HELP in out and "forgotten" in out and "unknown command /nonsense" in out
    assert ", there was a l" in out


def test_end_of_input_and_ctrl_c_end_it_quietly(talk, capsys):
    for error in (EOFError, KeyboardInterrupt):

        def read(_: str, error: type[BaseException] = error) -> str:
            raise error

        Terminal(talk(turns=True)).converse("stories", read=read)
    assert "Traceback" not in capsys.readouterr().err


def test_what_cannot_be_is_refused(stories, monkeypatch):
    with pytest.raises(SpecError, match="--system"):
        ask(stories, prompt="x", system="Be kind.")
    with pytest.raises(ArtifactError, match="no run nobody"):
        ask(stories, model="nobody", prompt="x")
    with pytest.raises(SpecError, match="tokens"):
        ask(stories, prompt="word " * 600)
    if not torch.cuda.is_available():
        with pytest.raises(ResourceError):
            run(PlaceAndDevice(project=stories.root, device="cuda"), Wish("./stories", "x", None, None), GREEDY)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    with pytest.raises(SpecError, match="--json"):
        ask(stories, as_json=True)


def test_a_model_without_markers_can_still_take_turns(stories, capsys):
    ask(stories, prompt="Hello", turns=True, settings=Sampling(temperature=0.0, max_tokens=8))
    assert capsys.readouterr().out.strip()
    assert Tokenizer.load(stories.root / "stories").marker_ids == {}


def drive(chat: Conversation, *lines: str) -> None:
    """A person's lines, then the end of input."""
    given = iter([*lines, "/exit"])
    Terminal(chat).converse("stories", read=lambda _: next(given))


def test_a_stop_string_ends_an_answer(stories, capsys):
    ask(stories, prompt="Once upon a time", stop=("no such", "little"), settings=GREEDY)
    assert capsys.readouterr().out == ", there was a \n"


def test_undo_and_retry(talk, capsys):
    chat = talk(turns=True, temperature=1.0)
    drive(chat, "Hello", "How are you?", "/undo", "/undo", "/undo", "/retry")
    out = capsys.readouterr().out
    assert "forgotten: How are you?" in out and "forgotten: Hello" in out
    assert "there is no turn to forget" in out and "nothing was asked yet" in out and chat.messages == []
    drive(chat, "Hello")
    first = chat.messages[-1]["content"]
    drive(chat, "/retry")
    assert [message["content"] == "Hello" for message in chat.messages] == [True, False]
    assert chat.messages[-1]["content"] != first
    continued = talk(turns=False, temperature=1.0)
    drive(continued, "Once upon", "/retry")
    assert continued.answered == 2 and continued.asked == "Once upon"
    capsys.readouterr()
    drive(continued, "/undo")
    out = capsys.readouterr().out
    assert "nothing is remembered, so there is no turn to forget" in out and "forgotten: " not in out


def test_settings_and_the_system_message_change_on_the_way(talk, capsys):
    chat = talk(turns=True)
    drive(chat, "/set temperature=0.5 top_k=7", "/set nonsense=1", "/set top_k=many", "/set top_p=2", "/set")
    out = capsys.readouterr().out
    assert (chat.settings.temperature, chat.settings.top_k) == (0.5, 7)
    assert "no setting 'nonsense'" in out and "'many' is no int" in out and "top_p=2.0 must be" in out
    assert out.count("temperature=0.5  top_k=7") == 2
    drive(chat, "/system Be kind.", "Hello")
    assert chat.system == "Be kind." and len(chat.messages) == 2
    drive(chat, "/system")
    assert chat.system is None
    drive(talk(turns=False), "/system Be kind.")
    assert "no system message" in capsys.readouterr().out


def test_a_saved_chat_is_read_back_as_one(talk, capsys, tmp_path):
    chat, path = talk(turns=True), tmp_path / "chats.jsonl"
    drive(chat, f"/save {path}", "/save", "/system Be kind.", "Hello", "And <then>?", f"/save {path}", "/reset")
    drive(chat, "Again", f"/save {path}", f"/save {tmp_path / 'no' / 'folder'}")
    out = capsys.readouterr().out
    assert "nothing was said yet" in out and "/save needs a file" in out and "can't be written" in out
    found = list(Chats([str(path)], tmp_path))
    assert [message.role for message in found[0].messages] == ["system", *["user", "assistant"] * 2]
    assert found[0].messages[3].content == "And <then>?" and found[1].messages[1].content == "Again"


def test_a_chat_is_saved_where_the_project_is(stories, tmp_path, monkeypatch, capsys):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    lines = iter(["Hello", "/save chats.jsonl", "/exit"])
    converse = Terminal.converse
    monkeypatch.setattr(Terminal, "converse", lambda self, label: converse(self, label, lambda _: next(lines)))
    ask(stories, turns=True, settings=Sampling(temperature=0.0, max_tokens=3))
    assert (stories.root / "chats.jsonl").is_file() and not list(elsewhere.iterdir())
    assert "2 messages added to chats.jsonl" in capsys.readouterr().out


def test_an_empty_prompt_begins_a_text_and_is_no_message(stories, capsys, monkeypatch):
    ask(stories, prompt="", settings=Sampling(temperature=0.0, max_tokens=5))
    assert STORY.startswith(capsys.readouterr().out.strip()[:8])
    for text in ("", " \n"):
        with pytest.raises(SpecError, match="the message is empty"):
            ask(stories, prompt=text, turns=True)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with pytest.raises(SpecError, match="the message is empty"):
        ask(stories, turns=True)


def test_an_empty_stop_string_is_refused(stories):
    with pytest.raises(SpecError, match="--stop ''"):
        ask(stories, prompt="Once", stop=("end", ""))


def test_on_a_terminal_answers_are_markdown(talk, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("CI", raising=False)
    for name, markdown in (("xterm", True), ("dumb", False)):
        monkeypatch.setenv("TERM", name)
        chat = talk(turns=True)
        monkeypatch.setattr(chat, "say", lambda _: iter(["**bo", "ld**\n\n- one\n\x1b[2J"]))
        drive(chat, "Hello")
        out = capsys.readouterr().out
        assert ("•" in out) == ("\x1b[1mbold" in out) == markdown
        assert "\x1b[2J" not in out


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_other_weights_tell_the_story_too(stories, capsys, weights):
    ask(stories, prompt="Once upon a time", weights=weights, settings=Sampling(temperature=0.0, max_tokens=8))
    assert capsys.readouterr().out.startswith(", there was a")
    with pytest.raises(SpecError, match="--weights int4"):
        ask(stories, prompt="Once", weights="int4")


def test_a_closed_standard_input_is_no_prompt(stories, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SpecError, match="standard input is closed"):
        ask(stories)
    ask(stories, prompt="Once", settings=Sampling(temperature=0.0, max_tokens=3))
    assert capsys.readouterr().out
