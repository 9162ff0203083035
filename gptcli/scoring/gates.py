"""Gates on figures: `bits_per_byte > 1.9` fails when it is true, and so does `arc_easy.acc < baseline - 0.01`.

A gate is METRIC OP BOUND, OP one of > >= < <= == !=, BOUND a number, `baseline`, or `baseline` + - * a number: the same
figure of another evaluation. Ended with the word `significantly`, a gate on a baseline fails only where chance does not
explain it: where the figure lies beyond the bound and the paired test of the same items (scoring/significance.py),
Holm-corrected over all gates that say so, gives p < 0.05.

A gate passes, fails, or cannot be judged, and then says why. What cannot be judged is no pass.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from gptcli.errors import GateError, SpecError
from gptcli.scoring.evaluations import Evaluation

if TYPE_CHECKING:
    from gptcli.scoring.significance import Paired

Verdict = Literal["passed", "failed", "cannot be judged"]

BASELINE = "baseline"
SIGNIFICANTLY = "significantly"
LEVEL = 0.05
_NAMES_SHOWN = 20

_COMPARE = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_GATE = re.compile(
    r"\s*(?P<metric>\w[\w.:/@-]*)\s*(?P<sign>>=|<=|==|!=|>|<)\s*"
    rf"(?:(?P<baseline>{BASELINE})(?:\s*(?P<relation>[-+*])\s*(?P<by>[^\s*]+))?|(?P<number>\S+))"
    rf"(?P<significantly>\s+{SIGNIFICANTLY})?\s*"
)


@dataclass(frozen=True)
class Gate:
    """A condition on one figure under which the measurement counts as failed.

    The bound is `number`; with a `relation` it is the baseline's figure, more (+) or less (-) by `number` or times (*)
    it. `significantly`: only where the paired test says so too.
    """

    metric: str
    sign: str
    number: float
    relation: Literal["", "+", "-", "*"] = ""
    significantly: bool = False

    def __str__(self) -> str:
        bound = f"{self.number:g}"
        if self.relation:
            is_plain = self.number == 0 and self.relation != "*"
            bound = BASELINE if is_plain else f"{BASELINE} {self.relation} {bound}"
        return f"{self.metric} {self.sign} {bound}{f' {SIGNIFICANTLY}' if self.significantly else ''}"

    @property
    def line(self) -> tuple[float, float]:
        """The bound is the first of these times the baseline's figure, plus the second."""
        if self.relation == "*":
            return self.number, 0.0
        return float(bool(self.relation)), -self.number if self.relation == "-" else self.number

    def bound(self, baseline: float | None = None) -> float:
        """What the figure is held against; `baseline`: the figure there, for a gate that has a relation to it."""
        times, plus = self.line
        return times * baseline + plus if self.relation and baseline is not None else plus

    def fails(self, value: float, baseline: float | None = None) -> bool:
        """Whether the figure fails this gate, chance left aside; a figure that is no number always does."""
        return math.isnan(value) or bool(_COMPARE[self.sign](value, self.bound(baseline)))


@dataclass(frozen=True)
class Outcome:
    """What became of a gate.

    `value`, `baseline`: the figure, and the baseline's (None: there is none); where the same items tell: `p_value`
    (two-sided, that the figure differs from the bound; Holm-corrected for gates that say significantly),
    `smallest_effect` (the difference that this sample shows with 80 % power) and `items`, how many; `reason`: why it
    failed or cannot be judged, and what a pass does not say.
    """

    gate: Gate
    verdict: Verdict
    value: float | None = None
    baseline: float | None = None
    p_value: float | None = None
    smallest_effect: float | None = None
    items: int | None = None
    reason: str = ""


def parse_gate(text: str) -> Gate:
    """METRIC OP NUMBER, or METRIC OP baseline [+ - * NUMBER] [significantly]. SpecError when it is anything else."""
    match = _GATE.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        number = float(match["by"] or match["number"] or 0)
        if not math.isfinite(number):
            raise ValueError
    except ValueError:
        raise SpecError(
            f"--fail-if {text!r}: expected METRIC OP NUMBER or METRIC OP baseline",
            "for example --fail-if 'bits_per_byte > 1.9', or --baseline EVAL --fail-if 'arc.acc < baseline - 0.01'",
        ) from None
    relation: Literal["", "+", "-", "*"] = ""
    if match["baseline"]:
        relation = "-" if match["relation"] == "-" else "*" if match["relation"] == "*" else "+"
    gate = Gate(match["metric"], match["sign"], number, relation, bool(match["significantly"]))
    if gate.significantly and (not relation or gate.sign == "=="):
        raise SpecError(
            f"--fail-if {text!r}: {SIGNIFICANTLY} goes with a difference from a baseline",
            f"for example --fail-if '{gate.metric} < {BASELINE} {SIGNIFICANTLY}'",
        )
    return gate


def require_known(gates: Sequence[Gate], metrics: Collection[str]) -> None:
    """Raise SpecError for a gate on a figure that is none of `metrics`, naming those."""
    for gate in gates:
        if gate.metric not in metrics:
            near = difflib.get_close_matches(gate.metric, metrics, 1, 0.5)
            shown = difflib.get_close_matches(gate.metric, metrics, _NAMES_SHOWN, 0.0)
            more = f" and {len(metrics) - len(shown)} more" if len(metrics) > len(shown) else ""
            raise SpecError(
                f"--fail-if: there is no figure {gate.metric}" + (f"; did you mean {near[0]}?" if near else ""),
                f"figures: {', '.join(sorted(shown))}{more}",
            )


