from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pytest

from gptcli.artifacts.manifest import Input
from gptcli.errors import GateError, SpecError
from gptcli.scoring.classes import confusion
from gptcli.scoring.evaluations import DOCUMENTS, ITEMS, Evaluation
from gptcli.scoring.gates import judge, parse_gate, require_baseline, require_known, require_passed
from gptcli.scoring.judged import Judged, to_batch

FIGURES = {"bits_per_byte": 1.8, "loss": 2.5, "broken": math.nan}


def passes(*gates: str, figures: Mapping[str, float] = FIGURES) -> None:
    require_passed(judge([parse_gate(gate) for gate in gates], Evaluation("base", figures)))


def write(path: Path, batch: pa.RecordBatch) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def of_items(place: Path, scores: Sequence[float], first: int = 0) -> Evaluation:
    """An evaluation of one task, arc, with these scores of its items."""
    place.mkdir()
    rows = [
        Judged("arc", f"{number:032x}", f"arc.jsonl:{number + 1}", "?", "a", "b", {"acc": score})
        for number, score in enumerate(scores, first)
    ]
    write(place / ITEMS, to_batch(rows))
    return Evaluation(place.name, {"arc.acc": sum(scores) / len(scores)}, directory=place)


def right_and_wrong(both: int, only_first: int, only_second: int, neither: int) -> tuple[list[float], list[float]]:
    first = [1.0] * (both + only_first) + [0.0] * (only_second + neither)
    second = [1.0] * both + [0.0] * only_first + [1.0] * only_second + [0.0] * neither
    return first, second


@pytest.mark.parametrize("text", ["bits_per_byte>1.9", " loss <= 2 ", "bits_per_byte == 2", "loss>2.5", "loss != 2.5"])
def test_a_gate_that_holds_says_nothing(text: str) -> None:
    passes(text)


@pytest.mark.parametrize("text", ["bits_per_byte>1.7", "loss>=2.5", "loss<3", "loss==2.5", "bits_per_byte != 1"])
def test_a_gate_that_fails_names_the_figure(text: str) -> None:
    with pytest.raises(GateError, match=text.strip().split(">")[0].split("<")[0].split("=")[0].split("!")[0].strip()):
        passes(text)


def test_all_gates_that_did_not_pass_are_named() -> None:
    with pytest.raises(
        GateError, match=r"^bits_per_byte is 1.8, .*; loss is 2.5, fails if loss > 1; chat_loss > 1 cann"
    ):
        passes("bits_per_byte>1", "chat_loss > 1", "loss>1", "loss>9")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("arc_easy.acc<baseline", "arc_easy.acc < baseline"),
        ("20news.f1_macro <= baseline-0.01", "20news.f1_macro <= baseline - 0.01"),
        ("loss > baseline * 1.02 significantly", "loss > baseline * 1.02 significantly"),
        ("loss>baseline+1e-3", "loss > baseline + 0.001"),
        ("loss != baseline significantly ", "loss != baseline significantly"),
        ("arc-easy.acc < 0.3", "arc-easy.acc < 0.3"),
        ("loss > -1", "loss > -1"),
    ],
)
def test_the_grammar(text: str, shown: str) -> None:
    assert str(parse_gate(text)) == shown and parse_gate(shown) == parse_gate(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "loss", "loss>", ">2", "loss>two", "loss=2", "loss>1>2", "loss>nan", "__import__('os')>1", "loss>inf"),
        *("loss > base", "loss > baseline 2", "loss > baseline / 2", "loss > baseline -", "loss > 2 * baseline"),
        *(
            "loss > 2 significantly",
            "loss == baseline significantly",
            "loss > baseline rarely",
            "loss > baseline * nan",
        ),
    ],
)
def test_what_is_no_gate_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="--fail-if"):
        parse_gate(text)


def test_an_unknown_figure_is_refused_with_those_there_are() -> None:
    with pytest.raises(SpecError) as caught:
        require_known([parse_gate("bits_per_bite>1")], ("loss", "bits_per_byte"))
    assert "did you mean bits_per_byte" in caught.value.message
    assert caught.value.hint == "figures: bits_per_byte, loss"
    with pytest.raises(SpecError) as caught:
        require_known([parse_gate("blimp_40.ac>1")], [f"blimp_{number}.acc" for number in range(67)])
    assert "did you mean blimp_40.acc" in caught.value.message and caught.value.hint.endswith(" and 47 more")


def test_a_gate_on_a_baseline_needs_one_of_another_name() -> None:
    gates = [parse_gate("loss > 3"), parse_gate("loss > baseline")]
    with pytest.raises(SpecError, match="'loss > baseline': there is no baseline"):
        require_baseline(gates, None, "new")
    with pytest.raises(SpecError, match="--baseline new is the evaluation being made"):
        require_baseline(gates, "new", "new")
    require_baseline(gates, "old", "new")
    require_baseline(gates[:1], None, "new")
    with pytest.raises(SpecError, match="no baseline"):
        judge(gates, Evaluation("new", FIGURES))


