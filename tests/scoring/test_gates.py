from __future__ import annotations

import math

import pytest

from gptcli.errors import GateError, SpecError
from gptcli.scoring.gates import judge, parse_gate

FIGURES = {"bits_per_byte": 1.8, "loss": 2.5, "name": "base", "exact": True}


@pytest.mark.parametrize("text", ["bits_per_byte>1.9", " loss <= 2 ", "bits_per_byte == 2", "loss>2.5", "loss != 2.5"])
def test_a_gate_that_holds_says_nothing(text: str) -> None:
    judge([parse_gate(text)], FIGURES)


@pytest.mark.parametrize("text", ["bits_per_byte>1.7", "loss>=2.5", "loss<3", "loss==2.5", "bits_per_byte != 1"])
def test_a_gate_that_fails_names_the_figure(text: str) -> None:
    with pytest.raises(GateError, match=text.strip().split(">")[0].split("<")[0].split("=")[0].split("!")[0].strip()):
        judge([parse_gate(text)], FIGURES)


def test_all_failed_gates_are_named() -> None:
    with pytest.raises(GateError, match=r"bits_per_byte.*; loss"):
        judge([parse_gate("bits_per_byte>1"), parse_gate("loss>1"), parse_gate("loss>9")], FIGURES)


@pytest.mark.parametrize(
    "text", ["", "loss", "loss>", ">2", "loss>two", "loss=2", "loss>1>2", "loss>nan", "__import__('os')>1"]
)
def test_what_is_no_gate_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="--fail-if"):
        parse_gate(text)


def test_an_unknown_figure_is_refused_with_those_there_are() -> None:
    with pytest.raises(SpecError) as caught:
        judge([parse_gate("bits_per_bite>1")], FIGURES)
    assert "did you mean bits_per_byte" in caught.value.message
    assert caught.value.hint == "figures: bits_per_byte, loss"


def test_a_figure_that_is_no_number_fails() -> None:
    with pytest.raises(GateError):
        judge([parse_gate("loss>1")], {"loss": math.nan})
