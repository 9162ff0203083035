"""Minimal pairs: the good text must be the likelier one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gptcli.models.family import CausalLM
from gptcli.scoring.requests import LikelihoodAnswer
from gptcli.scoring.tasks.few_shot import Unasked
from gptcli.scoring.tasks.minimal_pairs import MinimalPairs
from gptcli.scoring.tasks.task import Unposable
from gptcli.tokenizer import Tokenizer

PAIRS = MinimalPairs(name="t", data=["d"], good="{good}", bad="{bad}")


def test_the_likelier_text_wins_and_equals_lose() -> None:
    item = PAIRS.item({"good": "He runs.", "bad": "He run."}, "w", Unasked())
    found = []
    for good, bad in ((-1.0, -2.0), (-2.0, -1.0), (-1.0, -1.0), (float("nan"), -1.0)):
        row = PAIRS.judge(item, [LikelihoodAnswer(good, False, 3, 1), LikelihoodAnswer(bad, False, 3)])
        assert row.cut == 1
        found.append((row.scores["acc"], row.prediction))
    assert found == [(1.0, "He runs."), (0.0, "He run."), (0.0, ""), (0.0, "")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"good": "a", "bad": "a"}, "good_is_bad"),
        ({"good": " ", "bad": "a"}, "empty_text"),
        ({"good": "a", "bad": ""}, "empty_text"),
        ({"good": "a"}, "no_field:bad"),
    ],
)
def test_rows_that_make_no_pair(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unposable, match=reason):
        PAIRS.item(row, "w", Unasked())


def test_blimp(
    run_toml: Callable[..., Any], data_dir: Path, stories_model: CausalLM, stories_tokenizer: Tokenizer
) -> None:
    path = data_dir / "blimp-dev" / "anaphor_number_agreement.jsonl"
    toml = (
        f'kind = "minimal_pairs"\ndata = "{path}"\ngood = "{{sentence_good}}"\nbad = "{{sentence_bad}}"\nlimit = 30\n'
    )
    run = run_toml(toml)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:30]]
    for row, one in zip(rows, run.judged, strict=True):
        for text, logprob in zip((row["sentence_good"], row["sentence_bad"]), one.logprobs, strict=True):
            ids = torch.tensor([stories_tokenizer.bos_id, *stories_tokenizer.encode(text)])
            with torch.inference_mode():
                logits = stories_model.hidden(ids[None, :-1])[0] @ stories_model.head_weight.T
            nats = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="sum")
            assert logprob == pytest.approx(-float(nats), abs=1e-4)
    assert run.figures == {"acc": sum(one.logprobs[0] > one.logprobs[1] for one in run.judged) / 30}
    assert run.figures["acc"] > 0.5  # a model of stories knows himself from themselves