def test_a_figure_that_is_no_number_fails() -> None:
    with pytest.raises(GateError, match="broken is no number, which fails broken > 1"):
        passes("broken>1")


def test_a_figure_that_was_not_measured_is_no_pass() -> None:
    (outcome,) = judge([parse_gate("bits_per_bytes > 1")], Evaluation("base", FIGURES))
    assert outcome.verdict == "cannot be judged"
    assert outcome.reason == "bits_per_bytes was not measured (bits_per_byte was)"
    with pytest.raises(GateError, match="bits_per_bytes > 1 cannot be judged: bits_per_bytes was not measured"):
        require_passed([outcome])


@pytest.mark.parametrize(
    ("gate", "verdict"),
    [
        ("loss > baseline", "failed"),
        ("loss > baseline + 0.2", "passed"),
        ("loss > baseline * 1.01", "failed"),
        ("loss < baseline - 0.1", "passed"),
    ],
)
def test_a_bound_may_be_a_baseline(gate: str, verdict: str) -> None:
    (outcome,) = judge([parse_gate(gate)], Evaluation("new", {"loss": 2.5}), Evaluation("old", {"loss": 2.4}))
    assert (outcome.verdict, outcome.value, outcome.baseline, outcome.p_value) == (verdict, 2.5, 2.4, None)


@pytest.mark.parametrize("split", ["val", "test"])
def test_other_text_is_no_baseline(split: str) -> None:
    def scored(name: str, split: str, tokens: str) -> Evaluation:
        inputs = (Input("model", "runs/x", name), Input("tokens", "tokens/main", tokens))
        return Evaluation(name, {"loss": 2.5}, spec={"split": split, "limit": 0}, inputs=inputs)

    gate = [parse_gate("loss > baseline")]
    (outcome,) = judge(gate, scored("new", "val", "a"), scored("old", split, "a"))
    assert (outcome.verdict == "passed") == (split == "val")
    (outcome,) = judge(gate, scored("new", "val", "a"), scored("old", "val", "b"))
    assert outcome.reason == "the baseline old was measured on other data"


def test_a_difference_is_tested_on_the_same_items(tmp_path: Path) -> None:
    before, after = right_and_wrong(50, 10, 2, 38)
    old, new = of_items(tmp_path / "old", before), of_items(tmp_path / "new", after)
    (outcome,) = judge([parse_gate("arc.acc < baseline")], new, old)
    assert outcome.verdict == "failed" and outcome.items == 100
    assert outcome.p_value == pytest.approx(2 * (1 + 12 + 66) / 2**12)  # McNemar: 2 or fewer of 12
    assert "arc.acc is 0.52, fails if arc.acc < baseline (there it is 0.6; p = 0.039 on 100 items" in outcome.reason


def test_significantly_lets_chance_pass(tmp_path: Path) -> None:
    before, after = right_and_wrong(50, 7, 2, 41)
    old, new = of_items(tmp_path / "old", before), of_items(tmp_path / "new", after)
    plain, weighed = judge([parse_gate("arc.acc<baseline"), parse_gate("arc.acc<baseline significantly")], new, old)
    assert (plain.verdict, weighed.verdict) == ("failed", "passed")
    assert plain.p_value == weighed.p_value == pytest.approx(2 * (1 + 9 + 36) / 2**9)
    assert "may be chance; p = 0.18 on 100 items, whose smallest effect is 0.0" in weighed.reason
    require_passed([weighed])


def test_many_gates_that_say_significantly_are_held_to_more(tmp_path: Path) -> None:
    before, after = right_and_wrong(50, 10, 2, 38)
    old, new = of_items(tmp_path / "old", before), of_items(tmp_path / "new", after)
    gate = parse_gate("arc.acc < baseline significantly")
    (alone,) = judge([gate], new, old)
    assert alone.verdict == "failed"
    twice = judge([gate, gate], new, old)
    assert [outcome.verdict for outcome in twice] == ["passed", "passed"]
    assert twice[0].p_value == pytest.approx(2 * (alone.p_value or 0))


def test_a_margin_moves_what_is_tested(tmp_path: Path) -> None:
    draw = random.Random(1)
    before = [draw.random() for _ in range(200)]
    after = [score - 0.05 + draw.gauss(0, 0.05) for score in before]
    old, new = of_items(tmp_path / "old", before), of_items(tmp_path / "new", after)
    gates = [f"arc.acc < baseline {margin} significantly" for margin in ("", "- 0.03", "- 0.05", "* 0.95")]
    verdicts = [judge([parse_gate(gate)], new, old)[0].verdict for gate in gates]
    assert verdicts == ["failed", "failed", "passed", "failed"]


