"""Outcomes of gates as JUnit XML, which CI systems show: a suite an evaluation, a case a gate.

A gate that failed is a `failure`, one that cannot be judged an `error`; the figures are the suite's properties. The
elements and attributes are those that both Ant's schema (every one of its required ones) and Jenkins's allow. The same
evaluation and outcomes give the same bytes.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from gptcli.artifacts.durable import write_bytes
from gptcli.scoring.evaluations import Evaluation
from gptcli.scoring.gates import Outcome

# What XML 1.0 has no way to write, not even as a reference (its production 2, Char).
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_UNDATED = "1970-01-01T00:00:00"
_ELEMENTS = {"failed": "failure", "cannot be judged": "error"}


def write_junit(path: Path, evaluation: Evaluation, outcomes: Sequence[Outcome]) -> None:
    """Write the outcomes to `path`, whole or not at all. ResourceError where the disk does not let it."""
    write_bytes(path, junit_xml(evaluation, outcomes))


def junit_xml(evaluation: Evaluation, outcomes: Sequence[Outcome]) -> bytes:
    """The document, UTF-8. Characters that XML forbids are written as Python escapes them."""
    verdicts = [outcome.verdict for outcome in outcomes]
    root = ET.Element("testsuites")
    suite = ET.SubElement(
        root,
        "testsuite",
        {
            "name": _line(evaluation.name),
            "package": "gptcli.eval",
            "id": "0",
            "timestamp": str(evaluation.records.get("created", _UNDATED))[:19],
            "hostname": "localhost",  # as the schema has it where the host is not told: the same bytes on every one
            "tests": str(len(outcomes)),
            "failures": str(verdicts.count("failed")),
            "errors": str(verdicts.count("cannot be judged")),
            "skipped": "0",
            "time": f"{float(evaluation.records.get('seconds', 0)):.3f}",
        },
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in [("model", evaluation.model), *((name, f"{v:.17g}") for name, v in evaluation.figures.items())]:
        ET.SubElement(properties, "property", {"name": _line(name), "value": _text(value)})
    for outcome in outcomes:
        _add_case(suite, evaluation, outcome)
    ET.SubElement(suite, "system-out").text = _text("\n".join(map(_told, outcomes)))
    ET.SubElement(suite, "system-err")
    ET.indent(root)
    written: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return written


def _add_case(suite: ET.Element, evaluation: Evaluation, outcome: Outcome) -> None:
    where = f"gptcli.eval.{evaluation.name}"
    case = ET.SubElement(
        suite, "testcase", {"name": _line(f"fail if {outcome.gate}"), "classname": _line(where), "time": "0"}
    )
    if outcome.verdict in _ELEMENTS:
        found = {"message": _text(outcome.reason), "type": outcome.verdict}
        ET.SubElement(case, _ELEMENTS[outcome.verdict], found).text = _text(_told(outcome))


def _told(outcome: Outcome) -> str:
    """An outcome with all that is known of it, on one line."""
    known = {
        "value": outcome.value,
        "baseline": outcome.baseline,
        "p_value": outcome.p_value,
        "smallest_effect": outcome.smallest_effect,
        "items": outcome.items,
    }
    figures = " ".join(f"{name}={value!r}" for name, value in known.items() if value is not None)
    reason = f" ({outcome.reason})" if outcome.reason else ""
    return f"{outcome.verdict}: {outcome.gate} {figures}{reason}"


def _line(text: str) -> str:
    """Text as an xs:token: no line breaks, one space at a time, not empty."""
    return " ".join(_text(text).split()) or "-"


def _text(text: str) -> str:
    return _FORBIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)
