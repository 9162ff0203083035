"""The gates of --fail-if: checked before anything is measured, judged on the report that stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gptcli.artifacts.project import Project
from gptcli.console import tell
from gptcli.errors import SpecError
from gptcli.eval.spec import FOLDER, EvalSpec, figures_of
from gptcli.scoring.evaluations import Evaluation, read_evaluation
from gptcli.scoring.gates import (
    Gate,
    Outcome,
    judge,
    parse_gate,
    require_baseline,
    require_known,
    require_passed,
)


@dataclass(frozen=True)
class Gating:
    """Gates, the evaluation they are held against, and where JUnit XML goes (None: nowhere)."""

    gates: Sequence[Gate]
    baseline: Evaluation | None
    junit: str | None

    @staticmethod
    def open(texts: Sequence[str], baseline: str | None, junit: str | None, project: Project, name: str) -> Gating:
        """The gates as typed, for the evaluation `name`. SpecError for what is no gate or lacks its baseline,
        ArtifactError where the baseline isn't there."""
        gates = [parse_gate(text) for text in texts]
        require_baseline(gates, baseline, name)
        if baseline and not any(gate.relation for gate in gates):
            raise SpecError(
                f"--baseline {baseline}: no gate names the baseline", "--fail-if 'METRIC < baseline', or leave it out"
            )
        return Gating(gates, read_evaluation(project.place(FOLDER, baseline)) if baseline else None, junit)

    def require_known(self, spec: EvalSpec, project: Project) -> None:
        """SpecError for a gate on a figure that an evaluation by this spec never has; what the harness will give is
        not known before."""
        if not self.gates:
            return
        known = figures_of(spec)
        if spec.tasks:
            from gptcli.eval.task_files import open_tasks  # Arrow comes with it

            for task in (named.task for named in open_tasks(spec.tasks, project)):
                groups = ("", "_clean", "_dirty") if spec.contamination else ("",)
                known += [f"{task.name}.{name}{group}" for name in task.figure_names for group in groups]
                known.append(f"{task.name}.items")
        of_harness = [gate for gate in self.gates if spec.harness and "." in gate.metric]
        require_known([gate for gate in self.gates if gate not in of_harness], known)

    def hold(self, project: Project, name: str) -> None:
        """Judge evals/NAME, tell every outcome on stderr, write JUnit XML. GateError unless all passed."""
        measured = read_evaluation(project.place(FOLDER, name))
        outcomes = judge(self.gates, measured, self.baseline)
        for outcome in outcomes:
            tell(_line(outcome))
        if self.junit:
            from gptcli.eval.junit import write_junit

            write_junit(project.path(self.junit), measured, outcomes)
        require_passed(outcomes)


def _line(outcome: Outcome) -> str:
    value = "" if outcome.value is None else f" ({outcome.value:.6g})"
    reason = f": {outcome.reason}" if outcome.reason else ""
    return f"gate {outcome.gate}: {outcome.verdict}{value}{reason}"
