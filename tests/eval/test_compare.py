from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pytest

from gptcli.artifacts.build import Build
from gptcli.artifacts.manifest import Input, Inputs
from gptcli.artifacts.project import Project
from gptcli.errors import ArtifactError, SpecError
from gptcli.eval.compare import Comparison, compare, print_comparison
from gptcli.scoring.directions import higher_is_better
from gptcli.scoring.evaluations import read_evaluation
from gptcli.scoring.judged import Judged, to_batch


def make(
    project: Project,
    name: str,
    figures: dict[str, float | None],
    rows: Sequence[Judged] = (),
    nats: Sequence[float] = (),
    tokens: str = "t",
) -> None:
    """An evaluation as the stage leaves it."""
    inputs = Inputs((Input("model", f"runs/{name}", name), Input("tokens", "tokens/main", tokens)))
    spec = {"model": name, "split": "val"}
    build = Build.open(project.root / "evals" / name, kind="evaluation", spec=spec, inputs=inputs, say=print)
    intervals = {figure: [value - 0.1, value + 0.1] for figure, value in figures.items() if value is not None}
    report = {"model": name, "figures": figures, "intervals": intervals}
    (build.directory / "report.json").write_text(json.dumps(report), encoding="utf-8")
    batches = {"items.arrow": to_batch(rows)} if rows else {}
    if nats:
        documents = [f"{number:032x}" for number in range(len(nats))]
        columns = {"document": documents, "nats": list(nats), "tokens": [50] * len(nats), "bytes": [200] * len(nats)}
        batches["documents.arrow"] = pa.RecordBatch.from_pydict(columns)
    for file, batch in batches.items():
        with pa.OSFile(str(build.directory / file), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
    build.commit(dict(figures), {"created": "2026-01-02T03:04:05Z", "seconds": 1.5})


def choice(number: int, is_right: bool, task: str = "arc") -> Judged:
    scores = {"acc": float(is_right), "acc_norm_bytes": 1.0}
    prediction = "yes" if is_right else "no"
    return Judged(
        task, f"{number:032x}", f"{task}.jsonl:{number + 1}", f"Is {number}\nright?", "yes", prediction, scores
    )


def accuracy(rows: Sequence[Judged]) -> float:
    return sum(row.scores["acc"] for row in rows) / len(rows)


@pytest.fixture
def three(project: Project) -> Project:
    """old, new (7 of 40 better, none worse; fewer nats in every document) and other (other items for the most part,
    another task, other text)."""
    draw = random.Random(4)
    old = [choice(number, number >= 20) for number in range(40)]
    new = [choice(number, number >= 20 or number < 7) for number in range(40)]
    other = [choice(number, number % 2 == 0) for number in range(36, 60)] + [choice(0, True, "piqa")]
    nats = [draw.uniform(100, 300) for _ in range(40)]
    make(project, "old", {"arc.acc": accuracy(old), "loss": 4.0, "tokens": 2000.0, "ece": None}, old, nats)
    fewer = [each - draw.uniform(5, 15) for each in nats]
    make(project, "new", {"arc.acc": accuracy(new), "loss": 3.8, "tokens": 2000.0, "ece": 0.1}, new, fewer)
    figures: dict[str, float | None] = {"arc.acc": accuracy(other[:-1]), "piqa.acc": 1.0, "bits_per_byte": 1.0}
    make(project, "other", figures, other, tokens="u")
    return project


def told(comparison: Comparison, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    print_comparison(comparison, True)
    found: dict[str, Any] = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    return found


def test_figures_side_by_side(three: Project) -> None:
    found = compare(three, ["old", "new"])
    assert found.header == ("figure", "old", "new", "difference", "p", "smallest effect")
    assert {row[0]: row[1:3] for row in found.rows} == {
        "arc.acc": (" 0.5000", "▸0.6750*"),  # seven of seven: p = 2 / 2^7; the second of two tests
        "loss": (" 4.0000", "▸3.8000**"),
        "tokens": (" 2,000", " 2,000"),
        "ece": (" nan", " 0.1000"),
    }


def test_two_alone_show_what_their_difference_says(three: Project) -> None:
    rows = {row[0]: row[3:] for row in compare(three, ["old", "new"]).rows}
    variance = (7 - 40 * 0.175**2) / 39  # seven differences of 1 among forty
    assert rows["arc.acc"] == ("+0.1750", "0.016", f"{(1.959964 + 0.841621) * (variance / 40) ** 0.5:.4f}")
    assert rows["tokens"] == ("", "", "")
    assert {len(row) for row in compare(three, ["old", "new", "other"]).rows} == {4}


def test_tests_are_corrected_for_their_number(three: Project, capsys: pytest.CaptureFixture[str]) -> None:
    figures = told(compare(three, ["old", "new"]), capsys)
    arc, loss = figures["tests"]
    assert (arc["figure"], arc["test"], arc["items"], arc["left_out"]) == ("arc.acc", "mcnemar", 40, 0)
    assert arc["p_value"] == arc["p_value_holm"] == pytest.approx(2 / 2**7)
    assert (loss["test"], loss["p_value_holm"]) == ("paired_bootstrap", pytest.approx(2 * loss["p_value"]))
    assert figures["best"] == {"arc.acc": ["new"], "loss": ["new"]}
    assert figures["figures"]["ece"] == {"old": None, "new": 0.1}
    assert figures["intervals"]["new"]["loss"] == pytest.approx([3.7, 3.9])


def test_the_items_they_differ_on(three: Project, capsys: pytest.CaptureFixture[str]) -> None:
    found = compare(three, ["old", "new"], shown=2)
    figures = told(found, capsys)
    assert figures["shared_items"] == {"arc": 40} and figures["differing_items"] == 7
    assert [item["where"] for item in figures["items"]] == ["arc.jsonl:1", "arc.jsonl:2"]
    assert figures["items"][0]["predictions"] == {
        "old": {"prediction": "no", "scores": {"acc": 0.0, "acc_norm_bytes": 1.0}},
        "new": {"prediction": "yes", "scores": {"acc": 1.0, "acc_norm_bytes": 1.0}},
    }
    print_comparison(found, False)
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("arc  arc.jsonl:1  Is 0 right?")
    assert [line.split() for line in lines[at + 1 : at + 4]] == [
        ["answer", "yes"],
        ["old", "✗", "no"],
        ["new", "✓", "yes"],
    ]
    assert lines[-1] == "and 5 more"


def test_evaluations_of_other_items_are_compared_where_they_meet(
    three: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    found = compare(three, ["old", "new", "other"])
    figures = told(found, capsys)
    last = figures["tests"][-1]
    assert (last["evaluation"], last["figure"], last["items"], last["left_out"]) == ("other", "arc.acc", 4, 56)
    assert figures["shared_items"] == {"arc": 4} and figures["differing_items"] == 2
    notes = dict(found.notes)
    assert notes["arc of other"] == "tested on what both have; 56 are in one of the two only"
    assert notes["piqa"] == "a task of other only"
    assert figures["figures"]["bits_per_byte"] == {"other": 1.0}


def test_other_text_is_said_to_be_other(project: Project) -> None:
    make(project, "a", {"bits_per_byte": 1.0})
    make(project, "b", {"bits_per_byte": 1.1}, tokens="u")
    found = compare(project, ["a", "b"])
    assert ("bits_per_byte", "b has it of other data than a") in found.notes
    assert ("no test", "they share no items or documents on which a figure could be tested") in found.notes


@pytest.mark.parametrize("names", [["old"], [], ["old", "new", "old"]], ids=["one", "none", "twice"])
def test_two_evaluations_are_needed(three: Project, names: list[str]) -> None:
    with pytest.raises(SpecError, match="two or more different") as caught:
        compare(three, names)
    assert caught.value.hint == "there are: new, old, other"


def test_what_is_no_evaluation_is_refused(three: Project) -> None:
    with pytest.raises(ArtifactError, match=r"there is no evaluation .*evals/gone"):
        compare(three, ["old", "gone"])
    (three.root / "evals" / "new" / "report.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"new is damaged: report\.json"):
        compare(three, ["old", "new"])


def test_damaged_items_are_told(three: Project) -> None:
    (three.root / "evals" / "new" / "items.arrow").write_bytes(b"ARROW1\0\0" + bytes(50))
    with pytest.raises(ArtifactError, match=r"new is damaged: items\.arrow"):
        compare(three, ["old", "new"])


def test_an_evaluation_without_flat_figures_is_read_by_its_stats(project: Project) -> None:
    build = Build.open(project.root / "evals" / "a", kind="evaluation", spec={}, inputs=Inputs(), say=print)
    (build.directory / "report.json").write_text('{"model": "base", "loss": 2.5}')
    build.commit({"loss": 2.5, "chats_left_out": {"bad_row": 1}, "baselines": True}, {})
    found = read_evaluation(project.root / "evals" / "a")
    assert (found.name, found.model, found.figures, found.intervals) == ("a", "base", {"loss": 2.5}, {})


@pytest.mark.parametrize(
    ("figure", "expected"),
    [
        *((name, True) for name in ("arc.acc", "arc.acc_norm_bytes", "top5_accuracy", "x.macro_f1", "x.mcc", "x.chrf")),
        *((name, False) for name in ("chat_loss", "lambada.perplexity", "sliding.bits_per_byte", "ece", "x.invalid")),
        *((name, None) for name in ("tokens", "loss_of_words.items", "documents", "seq_len", "confidence")),
    ],
)
def test_which_way_is_better(figure: str, expected: bool | None) -> None:
    assert higher_is_better(figure) is expected
