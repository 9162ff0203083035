"""Generation: what is compared, by which metric, and what is refused."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest
from pydantic import ValidationError

from gptcli.errors import SpecError
from gptcli.scoring.judged import Judged, from_batch, to_batch
from gptcli.scoring.requests import Completion, CompletionAnswer
from gptcli.scoring.tasks.generation import Generation
from gptcli.scoring.tasks.task import Item
from gptcli.scoring.tasks.templates import Unposable


class Characters:
    def context(self, prompt: str) -> tuple[int, ...]:
        return tuple(map(ord, prompt))

    def pair(self, prompt: str, answer: str, delimiter: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return tuple(map(ord, prompt)), tuple(map(ord, delimiter + answer))


POSING = Characters()


def task_of(*metrics: str, **keys: Any) -> Generation:
    return Generation(**{"data": "x.jsonl", "prompt": "Q: {q}\nA:", "answer": "a", "metrics": list(metrics), **keys})


def pose(task: Generation, answer: Any, question: str = "?") -> Item:
    return task.item({"q": question, "a": answer}, "x.jsonl:1", POSING)


def judged(task: Generation, answer: Any, text: str, *, finished: bool = True, question: str = "?") -> Judged:
    return task.judge(pose(task, answer, question), [CompletionAnswer(text, 4, finished)])


def test_a_prompt_is_asked_to_be_gone_on_with() -> None:
    item = pose(task_of("exact_match", max_tokens=7, stop="\n"), "Paris", "Capital?")
    assert item.requests == (Completion(POSING.context("Q: Capital?\nA:"), 7, ("\n",)),)
    assert item.answer == "Paris" and item.where == "x.jsonl:1"


def test_a_single_metric_needs_no_list() -> None:
    assert Generation(data="x", prompt="p", answer="a", metrics="numeric").metrics == ["numeric"]


def test_exact_match_in_three_normal_forms() -> None:
    for form, right in {"plain": ["Paris", " paris."], "squad": ["The Paris!", "paris"], "none": ["Paris "]}.items():
        task = task_of("exact_match", normalize=form)
        assert [judged(task, "Paris", text).scores["exact_match"] for text in right] == [1.0] * len(right), form
    assert judged(task_of("exact_match"), "Paris", "Paris, France").scores["exact_match"] == 0.0


def test_the_best_of_several_answers_counts() -> None:
    task = task_of("exact_match", "token_f1", "numeric")
    found = judged(task, ["12", "twelve 12 eggs"], " 12 eggs ")
    assert found.scores == {"exact_match": 0.0, "token_f1": 0.8, "numeric": 1.0, "unfinished": 0.0}
    assert json.loads(found.answer) == ["12", "twelve 12 eggs"]


def test_squad_s_answers_are_found_in_their_objects() -> None:
    task = task_of("exact_match", answer="answers.text", prompt="{q}")
    for answers in ({"text": ["Paris", "Lyon"], "answer_start": [1, 2]}, [{"text": "Paris"}, {"text": "Lyon"}]):
        item = task.item({"q": "?", "answers": answers}, "f:1", POSING)
        assert json.loads(item.answer) == ["Paris", "Lyon"] and task.example(item) == ("?", "Paris")


def test_an_answer_that_reads_as_a_list_stays_one_text() -> None:
    task = task_of("exact_match", normalize="none")
    for answer in ('["a", "b"]', "[1, 2]", "[broken", '["a"]'):
        assert judged(task, answer, answer).scores["exact_match"] == 1.0, answer
    assert judged(task, '["a", "b"]', "a").scores["exact_match"] == 0.0


GSM8K = {"answer": "a", "extract": r"#### (-?[\d.,]+)", "extract_answer": r"#### (.*)"}


def test_gsm8k_by_what_stands_behind_the_hashes() -> None:
    task = task_of("numeric", "exact_match", **GSM8K)
    right = "She has 12 * 6 = <<12*6=72>>72.\n#### 1,072"
    item = pose(task, right)
    assert item.answer == "1,072" and task.example(item)[1] == right
    cases = {
        "So it is 9.\n#### 1072.00 apples 3": (1.0, 0.0, 0.0),
        "#### 1,072": (1.0, 1.0, 0.0),
        "1072": (0.0, 0.0, 1.0),
    }
    for text, (numeric, exact, unmatched) in cases.items():
        scores = judged(task, right, text).scores
        assert (scores["numeric"], scores["exact_match"], scores["unmatched"]) == (numeric, exact, unmatched), text


def test_numbers_first_last_and_within_a_tolerance() -> None:
    text = "First 3.14159, then 9."
    assert judged(task_of("numeric"), "9", text).scores["numeric"] == 1.0
    assert judged(task_of("numeric", number="first"), 3.14, text).scores["numeric"] == 0.0
    assert judged(task_of("numeric", number="first", tolerance=0.01), 3.14, text).scores["numeric"] == 1.0
    assert judged(task_of("numeric", tolerance=0.1), "0.3", "0.2").scores["numeric"] == 1.0  # exactly at the edge
    assert judged(task_of("numeric"), "9", "nine").scores["numeric"] == 0.0


def test_an_answer_may_be_a_regular_expression() -> None:
    task = task_of("regex")
    assert judged(task, r"(?i)\bparis\b", "It is PARIS.").scores["regex"] == 1.0
    assert judged(task, ["Lyon$", "^Paris"], "It is Paris").scores["regex"] == 0.0
    for broken in ("(", ""):
        with pytest.raises(Unposable, match="answer_is_no_regex"):
            pose(task, broken)


def test_texts_cut_short_are_counted() -> None:
    task = task_of("exact_match")
    rows = [judged(task, "a", "a"), judged(task, "a", "a", finished=False)]
    assert task.figures(rows) == {"exact_match": 1.0, "unfinished": 0.5}


def test_rouge_is_rouge_score_s() -> None:
    pytest.importorskip("rouge_score")
    found = judged(task_of("rouge"), ["the cat sat on the mat", "a dog"], "The cat sat.").scores
    # 3 words shared of 3 and 6; 2 pairs of 2 and 5; the longest common run of 3.
    assert found["rouge1"] == pytest.approx(2 / 3) and found["rougeL"] == pytest.approx(2 / 3)
    assert found["rouge2"] == pytest.approx(2 * 1.0 * 0.4 / 1.4)
    assert judged(task_of("rouge"), "кот сидит", "кот сидит").scores["rouge1"] == 0.0
    assert judged(task_of("rouge", rouge_words="unicode"), "Кот сидит", "кот сидит").scores["rouge1"] == 1.0
    assert judged(task_of("rouge", rouge_stemmer=True), "cats sitting", "cat sits").scores["rouge1"] == 1.0


def test_bleu_and_chrf_are_sacrebleu_s_over_all_texts() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    task = task_of("bleu", "chrf", "exact_match", name="mt")
    texts = ["the cat sat on the mat today", "hello there my friend", "nothing of the kind here"]
    answers = [["the cat sat on the mat", "a cat was on the mat"], "hello there my dear friend", "nothing like it here"]
    rows = [judged(task, a, f" {t}\n", question=t) for t, a in zip(texts, answers, strict=True)]
    figures = task.figures(from_batch(to_batch(rows)))
    padded = [[answers[0][0], answers[1], answers[2]], [answers[0][1], None, None]]
    assert figures["bleu"] == pytest.approx(sacrebleu.BLEU().corpus_score(texts, padded).score, abs=1e-12)
    assert figures["chrf"] == pytest.approx(sacrebleu.CHRF().corpus_score(texts, padded).score, abs=1e-12)
    assert 0 < figures["bleu"] < 100 and tuple(figures) == task.figure_names
    rules = dict(task.tables(rows)["metrics"]["rows"])
    assert (
        "tok:13a" in rules["bleu"]
        and "nrefs:var" in rules["chrf"]
        and f"version:{sacrebleu.__version__}" in rules["chrf"]
    )
    assert "plain" in rules["exact_match"]
    by_character = task_of("bleu", bleu_tokenize="char")
    assert by_character.figures(rows)["bleu"] != figures["bleu"]
    assert "tok:char" in by_character.tables(rows)["metrics"]["rows"][0][1]


def test_extraction_comes_before_corpus_figures_too() -> None:
    pytest.importorskip("sacrebleu")
    task = task_of("chrf", extract="<b>(.*)</b>")
    rows = [judged(task, "a whole sentence", "noise <b>a whole sentence</b>"), judged(task, "x", "no mark")]
    assert task.figures(rows[:1]) == {"chrf": 100.0, "unmatched": 0.0, "unfinished": 0.0}
    assert task.figures(rows)["unmatched"] == 0.5 and task.figures(rows)["chrf"] < 100.0


@pytest.mark.parametrize("metric", ["rouge", "bleu", "chrf"])
def test_a_missing_package_is_told_before_the_first_item(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str, *_: object) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", gone)
    with pytest.raises(SpecError, match=f"{metric} needs the package") as caught:
        task_of("exact_match", metric).prepared([])
    assert caught.value.hint == "pip install 'gptcli[metrics]'"
    assert task_of("exact_match").prepared([])


@pytest.mark.parametrize(
    ("answer", "keys", "reason"),
    [
        ([], {}, "no_answer:a"),
        (None, {}, "null_field:a"),
        ("none at all", {"metrics": ["numeric"]}, "answer_without_number"),
        ("72", {"extract_answer": "#### (.*)"}, "answer_without_match"),
    ],
    ids=["empty", "null", "no number", "no match"],
)
def test_rows_that_make_no_item(answer: Any, keys: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unposable, match=reason):
        pose(task_of("exact_match", **keys), answer)


@pytest.mark.parametrize(
    ("metrics", "keys", "what"),
    [
        (["exact_match", "exact_match"], {}, "twice"),
        (["numeric"], {"normalize": "squad"}, "normalize is given, and metrics has no exact_match"),
        (["exact_match"], {"tolerance": 0.1}, "no numeric"),
        (["exact_match"], {"bleu_tokenize": "zh"}, "no bleu"),
        (["rouge"], {"rouge_stemmer": True, "rouge_words": "unicode"}, "English"),
        (["exact_match"], {"stop": ["\n", ""]}, "empty text"),
    ],
    ids=["twice", "normalize", "tolerance", "bleu", "stems", "stop"],
)
def test_keys_that_do_not_agree(metrics: list[str], keys: dict[str, Any], what: str) -> None:
    with pytest.raises(SpecError, match=what):
        task_of(*metrics, **keys)


@pytest.mark.parametrize(
    "keys", [{"extract": "("}, {"metrics": []}, {"metrics": ["f1"]}, {"answer": "{a"}, {"prompt": ""}], ids=str
)
def test_values_that_are_none(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        task_of("exact_match", **keys)
