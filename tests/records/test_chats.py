from __future__ import annotations

import json
from pathlib import Path

import pytest

from gptcli.artifacts.manifest import Inputs
from gptcli.errors import SpecError
from gptcli.records import chats as chats_module
from gptcli.records.chats import Chat, Chats, Message, held_out
from gptcli.records.docstrings import docstrings
from gptcli.records.sources import expand, fingerprint, source_inputs

ASKED = Message("user", "Why?")
ANSWERED = Message("assistant", "Because.")


def save(path: Path, rows: list[object]) -> None:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def test_every_shape(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be brief."}
    listed = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    rows: list[object] = [
        {"messages": [system, *listed]},
        {"prompt": "Why?", "completion": "Because."},
        {"instruction": "Why?", "input": "", "output": "Because."},
        {"instruction": "Why?", "output": "Because.", "text": "ignored"},
        {"instruction": "Add.", "input": "1 2", "output": "3 \ud800"},
    ]
    save(tmp_path / "a.jsonl", rows)
    (tmp_path / "b.json").write_text(json.dumps(rows[1:3], indent=1))
    chats = Chats(["a.jsonl", "b.json"], tmp_path)
    found = list(chats)
    assert found[0] == Chat((Message("system", "Be brief."), ASKED, ANSWERED), "a.jsonl:1")
    assert [chat.messages for chat in found[1:4]] == [(ASKED, ANSWERED)] * 3
    assert found[4].messages == (Message("user", "Add.\n\n1 2"), Message("assistant", "3 \ufffd"))
    assert [chat.where for chat in found[5:]] == ["b.json:2", "b.json:6"] and found[0].question == "Why?"
    assert list(chats) == found and chats.read == 7 and not chats.left_out


def test_bad_rows_are_counted(tmp_path: Path) -> None:
    good = {"prompt": "Why?", "completion": "Because."}
    rows: list[object] = [
        good,
        "no json",
        [1],
        {"text": "no chat"},
        {"messages": "none"},
        {"messages": [{"role": "wizard", "content": "x"}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "user", "content": "only asked"}]},
        good,
    ]
    save(tmp_path / "a.jsonl", rows)
    chats = Chats(["a.jsonl"], tmp_path)
    assert len(list(chats)) == 2
    assert chats.left_out == {
        f"bad_row:{reason}": 1
        for reason in (
            "not_json",
            "not_object",
            "no_chat",
            "messages_no_list",
            "unknown_role",
            "content_no_string",
            "no_answer",
        )
    }
    assert chats.read == 2 + chats.left_out.total()


def test_no_chat_at_all(tmp_path: Path) -> None:
    save(tmp_path / "a.jsonl", [{"question": "Why?", "answer": "Because."}] * 2)
    with pytest.raises(SpecError, match=r"a\.jsonl:1 holds no chat .* keys: question, answer"):
        list(Chats(["a.jsonl"], tmp_path))
    (tmp_path / "b.txt").write_text("prose")
    with pytest.raises(SpecError, match=r"b\.txt holds no JSON rows"):
        list(Chats(["b.txt"], tmp_path))


def test_docstrings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {entry.name: entry for entry in docstrings()}
    monkeypatch.setattr(chats_module, "docstrings", found.values)
    assert found["os.path.join"].question == "What does os.path.join do?"
    assert found["os.path.join"].answer.startswith("Join two or more pathname components")
    assert found["json.JSONDecoder" if "json.JSONDecoder" in found else "json.decoder.JSONDecoder"].question.startswith(
        "What is json."
    )
    assert not any(part.startswith("_") for name in found for part in name.split("."))
    assert all("  " not in entry.answer and "\n" not in entry.answer for entry in found.values())
    assert len(found) > 3000
    chats = list(Chats(["python:docstrings"], tmp_path))
    assert [chat.question for chat in chats] == [entry.question for entry in found.values()]
    assert chats[0].where.startswith("python:stdlib/")
    share = sum(held_out(chat.question, 0.1) for chat in chats) / len(chats)
    assert 0.08 < share < 0.12
    assert {c.question for c in chats if held_out(c.question, 0.05)} < {
        c.question for c in chats if held_out(c.question, 0.1)
    }


def test_real_rows(data_dir: Path, tmp_path: Path) -> None:
    lines = (data_dir / "gsm8k-train" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    save(tmp_path / "a.jsonl", [{"prompt": row["question"], "completion": row["answer"]} for row in rows])
    chats = list(Chats(["a.jsonl"], tmp_path))
    assert [(c.messages[0].content, c.messages[1].content) for c in chats] == [
        (row["question"], row["answer"]) for row in rows
    ]
    with pytest.raises(SpecError, match="its keys: instruction, input, response"):
        list(Chats(["gpteacher-roleplay/*.json"], data_dir))


def recorded(sources: list[str], root: Path) -> Inputs:
    files = expand(sources, root)
    found = fingerprint(files)
    return Inputs(source_inputs(files, found, "chats"), found)


def test_only_recorded_files_are_read(tmp_path: Path) -> None:
    good = {"prompt": "Why?", "completion": "Because."}
    (tmp_path / "a").mkdir()
    save(tmp_path / "a" / "1.jsonl", [good])
    save(tmp_path / "a" / "2.jsonl", [good])
    inputs = recorded(["a"], tmp_path)
    save(tmp_path / "a" / "0.jsonl", [good])
    assert [chat.where for chat in Chats(["a"], tmp_path, inputs)] == ["a/1.jsonl:1", "a/2.jsonl:1"]
    save(tmp_path / "a" / "2.jsonl", [good, good])
    with pytest.raises(SpecError, match=r"a/2\.jsonl changed while it was read") as caught:
        list(Chats(["a"], tmp_path, inputs))
    assert "run" in caught.value.hint
    (tmp_path / "a" / "2.jsonl").unlink()
    with pytest.raises(SpecError, match="files of a are no longer there"):
        list(Chats(["a"], tmp_path, inputs))


def test_a_tool_s_role_is_counted_where_rows_are_read(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    save(tmp_path / "a.jsonl", [{"messages": turns}, {"messages": [*turns, {"role": "tool", "content": "42"}]}])
    chats = Chats(["a.jsonl"], tmp_path)
    assert len(list(chats)) == 1 and chats.left_out == {"bad_row:unknown_role": 1}
