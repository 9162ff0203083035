"""Cloze: targets, where they are cut off, and both perplexities."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptcli.scoring.requests import LikelihoodAnswer
from gptcli.scoring.tasks.cloze import Cloze
from gptcli.scoring.tasks.few_shot import Unasked
from gptcli.scoring.tasks.task import Unposable

LAST_WORD = Cloze(name="t", data=["d"], text="{text}")


class Spelling(Unasked):
    """Keeps the texts that are to be posed."""

    def __init__(self) -> None:
        self.posed: list[tuple[str, str, str]] = []

    def pair(self, prompt: str, answer: str, delimiter: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        self.posed.append((prompt, delimiter, answer))
        return (1,), (2,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I don't care about signs", ("I don't care about", " ", "signs")),
        ("two\n\n lines end. \n", ("two\n\n lines", " ", "end.")),
        (" a\t b\u00a0c", (" a\t b", "\u00a0", "c")),
        ("x" * 300_000 + "   " * 100_000 + "y", ("x" * 300_000, "   " * 100_000, "y")),
    ],
    ids=["sentence", "lines", "kinds-of-blanks", "long"],
)
def test_the_last_word_is_cut_off(text: str, expected: tuple[str, str, str]) -> None:
    spelling = Spelling()
    item = LAST_WORD.item({"text": text}, "w", spelling)
    assert spelling.posed == [expected] and (item.prompt, item.answer) == (expected[0], expected[2])


@pytest.mark.parametrize("text", ["", "word", "  word ", " \n "])
def test_a_text_without_two_words(text: str) -> None:
    with pytest.raises(Unposable, match="fewer_than_two_words"):
        LAST_WORD.item({"text": text}, "w", Unasked())


def test_perplexities_are_of_items_and_of_tokens() -> None:
    item = LAST_WORD.item({"text": "one two"}, "w", Unasked())
    answers = [LikelihoodAnswer(-3.0, True, 1), LikelihoodAnswer(-5.0, False, 3, 7)]
    judged = [LAST_WORD.judge(item, [answer]) for answer in answers]
    figures = LAST_WORD.figures(judged)
    assert figures == {
        "acc": 0.5,
        "perplexity": pytest.approx(math.exp(4)),
        "token_perplexity": pytest.approx(math.exp(2)),
        "target_tokens": 2.0,
    }
    assert tuple(figures) == LAST_WORD.figure_names
    assert [(row.prediction, row.cut) for row in judged] == [("two", 0), ("", 7)]
    assert LAST_WORD.figures([]) == {}
    hopeless = [LAST_WORD.judge(item, [LikelihoodAnswer(-1000.0, False, 1)])]
    assert LAST_WORD.figures(hopeless)["perplexity"] == math.inf


def test_lambada(run_toml: Callable[..., Any], data_dir: Path) -> None:
    path = data_dir / "eval-mc-dev" / "lambada_openai_small.jsonl"
    run = run_toml(f'kind = "cloze"\ndata = "{path}"\nprompt = "{{context}}"\nanswer = "continuation"\n')
    assert len(run.judged) == 8 and [row.answer for row in run.judged][:2] == ["signs", "Shane"]
    assert run.figures["perplexity"] == pytest.approx(math.exp(-sum(row.logprobs[0] for row in run.judged) / 8))
    assert run.figures["acc"] == sum(bool(row.prediction) for row in run.judged) / 8
    texts = [f"{row['context']} {row['continuation']}" for row in map(json.loads, path.read_text().splitlines())]
    whole = run_toml(
        'kind = "cloze"\ndata = "a.jsonl"\ntext = "{text}"',
        {"a.jsonl": "".join(json.dumps({"text": text}) + "\n" for text in texts)},
    )
    assert whole.figures == run.figures
