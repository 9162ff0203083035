"""gptcli checkpoint promote: what passes its gates becomes a version, and the alias moves to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gptcli.artifacts.aliases import replay, standing_versions
from gptcli.artifacts.locations import resolve_model
from gptcli.artifacts.manifest import manifest_of, read_manifest
from gptcli.artifacts.project import Project
from gptcli.artifacts.versions import next_version, require_bump, require_name, require_version, version_order
from gptcli.checkpoint.changing import changing, new_line, require_alias
from gptcli.checkpoint.evaluating import evaluate
from gptcli.checkpoint.promotion_gates import GatesFile, judged, read_gates
from gptcli.checkpoint.tag import Candidate, make_version, origin_of, standing, version_line, version_report
from gptcli.console import Report
from gptcli.errors import ArtifactError, SpecError
from gptcli.runtime.stop import Stop
from gptcli.scoring.evaluations import Evaluation

VERB = "promote"


@dataclass(frozen=True)
class Wish:
    """What to promote, as typed; None where it was not said."""

    run: str
    gate: str
    version: str | None = None
    bump: str | None = None
    model: str | None = None
    alias: str | None = None
    message: str | None = None
    device: str = "auto"


@dataclass(frozen=True)
class _Plan:
    """A wish with its gates read: `bump` only where it was asked for on the command line."""

    candidate: Candidate
    gates: GatesFile
    model: str
    alias: str
    version: str | None
    bump: str | None


def promote(project: Project, wish: Wish, say: Callable[[str], None]) -> Report:
    """Evaluate a run's checkpoint as `wish.gate` says, and what the alias points at, where a gate compares with that;
    if every gate passes make a version of the checkpoint and let the alias point at it, both in one moment.

    A version that stands of this very checkpoint is taken, unless another or a bump is asked for. Where the alias
    points at it already nothing changes, and the gates are judged all the same. Gates that compare are left out as long
    as the alias points at nothing.
    Raises GateError when a gate fails or cannot be judged, SpecError for a gates file that is none, ArtifactError when
    the alias was moved by somebody else meanwhile, StoppedError on a signal, and what the evaluation ended with:
    nothing has changed then.
    """
    plan = _plan(project, wish)
    before = _pointed_at(project, plan)
    if plan.version is not None:  # one that stands with another content is told before the work
        standing(project, project.place("models", plan.model) / plan.version, plan.candidate, with_trainer=None)
    gates, left_out = plan.gates.conditions(with_baseline=before is not None)
    for gate in left_out:
        say(f"{gate}: left out, for {plan.model}:{plan.alias} points at nothing yet")
    stop = Stop()
    stop.install()
    with stop.at_once():  # what was measured is kept with the evaluation, and nothing else has begun
        measured = _measure(project, plan, _checkpoint_ref(project, plan.candidate), wish.device, say)
        baseline = None
        if before is not None and any(gate.relation for gate in gates):
            is_same = _is_of_candidate(project, plan, before)  # one model is measured once
            baseline = measured if is_same else _measure(project, plan, f"{plan.model}:{before}", wish.device, say)
    outcomes = judged(gates, measured, baseline, say)
    cited = {each.name: each for each in (measured, baseline) if each is not None}
    told = {
        "evaluations": [_cited(project, each) for each in cited.values()],
        "gates": [str(gate) for gate in gates],
    }
    report = _commit(project, plan, before, wish.message, told)
    rows = [*report.table, *((f"gate {row['gate']}", str(row["told"])) for row in outcomes)]
    return Report(report.title, report.path, {**report.figures, **told, "outcomes": outcomes}, rows)


def _plan(project: Project, wish: Wish) -> _Plan:
    gates = read_gates(project.path(wish.gate))
    model, alias = wish.model or gates.model or project.name, wish.alias or gates.alias
    require_name(model, "a model (--as)")
    require_alias(alias)
    if wish.version is not None and wish.bump is not None:
        raise SpecError(f"version {wish.version} and --bump {wish.bump} were both given", "leave one of them out")
    if wish.version is not None:
        require_version(wish.version)
    if wish.bump is not None:
        require_bump(wish.bump)
    return _Plan(Candidate.open(project, wish.run), gates, model, alias, wish.version, wish.bump)


def _pointed_at(project: Project, plan: _Plan) -> str | None:
    """What the alias points at; the model's lock is held for a moment, so that what a crash left is ended first."""
    if not project.place("models", plan.model).is_dir():
        return None
    with changing(project, plan.model) as registered:
        return replay(registered.entries).get(plan.alias)


