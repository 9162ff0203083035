"""The gates file of `checkpoint promote`: what to measure, and when that fails."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from gptcli.errors import GateError, SpecError
from gptcli.scoring.evaluations import Evaluation
from gptcli.scoring.gates import Gate, Outcome, judge, parse_gate, require_passed
from gptcli.spec import OneOrMore, Spec, resolve


class Conditions(Spec):
    """[gates]"""

    fail_if: OneOrMore = Field(min_length=1, description="conditions on figures under which nothing is promoted")


class GatesFile(Spec):
    """What a gates file says; the keys of [eval] are the evaluation's to check."""

    gates: Conditions = Field(description="when it fails")
    eval: dict[str, Any] = Field(default_factory=dict, description="keys of an evaluation: tasks, text, split, …")
    alias: str = Field(
        "production", min_length=1, description="the alias that moves; what it points at is the baseline"
    )
    model: str = Field("", description="the model that versions are made of; empty: the project's own")
    bump: Literal["major", "minor", "patch"] = Field("minor", description="what the next version is counted by")

    def conditions(self, with_baseline: bool) -> tuple[list[Gate], list[Gate]]:
        """The gates, and apart from them, where there is no baseline, those that compare with one."""
        gates = [parse_gate(text) for text in self.gates.fail_if]
        left_out = [gate for gate in gates if gate.relation and not with_baseline]
        return [gate for gate in gates if gate not in left_out], left_out


def read_gates(path: Path) -> GatesFile:
    """Raises SpecError naming file and key, or condition, for what is no gates file."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}", "--gate names a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not valid TOML: {error}", "mend that line") from error
    try:
        gates, _ = resolve(GatesFile, [(path.name, tables)])
    except SpecError as error:
        raise SpecError(error.message, _EXAMPLE) from error
    if "model" in gates.eval:
        raise SpecError(f"{path.name}: eval.model is what promote is called with", "take that key out")
    try:
        gates.conditions(with_baseline=True)
    except SpecError as error:
        raise SpecError(error.message.replace("--fail-if", f"{path.name}: gates.fail_if"), _EXAMPLE) from error
    return gates


def judged(
    gates: Sequence[Gate], measured: Evaluation, baseline: Evaluation | None, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Every gate's outcome, JSON-able and in words under `told`, said one by one.

    Raises GateError where one failed or cannot be judged.
    """
    outcomes = judge(gates, measured, baseline)
    for outcome in outcomes:
        say(f"gate {outcome.gate}: {_told(outcome)}")
    try:
        require_passed(outcomes)
    except GateError as error:
        raise GateError(error.message, f"nothing was promoted; the figures are in evals/{measured.name}") from error
    return [
        {
            "gate": str(outcome.gate),
            "verdict": outcome.verdict,
            "value": outcome.value,
            "baseline": outcome.baseline,
            "p_value": outcome.p_value,
            "told": _told(outcome),
        }
        for outcome in outcomes
    ]


def _told(outcome: Outcome) -> str:
    figures = f" ({outcome.value:.6g}" if outcome.value is not None else ""
    figures += f", before {outcome.baseline:.6g}" if figures and outcome.baseline is not None else ""
    return f"{outcome.verdict}{figures}{')' if figures else ''}{f': {outcome.reason}' if outcome.reason else ''}"


_EXAMPLE = """a gates file has lines such as: [gates] fail_if = ["bits_per_byte > 1.9"] and [eval] split = "test\""""
