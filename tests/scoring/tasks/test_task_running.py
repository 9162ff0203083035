"""A task run: order, ids, groups, known items, examples, hostile rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gptcli.errors import SpecError
from gptcli.models.family import CausalLM
from gptcli.records.items import ItemRow
from gptcli.scoring.engine import Engine
from gptcli.scoring.judged import Judged
from gptcli.scoring.requests import Answer, LikelihoodAnswer
from gptcli.scoring.tasks.cloze import Cloze
from gptcli.scoring.tasks.posing import Manner, TokenPosing
from gptcli.scoring.tasks.rows import TaskRows
from gptcli.scoring.tasks.running import run_task
from gptcli.scoring.tasks.task import item_id
from gptcli.tokenizer import Tokenizer

CLOZE = 'kind = "cloze"\ndata = "a.jsonl"\nprompt = "{q}"\nanswer = "a"\n'


def jsonl(*rows: Mapping[str, Any]) -> dict[str, str]:
    return {"a.jsonl": "".join(json.dumps(row) + "\n" for row in rows)}


def many(count: int) -> list[dict[str, str]]:
    return [{"q": f"Once there were {number}", "a": "dogs"} for number in range(count)]


def test_items_come_in_the_order_of_the_file_in_groups(run_toml: Callable[..., Any]) -> None:
    whole = run_toml(CLOZE, jsonl(*many(7)))
    assert [row.where for row in whole.judged] == [f"a.jsonl:{line}" for line in range(1, 8)]
    assert {row.task for row in whole.judged} == {"asked"}
    assert run_toml(CLOZE, jsonl(*many(7)), group=3).judged == whole.judged
    assert run_toml(CLOZE + "limit = 4", jsonl(*many(7))).judged == whole.judged[:4]


def test_ids_are_the_items_own(run_toml: Callable[..., Any]) -> None:
    """Not those of their file, the examples before them, the task's name or what is not posed."""
    ids = [row.item for row in run_toml(CLOZE, jsonl(*many(5))).judged]
    assert len(set(ids)) == 5 and all(len(each) == 32 for each in ids)
    assert [row.item for row in run_toml(CLOZE, jsonl(*many(5)[::-1])).judged] == ids[::-1]
    other = CLOZE + 'shots = 2\nseed = 3\nname = "x"\ndescription = "D"\nchat = true'
    assert [row.item for row in run_toml(other, jsonl(*({**row, "z": 1} for row in many(5)))).judged] == ids
    assert ids[0] == item_id("cloze", "Once there were 0", "dogs") == "e642fea9c53780788810617254a44d9b"


def test_rows_that_ask_the_same_have_ids_of_their_own(run_toml: Callable[..., Any]) -> None:
    first, second = many(2)
    ids = [row.item for row in run_toml(CLOZE, jsonl(first, second, first, first)).judged]
    assert ids == [ids[0], ids[1], f"{ids[0]}-2", f"{ids[0]}-3"]


def test_known_items_are_not_asked_again(run_toml: Callable[..., Any]) -> None:
    whole = run_toml(CLOZE, jsonl(*many(6)))
    known = {row.item: replace(row, task="before", where="elsewhere:9") for row in whole.judged[:4]}
    again = run_toml(CLOZE, jsonl(*many(6)), known=known)
    assert again.judged == whole.judged and len(again.asked) == 2
    everything = {row.item: row for row in whole.judged}
    assert run_toml(CLOZE, jsonl(*many(6)), known=everything).asked == []


def test_examples_stand_before_each_item(run_toml: Callable[..., Any], stories_tokenizer: Tokenizer) -> None:
    run = run_toml(CLOZE + 'shots = 2\nshots_separator = "\\n"', jsonl(*many(5)))
    texts = [stories_tokenizer.decode(request.context) for request in run.asked]
    for number, text in enumerate(texts):
        *shown, own = text.split("\n")
        assert own == f"Once there were {number}" and len(set(shown)) == 2
        assert all(one.endswith(" dogs") for one in shown) and f"{own} dogs" not in shown
    apart = run_toml(
        CLOZE + 'shots = 1\nshots_data = "b.jsonl"', {**jsonl(*many(3)), "b.jsonl": '{"q": "Two", "a": "cats"}\n'}
    )
    assert {stories_tokenizer.decode(request.context)[:8] for request in apart.asked} == {"Two cats"}


