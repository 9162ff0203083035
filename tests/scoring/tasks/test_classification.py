"""Classification: which label is read from likelihoods or from words, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from gptcli.errors import SpecError
from gptcli.scoring.judged import Judged, from_batch, to_batch
from gptcli.scoring.requests import Completion, CompletionAnswer, Likelihood, LikelihoodAnswer
from gptcli.scoring.tasks.classification import Classification
from gptcli.scoring.tasks.task import Item
from gptcli.scoring.tasks.templates import Unposable


class Characters:
    """Poses each character as its code point, so that a test reads requests as text."""

    def context(self, prompt: str) -> tuple[int, ...]:
        return tuple(map(ord, prompt))

    def pair(self, prompt: str, answer: str, delimiter: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return tuple(map(ord, prompt)), tuple(map(ord, delimiter + answer))


POSING = Characters()
SPAM: dict[str, Any] = {
    "data": "sms.tsv",
    "prompt": "Message: {text}\nKind:",
    "labels": {"ham": "harmless", "spam": "spam"},
}


def spam(**keys: Any) -> Classification:
    return Classification(**{**SPAM, **keys})


def pose(task: Classification, text: str = "Hi", label: Any = "ham") -> Item:
    return task.item({"text": text, "label": label}, "sms.tsv:1", POSING)


def liked(*logprobs: float) -> list[LikelihoodAnswer]:
    return [LikelihoodAnswer(logprob, False, 1 + number) for number, logprob in enumerate(logprobs)]


def text_of(ids: Sequence[int]) -> str:
    return "".join(map(chr, ids))


def test_every_label_is_asked_after_the_same_prompt() -> None:
    item = pose(spam())
    asked = [request for request in item.requests if isinstance(request, Likelihood)]
    assert [text_of(each.context) for each in asked] == ["Message: Hi\nKind:"] * 2
    assert [text_of(each.continuation) for each in asked] == [" harmless", " spam"]
    assert spam().example(item) == ("Message: Hi\nKind:", "harmless")


def test_an_item_is_known_by_its_text_label_and_words() -> None:
    assert pose(spam()).id == pose(spam(prior="content_free", norm="bytes")).id
    others = [pose(spam(), text="Ho"), pose(spam(), label="spam"), pose(spam(labels=["ham", "spam"]))]
    assert len({pose(spam()).id, *(other.id for other in others)}) == 4


def test_the_likeliest_label_wins_and_the_first_of_equals() -> None:
    task, item = spam(), pose(spam())
    assert task.judge(item, liked(-3.0, -2.0)).prediction == "spam"
    assert task.judge(item, liked(-2.0, -2.0)).prediction == "ham"
    broken = task.judge(item, liked(-2.0, math.nan))
    assert broken.scores == {"acc": 0.0, "invalid": 1.0} and broken.prediction == ""


def test_norms_divide_by_the_words_alone() -> None:
    item = pose(spam())  # harmless: 8 bytes; spam: 4. Tokens by `liked`: 1 and 2.
    answers = liked(-4.0, -3.0)
    assert spam().judge(item, answers).prediction == "spam"
    assert spam(norm="bytes").judge(item, answers).prediction == "ham"  # -0.5 a byte against -0.75
    assert spam(norm="tokens").judge(item, answers).prediction == "spam"  # -4 a token against -1.5
    assert spam(norm="bytes").judge(item, answers).logprobs == (-4.0, -3.0)


def test_bytes_are_those_of_utf8() -> None:
    task = spam(labels={"ham": "ååå", "spam": "spam!"}, norm="bytes")
    assert task.judge(pose(task), liked(-5.0, -4.5)).prediction == "ham"  # 6 bytes: -0.833 against -0.9


def test_content_free_prompts_keep_all_but_the_fields() -> None:
    task = spam(prior="content_free", content_free=["N/A", ""])
    asked = [request for request in pose(task).requests if isinstance(request, Likelihood)]
    contexts = [text_of(each.context) for each in asked]
    assert contexts[::2] == ["Message: Hi\nKind:", "Message: N/A\nKind:", "Message: \nKind:"]
    assert contexts[1::2] == contexts[::2]


def test_the_prior_is_the_paper_s_diagonal_matrix() -> None:
    """Zhao et al. 2021, section 5: q = softmax(diag(p_cf)^-1 p); p_cf sums to 1 and is averaged over the texts."""
    task = spam(prior="content_free", content_free=["N/A", ""])
    own, blanks = [0.6, 0.3], [[0.3, 0.1], [0.05, 0.05]]
    shares = [[value / sum(blank) for value in blank] for blank in blanks]
    before = [(a + b) / 2 for a, b in zip(*shares, strict=True)]
    logs = [math.log(value) for row in (own, *blanks) for value in row]
    found = task.judge(pose(task), liked(*logs)).logprobs
    wanted = [math.log(p / b) for p, b in zip(own, before, strict=True)]
    assert found == pytest.approx(wanted, abs=1e-12)
    assert task.judge(pose(task), liked(*logs)).prediction == "ham"
    biased = spam(prior="content_free")
    swayed = liked(math.log(0.6), math.log(0.3), math.log(0.9), math.log(0.1))
    assert spam().judge(pose(spam()), swayed[:2]).prediction == "ham"
    assert biased.judge(pose(biased), swayed).prediction == "spam"


def test_a_prior_far_below_what_floats_hold_is_still_subtracted() -> None:
    task = spam(prior="content_free")
    found = task.judge(pose(task), liked(-900.0, -1000.0, -2000.0, -2200.0)).logprobs
    assert found == pytest.approx((-900.0, -800.0))


WRITTEN = {
    "ham": "ham",
    " Spam.": "spam",
    '"spam" because it sells': "spam",
    "spam, surely": "spam",
    "not spam": "not spam",
    "not spam at all": "not spam",
    "Not  Spam!": "not spam",
    "spammer": None,
    "hamlet": None,
    "ham_and_eggs": None,
    "I think spam": None,
    "": None,
    "ham spam": "ham",
}


@pytest.mark.parametrize("text", WRITTEN, ids=repr)
def test_what_is_written_is_a_label_or_invalid(text: str) -> None:
    task = spam(labels=["ham", "spam", "not spam", "not"], method="generation")
    found = task.judge(pose(task), [CompletionAnswer(text, 3, True, cut=2)])
    assert found.scores["invalid"] == (WRITTEN[text] is None)
    assert found.prediction == (text.strip() if WRITTEN[text] is None else WRITTEN[text])
    assert found.cut == 2 and found.logprobs == ()


def test_a_label_s_name_is_no_answer_where_it_has_other_words() -> None:
    task = spam(labels={"0": "bad", "1": "good"}, method="generation")
    written = [task.judge(pose(task, label="1"), [CompletionAnswer(text, 1, True)]) for text in ("1", "Good", "bad")]
    figures = task.figures(written)
    assert [row.prediction for row in written] == ["1", "1", "0"]
    assert figures["acc"] == pytest.approx(1 / 3) and figures["invalid"] == pytest.approx(1 / 3)
    assert task.tables(written)["confusion"]["rows"] == [["0", 0, 0, 0], ["1", 1, 1, 1]]


def test_numbers_in_a_task_s_file_are_labels_as_rows_have_them() -> None:
    assert spam(labels=[0, 1.5, True]).labels == ["0", "1.5", "true"]
    assert spam(labels={"0": 1, "1": "one"}).labels == {"0": "1", "1": "one"}
    assert pose(spam(labels=[0, 1]), label=1).answer == pose(spam(labels=[0, 1]), label=1.0).answer == "1"


def test_generation_asks_for_a_text() -> None:
    task = spam(method="generation", max_tokens=5, stop=["\n", "."])
    assert pose(task).requests == (Completion(POSING.context("Message: Hi\nKind:"), 5, ("\n", ".")),)


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (["spam", "ham", "spam"], ["ham", "spam"]),
        ([10, 9, 9, 2], ["2", "9", "10"]),
        (["10", "9b", "2"], ["10", "2", "9b"]),
        ([True, False], ["false", "true"]),
        (["-1", "1", "0"], ["-1", "0", "1"]),
        (["a", None, "b"], ["a", "b"]),
        ([1.0, None, 0.0], ["0", "1"]),
    ],
    ids=str,
)
def test_labels_of_the_data(labels: list[Any], wanted: list[str]) -> None:
    task = spam(labels="auto").prepared({"text": "x", "label": label} for label in labels)
    assert task.labels == wanted and task.prepared([]) is task
    assert pose(task, label=wanted[0]).answer == wanted[0]


def test_figures_come_from_rows_alone() -> None:
    """Rows as items.arrow keeps them, and a task that never saw the data, give the same figures."""
    task = spam(labels="auto", name="sms").prepared({"label": label} for label in ("ham", "spam"))
    logprobs = [(-1.0, -2.0), (-2.0, -1.0), (-1.0, -3.0)]
    judged = [
        task.judge(pose(task, text=str(number), label=label), liked(*logprobs[number]))
        for number, label in enumerate(("ham", "spam", "spam"))
    ]
    read = from_batch(to_batch(judged))
    assert read == judged and task.figures(read) == spam(labels="auto").figures(judged)
    figures = task.figures(read)
    assert tuple(figures) == task.figure_names and task.figure_names[0] == "acc"
    assert figures["acc"] == pytest.approx(2 / 3) and figures["macro_f1"] == pytest.approx(2 / 3)
    tables = task.tables(read)
    assert set(tables) == {"classes", "confusion", "zero_division", "method"}
    assert task.figures([]) == {} and task.tables([]) == {}


def test_a_class_that_nobody_has_counts_in_the_macro_average() -> None:
    rows = [Judged("sms", "id", "f:1", "p", "ham", "ham", {"acc": 1.0, "invalid": 0.0})]
    assert spam().figures(rows)["macro_f1"] == 0.5
    assert spam(zero_division=1).figures(rows)["macro_f1"] == 1.0
    assert "spam" in spam().tables(rows)["zero_division"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "Hi", "label": "eggs"}, "label_not_in_labels"),
        ({"text": "Hi"}, "no_field:label"),
        ({"label": "ham"}, "no_field:text"),
        ({"text": "Hi", "label": None}, "null_field:label"),
    ],
    ids=["foreign", "no label", "no text", "null"],
)
def test_rows_that_make_no_item(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unposable, match=reason):
        spam().item(row, "f:1", POSING)


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"max_tokens": 3}, "max_tokens is given"),
        ({"stop": "."}, "stop is given"),
        ({"method": "generation", "norm": "bytes"}, "norm is given"),
        ({"method": "generation", "prior": "content_free"}, "prior is given"),
        ({"content_free": "N/A"}, "content_free is given"),
        ({"method": "generation", "stop": [""]}, "empty text"),
        ({"labels": ["ham"]}, "fewer than two"),
        ({"labels": ["ham", "ham"]}, "one twice"),
        ({"labels": {"0": "ham", "1": "ham"}}, "the same words, 'ham'"),
        ({"labels": {"0": "Ham", "1": "ham."}, "method": "generation"}, "the same words"),
        ({"labels": {"0": "ham", "1": " "}}, "no words"),
    ],
    ids=lambda given: "" if isinstance(given, dict) else given,
)
def test_keys_that_do_not_agree(keys: dict[str, Any], what: str) -> None:
    with pytest.raises(SpecError, match=what) as caught:
        spam(**keys)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("rows", "what"),
    [([{"label": "ham"}], "nothing but 'ham'"), ([{"tag": "ham"}], "no label")],
    ids=["one", "none"],
)
def test_data_without_two_labels(rows: list[dict[str, Any]], what: str) -> None:
    with pytest.raises(SpecError, match=what):
        spam(labels="auto").prepared(rows)