def _is_of_candidate(project: Project, plan: _Plan, version: str) -> bool:
    """Whether a version was made of the very checkpoint that is to be promoted."""
    manifest = manifest_of(project.place("models", plan.model) / version)
    return manifest is not None and origin_of(manifest) == {plan.candidate.manifest.content_sha256}


def _checkpoint_ref(project: Project, candidate: Candidate) -> str:
    """The very checkpoint by a name that means no other when the run goes on."""
    directory = candidate.directory
    if directory.parent.name == "checkpoints" and directory.parents[2].resolve() == (project.root / "runs").resolve():
        return f"{directory.parents[1].name}@{int(directory.name.removeprefix('step-'))}"
    return f"./{project.relative(directory)}"


def _measure(project: Project, plan: _Plan, ref: str, device: str, say: Callable[[str], None]) -> Evaluation:
    """Evaluate one model, unless its evaluation stands; ArtifactError where it became another on the way."""
    origin = manifest_of(resolve_model(project, ref).directory)
    measured = evaluate(project, ref, plan.gates.eval, device, say)
    models = {entry.content_sha256 for entry in measured.inputs if entry.role == "model"}
    if origin is None or origin.content_sha256 not in models:
        raise ArtifactError(f"{ref} changed while it was evaluated", "run the same command again")
    return measured


def _cited(project: Project, measured: Evaluation) -> dict[str, str]:
    """What the log says of an evaluation."""
    place = project.place("evals", measured.name)
    return {"path": project.relative(place), "content_sha256": read_manifest(place).content_sha256}


def _commit(project: Project, plan: _Plan, before: str | None, message: str | None, told: dict[str, Any]) -> Report:
    """Make the version and move the alias, as far as that is still to be done."""
    with changing(project, plan.model) as registered:
        pointed = replay(registered.entries).get(plan.alias)
        if pointed != before:
            raise ArtifactError(
                f"{plan.model}:{plan.alias} was moved from {before or 'nothing'} to {pointed or 'nothing'} meanwhile",
                "run the same command again",
            )
        is_done = before is not None and plan.bump is None and _is_of_candidate(project, plan, before)
        version = plan.version or (None if plan.bump else before if is_done else _tagged(project, plan))
        version = version or next_version(standing_versions(registered.folder), plan.bump or plan.gates.bump)
        manifest = standing(project, registered.folder / version, plan.candidate, with_trainer=None)
        if manifest is None:
            line = version_line(registered, VERB, version, plan.alias, message, **told)
            manifest = make_version(project, registered, version, plan.candidate, False, line)
        elif pointed != version:
            registered.append(new_line(VERB, message, alias=plan.alias, **{"from": pointed, "to": version}, **told))
        aliases = registered.aliases
    title = f"{plan.model}:{plan.alias} is {plan.model}:{version}" + (f", was {before}" if before else "")
    if pointed == version:
        title = f"{plan.model}:{plan.alias} is {plan.model}:{version} already: nothing to do"
    return version_report(project, title, plan.model, version, plan.candidate, manifest, aliases)


def _tagged(project: Project, plan: _Plan) -> str | None:
    """The highest version that stands of this very checkpoint."""
    folder, content = project.place("models", plan.model), {plan.candidate.manifest.content_sha256}
    found = []
    for version in standing_versions(folder):
        manifest = manifest_of(folder / version)
        if manifest is not None and origin_of(manifest) == content:
            found.append(version)
    return max(found, key=version_order, default=None)