def test_other_items_are_no_baseline(tmp_path: Path) -> None:
    old, new = of_items(tmp_path / "old", [1.0] * 10), of_items(tmp_path / "new", [1.0] * 8, first=5)
    (outcome,) = judge([parse_gate("arc.acc < baseline")], new, old)
    assert outcome.verdict == "cannot be judged"
    assert outcome.reason == ("the baseline old was measured on other items: 5 are the same, of 8 here and 10 there")
    (outcome,) = judge([parse_gate("arc.acc < baseline")], new, Evaluation("older", {"loss": 1.0}))
    assert outcome.reason == "the baseline older has no such figure"
    with pytest.raises(GateError, match="older has no such figure"):
        require_passed([outcome])


def test_the_same_question_twice_is_two_items(tmp_path: Path) -> None:
    old = of_items(tmp_path / "old", [1.0, 0.0])
    place = tmp_path / "new"
    place.mkdir()
    row = Judged("arc", "same", "arc.jsonl:1", "?", "a", "b", {"acc": 1.0})
    write(place / ITEMS, to_batch([row, row, row]))
    assert list(Evaluation("new", {}, directory=place).tasks["arc"]) == ["same", "same#2", "same#3"]
    assert old.sample("arc.acc") is not None and old.sample("arc.f1") is None


def test_bits_per_byte_is_tested_by_documents(tmp_path: Path) -> None:
    draw = random.Random(2)
    nats = [draw.uniform(100, 900) for _ in range(60)]
    for name, more in (("old", 0.0), ("new", 8.0)):
        (tmp_path / name).mkdir()
        columns = {
            "document": [f"{number:032x}" for number in range(60)],
            "nats": [each + more + draw.gauss(0, 5) for each in nats],
            "tokens": [100] * 60,
            "bytes": [round(each) for each in nats],
        }
        write(tmp_path / name / DOCUMENTS, pa.RecordBatch.from_pydict(columns))
    figures = {"bits_per_byte": 1.46, "perplexity": 200.0, "sliding.loss": 5.0}
    old = Evaluation("old", {**figures, "bits_per_byte": 1.44, "perplexity": 190.0}, directory=tmp_path / "old")
    new = Evaluation("new", figures, directory=tmp_path / "new")
    names = ("bits_per_byte", "perplexity", "sliding.loss")
    by_bytes, by_tokens, other = judge([parse_gate(f"{name} > baseline significantly") for name in names], new, old)
    for tested in (by_bytes, by_tokens):
        assert tested.verdict == "failed" and tested.items == 60 and (tested.p_value or 1) < 0.01
    assert (by_bytes.smallest_effect or 1) < 0.02 < 1 < (by_tokens.smallest_effect or 1) < 30
    assert other.verdict == "cannot be judged" and "cannot be computed from the items" in other.reason


def test_macro_f1_is_tested_by_its_answers_and_predictions(tmp_path: Path) -> None:
    draw = random.Random(3)
    answers = [draw.choice("abc") for _ in range(150)]
    found = []
    for name, right in (("old", 0.8), ("new", 0.5)):
        (tmp_path / name).mkdir()
        given = [answer if draw.random() < right else draw.choice("abc") for answer in answers]
        rows = [
            Judged("arc", f"{n:032x}", "", "?", answer, text, {"acc": float(answer == text), "invalid": 0.0})
            for n, (answer, text) in enumerate(zip(answers, given, strict=True))
        ]
        write(tmp_path / name / ITEMS, to_batch(rows))
        figures = {"arc.macro_f1": confusion(answers, given).figures()["macro_f1"]}
        found.append(Evaluation(name, figures, directory=tmp_path / name))
    gate = parse_gate("arc.macro_f1 < baseline significantly")
    (outcome,) = judge([gate], found[1], found[0])
    assert outcome.verdict == "failed" and (outcome.p_value or 1) < 0.01 and (outcome.smallest_effect or 1) < 0.3
    labels = {
        "arc": {"classes": {"rows": [["a"], ["b"], ["c"], ["d"]]}}
    }  # one that no item has counts as 0 in the mean
    more = [
        Evaluation(
            each.name, {"arc.macro_f1": each.figures["arc.macro_f1"] * 3 / 4}, tables=labels, directory=each.directory
        )
        for each in found
    ]
    (fourth,) = judge([gate], more[1], more[0])
    assert fourth.smallest_effect == pytest.approx(0.75 * (outcome.smallest_effect or 0))
    otherwise = Evaluation("old", {"arc.macro_f1": 0.99}, directory=found[0].directory)  # by another rule
    assert judge([gate], found[1], otherwise)[0].verdict == "cannot be judged"
