from __future__ import annotations

import json

import pytest

from gptcli.errors import SpecError
from gptcli.records.chats import Chats
from gptcli.scoring.rendering import render_chats
from gptcli.tokenizer import Tokenizer


def test_when_every_chat_is_too_long_the_shortest_is_named(data_dir, tmp_path):
    tokenizer = Tokenizer.load(data_dir / "stories260K-hf")
    rows = [{"prompt": "Why? " * count, "completion": "Because."} for count in (9, 5, 7)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(SpecError, match=r"longer than seq_len = 8; the shortest, a\.jsonl:2, has \d+ tokens"):
        render_chats(Chats(["a.jsonl"], tmp_path), tokenizer, 8, 0.5)
    found = render_chats(Chats(["a.jsonl"], tmp_path), tokenizer, 512, 0.5)
    assert len(found.train) + len(found.held_out) == 3 and found.left_out == {}
