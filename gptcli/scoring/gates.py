"""Gates on figures: `bits_per_byte>1.9` fails when it is true."""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gptcli.errors import GateError, SpecError

_COMPARE = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_GATE = re.compile(r"\s*([A-Za-z_][\w.]*)\s*(>=|<=|==|!=|>|<)\s*(\S+)\s*")


@dataclass(frozen=True)
class Gate:
    """A condition on one figure under which the measurement counts as failed."""

    metric: str
    sign: str
    bound: float

    def __str__(self) -> str:
        return f"{self.metric} {self.sign} {self.bound:g}"

    def fails(self, value: float) -> bool:
        """Whether the figure fails this gate; a figure that is no number always does."""
        return math.isnan(value) or bool(_COMPARE[self.sign](value, self.bound))


def parse_gate(text: str) -> Gate:
    """`METRIC OP NUMBER`, OP one of > >= < <= == !=. Raises SpecError when it is anything else."""
    match = _GATE.fullmatch(text)
    try:
        if match is None or not math.isfinite(bound := float(match[3])):
            raise ValueError
    except ValueError:
        raise SpecError(
            f"--fail-if {text!r}: expected METRIC OP NUMBER", "for example --fail-if 'bits_per_byte>1.9'"
        ) from None
    return Gate(match[1], match[2], bound)


def require_known(gates: Sequence[Gate], metrics: Collection[str]) -> None:
    """Raise SpecError for a gate on a figure that is none of `metrics`, naming those."""
    for gate in gates:
        if gate.metric not in metrics:
            near = difflib.get_close_matches(gate.metric, metrics, 1, 0.5)
            raise SpecError(
                f"--fail-if: there is no figure {gate.metric}" + (f"; did you mean {near[0]}?" if near else ""),
                f"figures: {', '.join(sorted(metrics))}",
            )


def judge(gates: Sequence[Gate], figures: Mapping[str, Any]) -> None:
    """Hold figures against gates.

    Raises SpecError when a gate names a figure that was not measured (naming those that were), GateError with every
    gate that failed.
    """
    numbers = {name: float(value) for name, value in figures.items() if _is_number(value)}
    require_known(gates, numbers)
    failed = [gate for gate in gates if gate.fails(numbers[gate.metric])]
    if failed:
        shown = (f"{gate.metric} is {numbers[gate.metric]:.6g}, fails if {gate}" for gate in failed)
        raise GateError("; ".join(shown), "the report stands; the gate was set with --fail-if")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