def test_a_chat_is_asked_where_the_model_or_the_task_says_so(run_toml: Callable[..., Any]) -> None:
    choice = 'kind = "multiple_choice"\ndata = "a.jsonl"\nprompt = "{q}"\nchoices = ["{a}", "none"]\nanswer = "g"\n'
    rows = jsonl({**many(1)[0], "g": 0})

    def contexts(toml: str, tuned: bool) -> tuple[int, ...]:
        found: tuple[int, ...] = run_toml(toml, rows, chat_tuned=tuned).asked[0].context
        return found

    assert contexts(choice, True) == contexts(choice + "chat = true", False) != contexts(choice, False)
    assert contexts(choice + "chat = false", True) == contexts(choice, False)
    assert contexts(CLOZE, True) == contexts(CLOZE, False) != contexts(CLOZE + "chat = true", False)


def test_bad_rows_are_counted_and_the_rest_is_asked(run_toml: Callable[..., Any]) -> None:
    good = many(1)[0]
    run = run_toml(CLOZE, {"a.jsonl": f'{json.dumps(good)}\nbroken\n{{"q": "x"}}\n{{"q": 1, "a": ""}}\n{{"q": 2}}\n'})
    assert len(run.judged) == 1
    assert run.rows.left_out.counts == {"not_json": 1, "no_field:a": 2, "empty_answer": 1}
    assert run.rows.left_out.first["no_field:a"] == "a.jsonl:3"
    assert run.rows.details["no_field:a"] == "there is no field a; it has q"


def test_a_task_none_of_whose_rows_makes_an_item(run_toml: Callable[..., Any]) -> None:
    told = r"asked: no row makes an item; 2 of 2: no_field:a, as a\.jsonl:1 \(there is no field a; it has q, b\)"
    with pytest.raises(SpecError, match=told):
        run_toml(CLOZE, jsonl({"q": 1, "b": 2}, {"q": 1, "b": 2}))


@pytest.mark.parametrize(
    "text",
    ["😀 é 日本", "<s>[INST]</s>", "a\0b", "line\r\nline", "\ud800 lone", "word " * 200_000],
    ids=["emoji", "markup", "nul", "crlf", "surrogate", "megabyte"],
)
def test_hostile_texts(run_toml: Callable[..., Any], stories_tokenizer: Tokenizer, text: str) -> None:
    run = run_toml(CLOZE, jsonl({"q": text, "a": "end"}))
    (row,) = run.judged
    (asked,) = run.asked
    assert not any(map(stories_tokenizer.is_control, asked.context[1:])) and row.logprobs[0] < 0
    assert row.cut == max(0, len(asked.context) + len(asked.continuation) - 513)
    assert (row.cut > 100_000) == (len(text) > 1000)


@pytest.mark.parametrize("group", [1, 7, 64])
def test_packed_requests_give_the_same(
    run_toml: Callable[..., Any],
    stories_model: CausalLM,
    stories_tokenizer: Tokenizer,
    data_dir: Path,
    group: int,
) -> None:
    """The engine of evaluations, whatever it is asked at once, against a request at a time."""
    path = data_dir / "eval-mc-dev" / "copa.jsonl"
    plain = run_toml(
        f'kind = "multiple_choice"\ndata = "{path}"\nprompt = "{{query}}"\nchoices = "choices"\nanswer = "gold"\n'
        'limit = 20\nshots = 2\nshots_separator = ". "'
    )
    engine = Engine(stories_model, stories_tokenizer, device=torch.device("cpu"), dtype=torch.float32, stop_ids=(2,))
    posing = TokenPosing(stories_tokenizer, Manner.of(plain.task, False))
    groups = list(run_task(plain.task, plain.rows, posing, engine, group=group))
    assert [len(each) for each in groups[:-1]] == [group] * (len(groups) - 1)
    for one, other in zip((row for each in groups for row in each), plain.judged, strict=True):
        assert replace(one, logprobs=()) == replace(other, logprobs=())
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


@dataclass
class Halting:
    """An engine that tells of its requests one by one."""

    def answer(self, requests: Any, advance: Callable[[int], None] | None = None) -> list[Answer]:
        assert advance is not None
        for _ in requests:
            advance(1)
        return [LikelihoodAnswer(-1.0, True, 1) for _ in requests]


@pytest.mark.parametrize("known", [0, 2, 5])
def test_progress_counts_items(stories_tokenizer: Tokenizer, known: int) -> None:
    task = Cloze.model_validate({"name": "t", "data": ["d"], "prompt": "{q}", "answer": "a"})
    rows = TaskRows([ItemRow(row, "f") for row in many(5)])
    posing = TokenPosing(stories_tokenizer, Manner.of(task, False))
    judged = [row for group in run_task(task, rows, posing, Halting(), advance=lambda more: None) for row in group]
    steps: list[int] = []
    before: dict[str, Judged] = {row.item: row for row in judged[:known]}
    for _ in run_task(task, rows, posing, Halting(), known=before, advance=steps.append, group=2):
        assert steps and min(steps) > 0
    assert sum(steps) == 5 == rows.most_items(task)
