"""Prompts and answers as ids: the likelihood rule, examples, chats."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from gptcli.scoring.tasks.few_shot import Example
from gptcli.scoring.tasks.posing import Manner, TokenPosing
from gptcli.scoring.tasks.task import Unposable
from gptcli.templates import encode_chat
from gptcli.tokenizer import Tokenizer

PLAIN = Manner(False, "", "\n\n", " ")
SHOWN = (Example("1", "Q: one\nA:", "uno"), Example("2", "Q: two\nA:", "dos"))


@pytest.fixture(scope="module")
def stories(data_dir: Path) -> Tokenizer:
    return Tokenizer.load(data_dir / "stories260K-hf")


@pytest.fixture(scope="module")
def peer(data_dir: Path) -> PreTrainedTokenizerBase:
    found = AutoTokenizer.from_pretrained(str(data_dir / "stories260K-hf"))
    assert isinstance(found, PreTrainedTokenizerBase)
    return found


def harness_rule(tokenizer: PreTrainedTokenizerBase, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """What lm-evaluation-harness 0.4 makes of a request, said again."""
    if not context:
        assert tokenizer.bos_token_id is not None
        return [tokenizer.bos_token_id], tokenizer.encode(continuation, add_special_tokens=False)
    bare = context.rstrip()
    before = tokenizer.encode(bare)
    return before, tokenizer.encode(context + continuation)[len(before) :]


@pytest.mark.parametrize(
    ("prompt", "answer", "delimiter"),
    [
        ("Question: why?\nAnswer:", "because", " "),
        ("Once upon a time ", "there was", ""),
        ("Once upon a time\n\t ", "there was", ""),
        ("", "Lily saw a dog.", " "),
        ("", "Lily saw a dog.", ""),
        ("Li", "ly was here", ""),
        ("😀 emoji", "é 日本", " "),
    ],
)
def test_ids_are_those_of_the_harness(
    stories: Tokenizer, peer: PreTrainedTokenizerBase, prompt: str, answer: str, delimiter: str
) -> None:
    context, continuation = TokenPosing(stories, PLAIN).pair(prompt, answer, delimiter)
    assert (list(context), list(continuation)) == harness_rule(peer, prompt, delimiter + answer)


@given(st.text(max_size=30), st.text(min_size=1, max_size=20), st.sampled_from(["", " ", "\n"]))
@settings(max_examples=150, deadline=None)
def test_any_text_has_a_context_and_no_markup(stories: Tokenizer, prompt: str, answer: str, delimiter: str) -> None:
    posing = TokenPosing(stories, PLAIN)
    try:
        context, continuation = posing.pair(prompt, answer, delimiter)
    except Unposable:
        assert len(stories.encode(prompt + delimiter + answer)) <= len(stories.encode(prompt))
        return
    assert context[0] == stories.bos_id and continuation
    assert not any(map(stories.is_control, (*context[1:], *continuation)))


def test_markup_in_a_text_is_text(stories: Tokenizer) -> None:
    context, continuation = TokenPosing(stories, PLAIN).pair("<s>Hi</s>", "</s>", " ")
    assert stories.decode(context) == "<s>Hi</s>" and stories.eos_id not in (*context, *continuation)
    assert stories.decode((*context, *continuation)) == "<s>Hi</s> </s>"


def test_without_bos_an_empty_context_is_eos(data_dir: Path) -> None:
    gpt2 = Tokenizer.load(data_dir / "ckpt-hf-tiny-gpt2")
    posing = TokenPosing(gpt2, PLAIN)
    assert gpt2.bos_id is None and posing.context("") == (gpt2.eos_id,)
    context, continuation = posing.pair("", " the", "")
    assert context == (gpt2.eos_id,) and continuation == tuple(gpt2.encode(" the"))
    assert posing.pair(" ", "the", "")[0] == (gpt2.eos_id,)  # white space goes to the continuation


def test_an_answer_that_a_merge_swallowed(stories: Tokenizer) -> None:
    """Some pair of texts has as many ids together as the first alone."""
    posing = TokenPosing(stories, PLAIN)
    swallowed = [
        (word[:cut], word[cut:])
        for word in ("there", "little", "upon", "mommy", "together", "friend", "happy", "said")
        for cut in range(1, len(word))
        if len(stories.encode(word)) <= len(stories.encode(word[:cut]))
    ]
    assert swallowed
    for begin, end in swallowed:
        context, continuation = posing.pair(begin, end, "")
        assert [*context[1:], *continuation] == stories.encode(begin + end) and continuation


@pytest.mark.parametrize("prompt", ["A prompt", ""])
def test_an_answer_of_no_token(stories: Tokenizer, prompt: str) -> None:
    with pytest.raises(Unposable, match="answer_without_tokens"):
        TokenPosing(stories, PLAIN).pair(prompt, "", "")


def test_examples_and_description_stand_before_the_prompt(stories: Tokenizer) -> None:
    posing = TokenPosing(stories, Manner(False, "Translate.\n", "\n\n", " ")).behind(SHOWN)
    text = "Translate.\nQ: one\nA: uno\n\nQ: two\nA: dos\n\nQ: six\nA:"
    assert list(posing.context("Q: six\nA:")) == [stories.bos_id, *stories.encode(text)]
    context, continuation = posing.pair("Q: six\nA:", "seis", " ")
    assert [*context, *continuation] == [stories.bos_id, *stories.encode(text + " seis")]
    assert posing.behind(SHOWN) is posing and posing.behind(()).context("Q") == (
        stories.bos_id,
        *stories.encode("Translate.\nQ"),
    )


def test_a_chat_has_turns_and_no_delimiter(stories: Tokenizer) -> None:
    posing = TokenPosing(stories, Manner(True, "Translate.", "\n\n", " ")).behind(SHOWN)
    said = [
        ("system", "Translate."),
        ("user", "Q: one\nA:"),
        ("assistant", "uno"),
        ("user", "Q: two\nA:"),
        ("assistant", "dos"),
        ("user", "Q: six\nA:"),
    ]
    ids, _ = encode_chat(stories, [{"role": role, "content": text} for role, text in said], True)
    assert list(posing.context("Q: six\nA:")) == ids
    assert posing.pair("Q: six\nA:", "seis", " ") == (tuple(ids), tuple(stories.encode("seis")))
    whole, loss = encode_chat(
        stories, [{"role": role, "content": text} for role, text in [*said, ("assistant", "seis")]]
    )
    assert whole[: len(ids)] == ids and whole[len(ids) :][:-1] == stories.encode("seis") and loss[len(ids)]