def require_baseline(gates: Sequence[Gate], baseline: str | None, name: str) -> None:
    """Raise SpecError for a gate on a baseline where none is named, or where it is the evaluation `name` itself,
    which would be compared with what took its place."""
    held = [gate for gate in gates if gate.relation]
    if held and not baseline:
        raise SpecError(f"--fail-if '{held[0]}': there is no baseline", "name an evaluation: --baseline EVAL")
    if held and baseline == name:
        raise SpecError(
            f"--baseline {baseline} is the evaluation being made", "give the new one a name of its own: --name NAME"
        )


def judge(gates: Sequence[Gate], measured: Evaluation, baseline: Evaluation | None = None) -> list[Outcome]:
    """The outcome of every gate, in their order; `baseline` is needed by gates that name it (SpecError without)."""
    require_baseline(gates, baseline.name if baseline else None, "")
    outcomes = [_judge(gate, measured, baseline) for gate in gates]
    tested = [number for number, outcome in enumerate(outcomes) if _is_tested(outcome)]
    if not tested:
        return outcomes
    from gptcli.scoring.significance import holm

    for number, p_value in zip(tested, holm([outcomes[number].p_value or 0.0 for number in tested]), strict=True):
        outcomes[number] = _weighed(replace(outcomes[number], p_value=p_value))
    return outcomes


def require_passed(outcomes: Sequence[Outcome]) -> None:
    """Raise GateError unless every gate passed: naming each that failed and each that cannot be judged."""
    failed = [outcome.reason for outcome in outcomes if outcome.verdict == "failed"]
    unjudged = [
        f"{outcome.gate} cannot be judged: {outcome.reason}"
        for outcome in outcomes
        if outcome.verdict == "cannot be judged"
    ]
    if failed or unjudged:
        hint = "the report stands; the gate was set with --fail-if"
        raise GateError(
            "; ".join([*failed, *unjudged]),
            hint if failed else "measure what the gate asks for, of a baseline on the same items, or drop the gate",
        )


def _judge(gate: Gate, measured: Evaluation, baseline: Evaluation | None) -> Outcome:
    """A gate's outcome; one that says significantly, and can be tested, as if every difference were significant."""
    value = measured.figures.get(gate.metric)
    if value is None:
        near = difflib.get_close_matches(gate.metric, measured.figures, 1, 0.5)
        measured_near = f" ({near[0]} was)" if near else ""
        return Outcome(gate, "cannot be judged", reason=f"{gate.metric} was not measured{measured_near}")
    if math.isnan(value):
        return Outcome(gate, "failed", value, reason=f"{gate.metric} is no number, which fails {gate}")
    if not gate.relation or baseline is None:
        return _verdict(gate, Outcome(gate, "passed", value))
    before = baseline.figures.get(gate.metric)
    outcome = Outcome(gate, "cannot be judged", value, before)
    if before is None or math.isnan(before):
        fault = "has no such figure" if before is None else "has it as no number"
        return replace(outcome, reason=f"the baseline {baseline.name} {fault}")
    if other := other_data(gate.metric, measured, baseline):
        return replace(outcome, reason=f"the baseline {baseline.name} was measured on {other}")
    paired = _paired(gate, measured, baseline)
    if paired is not None:
        outcome = replace(
            outcome,
            p_value=_or_none(paired.p_value),
            smallest_effect=_or_none(paired.smallest_effect),
            items=paired.items,
        )
    if gate.significantly and outcome.p_value is None:
        return replace(outcome, reason=f"{gate.metric} cannot be computed from the items it was measured on")
    return _verdict(gate, outcome)


def other_data(figure: str, first: Evaluation, second: Evaluation) -> str:
    """How the data differ on which two evaluations measured a figure, in words; empty where they are the same."""
    one, other = first.measured_on(figure), second.measured_on(figure)
    if one == other:
        return ""
    shared = len(set(one) & set(other))
    if first.task_of(figure) is None and not (first.documents and second.documents):
        return "other data"
    return f"other items: {shared:,} are the same, of {len(one):,} here and {len(other):,} there"


def _paired(gate: Gate, measured: Evaluation, baseline: Evaluation) -> Paired | None:
    """The paired test of the figure against its bound; None where the items do not give it."""
    from gptcli.scoring.pairing import pair_figures

    tested = pair_figures(baseline, measured, [gate.metric], gate.line)
    return tested[0].paired if tested else None


def _verdict(gate: Gate, outcome: Outcome) -> Outcome:
    value, before = outcome.value, outcome.baseline
    if value is None or not gate.fails(value, before):
        return replace(outcome, verdict="passed")
    than = f" (there it is {before:.6g}{_told(outcome)})" if before is not None else ""
    return replace(outcome, verdict="failed", reason=f"{gate.metric} is {value:.6g}, fails if {gate}{than}")


def _is_tested(outcome: Outcome) -> bool:
    return outcome.gate.significantly and outcome.p_value is not None


def _weighed(outcome: Outcome) -> Outcome:
    """The outcome of a gate that says significantly, its p-value corrected: a difference by chance passes."""
    if outcome.verdict == "failed" and outcome.p_value is not None and outcome.p_value < LEVEL:
        return _verdict(outcome.gate, outcome)
    if outcome.verdict == "failed":
        beyond = f"{outcome.gate.metric} is {outcome.value:.6g} against {outcome.baseline:.6g}, which may be chance"
        return replace(outcome, verdict="passed", reason=f"{beyond}{_told(outcome)}")
    return outcome


def _told(outcome: Outcome) -> str:
    """The test in words, after a figure; empty where there was none."""
    if outcome.p_value is None:
        return ""
    shows = f", whose smallest effect is {outcome.smallest_effect:.3g}" if outcome.smallest_effect is not None else ""
    return f"; p = {outcome.p_value:.2g} on {outcome.items:,} items{shows}"


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
