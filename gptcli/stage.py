"""The road every stage takes: resolve, compare with what stands, lock, run, report.

A stage's spec.py defines STAGE, KIND, FOLDER, DEFAULT_NAME, SPEC, TRAINED, inputs(), disk_needed() and summary();
its run.py defines run(spec, job) -> Manifest and is imported only when there is work. A stage may also have a
forecast.py with forecast(spec, project) -> [(label, value)], which a dry run shows.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import json
import shutil
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from gptcli.artifacts.build import SPEC, cache_path, partial_path, repair, touch
from gptcli.artifacts.durable import PENDING
from gptcli.artifacts.locations import step_directories
from gptcli.artifacts.manifest import FORMAT_VERSIONS, Input, Inputs, Manifest, manifest_of
from gptcli.artifacts.project import Project
from gptcli.console import Report, human_bytes, print_json, print_report, print_rows
from gptcli.errors import ArtifactError, ResourceError
from gptcli.job import Job
from gptcli.options import OnDevice, Shared
from gptcli.progress import Progress, Silent
from gptcli.runtime.device import require_device_name
from gptcli.runtime.stop import Stop
from gptcli.spec import Layer, Spec, nest, parse_setting, resolve


class StageSpec(Protocol):
    """What a stage's spec.py holds."""

    STAGE: str  # the command and the recipe's table
    KIND: str  # the manifest's kind
    FOLDER: str  # the project's folder
    DEFAULT_NAME: str
    SPEC: type[Spec]
    TRAINED: bool  # a run that took training is never deleted

    def inputs(self, spec: Any, project: Project, previous: Manifest | None) -> Inputs: ...
    def disk_needed(self, spec: Any, project: Project, inputs: Inputs) -> int: ...
    def summary(self, stats: dict[str, Any]) -> list[tuple[str, str]]: ...


@dataclass(frozen=True)
class Standing:
    """What stands at a stage's place: the spec and inputs it was made from, and whether it is finished."""

    manifest: Manifest | None = None
    spec: dict[str, Any] | None = None
    inputs: tuple[Input, ...] = ()


def execute(
    stage: str,
    shared: Shared,
    words: dict[str, Any],
    name: str | None = None,
    defaults: dict[str, Any] | None = None,
    check: Callable[[Any, Project], None] | None = None,
) -> Report | None:
    """Run a stage as its command line asks; prints and returns its report (None for a dry run).

    `words`: the spec's keys that arguments and flags set (dotted keys allowed, None left out); `defaults`: values
    that stand below the recipe's; `check`: may refuse the spec. Raises GptcliError of every kind.
    """
    if isinstance(shared, OnDevice):
        require_device_name(shared.device)
    module: Any = importlib.import_module(f"gptcli.{stage.replace('-', '_')}.spec")
    project = Project.open(shared.project, shared.recipe)
    project.require_sound_recipe()
    name = name or shared.name or module.DEFAULT_NAME
    place = project.place(module.FOLDER, name)
    spec, origins = resolve(module.SPEC, spec_layers(module, project, name, shared, words, defaults or {}))
    if check is not None:
        check(spec, project)
    progress = Silent() if shared.quiet else Progress()
    if shared.verbose and not shared.dry_run:
        for key, value in _flat(spec):
            progress.say(f"  {key} = {value!r}  ({origins.get(key, 'default')})")
    if shared.dry_run:
        _dry_run(module, project, spec, origins, place, shared)
        return None
    with project.lock(module.FOLDER, name):
        repair(place)
        standing = what_stands(place, shared.force)
        stop = Stop()
        stop.install()
        with stop.at_once():  # hashing the sources may take long, and there is nothing to save yet
            inputs = module.inputs(spec, project, standing.manifest)
        manifest = None
        if standing.spec is not None and not shared.force:
            manifest = _settle(module, standing, spec, inputs, place, shared)
        title = f"{module.STAGE} {name}: done already"
        if manifest is None:
            _check_disk(module, project, spec, inputs, name)
            replaces = shared.force and module.TRAINED
            if shared.force:  # nothing of an earlier build is taken up
                shutil.rmtree(partial_path(place), ignore_errors=True)
                shutil.rmtree(cache_path(place), ignore_errors=True)
            device = shared.device if isinstance(shared, OnDevice) else "cpu"
            manifest = _runner(module)(
                spec, Job(project, name, place, inputs, progress, stop, device=device, replaces=replaces)
            )
            title = f"{module.STAGE} {name}: done in {manifest.records.get('seconds', 0):.1f} s"
    report = Report(
        title,
        project.relative(place),
        {"stage": module.STAGE, "name": name, "content_sha256": manifest.content_sha256, **manifest.stats},
        module.summary(manifest.stats) + _memory_row(manifest),
    )
    print_report(report, shared.as_json)
    return report


def _memory_row(manifest: Manifest) -> list[tuple[str, str]]:
    peak = manifest.records.get("peak_memory_bytes")
    return [("peak memory", human_bytes(peak))] if peak else []


def spec_layers(
    module: StageSpec, project: Project, name: str, shared: Shared, words: dict[str, Any], defaults: dict[str, Any]
) -> list[Layer]:
    """Where a spec's values come from, lowest first: defaults, preset, recipe table, --set, flags."""
    table = project.table(module.STAGE, name)
    where = f"{project.recipe_path.name if project.recipe_path else 'recipe'} [{module.STAGE}.{name}]"
    settings = nest(dict(parse_setting(text) for text in shared.settings or []))
    layers: list[Layer] = [("default", nest(defaults)), (where, table), ("--set", settings), ("flag", nest(words))]
    presets: dict[str, dict[str, Any]] = getattr(module, "PRESETS", {})
    chosen = [values["preset"] for _, values in layers if values.get("preset")]
    if chosen and chosen[-1] in presets:
        layers.insert(1, (f"preset {chosen[-1]}", presets[chosen[-1]]))
    return layers


def what_stands(place: Path, force: bool = False) -> Standing:
    """What is at a stage's place; with `force` a damaged artifact, which is to be replaced, counts as nothing.

    Raises ArtifactError for a folder that is no artifact, or can't be read.
    """
    try:
        manifest = manifest_of(place)
        if manifest is not None:
            return Standing(manifest, manifest.spec, manifest.inputs)
        if (place / SPEC).is_file():
            return _what_has_begun(place / SPEC)
    except ArtifactError:
        if not force:
            raise
        return Standing()
    if place.exists() and not (place.is_dir() and all(path.name.endswith(PENDING) for path in place.iterdir())):
        raise ArtifactError(
            f"{place} exists and is no gptcli artifact", "move it away, or choose another name with --name"
        )
    return Standing()


def _what_has_begun(started: Path) -> Standing:
    """A run that has begun and not ended, by its spec.json."""
    try:
        found = json.loads(started.read_text(encoding="utf-8"))
        return Standing(None, found["spec"], tuple(Input(**entry) for entry in found["inputs"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{started} cannot be read: {error}", "start the run again with --force") from error


def _settle(
    module: StageSpec, standing: Standing, spec: Spec, inputs: Inputs, place: Path, shared: Shared
) -> Manifest | None:
    """The finished artifact when it is what is asked for; None when there is work; ArtifactError when it differs."""
    differences = what_differs(standing, spec, inputs, goes_on_with(standing, spec, place))
    if not differences:
        if standing.manifest is not None:
            touch(place)
        return standing.manifest
    if shared.update and not module.TRAINED:
        return None
    ways = ["--force (what stands is kept under another name)" if module.TRAINED else "--update or --force"]
    shown = "; ".join(differences[:6]) + (f"; and {len(differences) - 6} more" if len(differences) > 6 else "")
    raise ArtifactError(f"{place} was made otherwise: {shown}", f"rebuild it with {ways[0]}, or choose another --name")


def goes_on_with(standing: Standing, spec: Spec, place: Path) -> list[str]:
    """The changed keys that a run which has not ended may go on with: see Spec.may_change."""
    if standing.manifest is not None or standing.spec is None:
        return []
    made, wanted = standing.spec, json.loads(json.dumps(spec.content()))
    step = max(step_directories(place), default=0)
    return [key for key in wanted if key in made and made[key] != wanted[key] and spec.may_change(key, made, step)]


def what_differs(standing: Standing, spec: Spec, inputs: Inputs, without: Collection[str] = ()) -> list[str]:
    """Each key (`without` some) and input that is no longer what the standing artifact was made from, and its format,
    in words."""
    made, wanted = standing.spec or {}, json.loads(json.dumps(spec.content()))
    keys = [*sorted(made.keys() & wanted.keys()), *sorted(made.keys() ^ wanted.keys())]  # most telling first
    keys = [key for key in keys if key not in without]
    differences = [told for key in keys for told in _changes(key, made.get(key), wanted.get(key))]
    before = {(entry.role, entry.content_sha256) for entry in standing.inputs}
    return (
        _older_format(standing.manifest)
        + differences
        + [
            f"{entry.role} {entry.path} has changed"
            for entry in inputs.entries
            if (entry.role, entry.content_sha256) not in before
        ]
        + ([] if len(standing.inputs) == len(inputs.entries) else ["the number of inputs has changed"])
    )


def _older_format(manifest: Manifest | None) -> list[str]:
    """An older format can be read, but is not what a rebuild would write."""
    if manifest is None or manifest.format_version == FORMAT_VERSIONS[manifest.kind]:
        return []
    return [f"its format was {manifest.format_version}, now {FORMAT_VERSIONS[manifest.kind]}"]


def _changes(key: str, old: Any, new: Any) -> list[str]:
    """What changed in the value of a key: of tables and lists only the keys and items that did."""
    if old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        names = [*old, *(name for name in new if name not in old)]
        return [told for name in names for told in _changes(f"{key}.{name}", old.get(name), new.get(name))]
    if isinstance(old, list) and isinstance(new, list):
        return _item_changes(key, old, new)
    return [f"{key} was {_shown(old)!r}, now {_shown(new)!r}"]


def _shown(value: Any) -> Any:
    """A table without the keys that are not set."""
    return {name: item for name, item in value.items() if item is not None} if isinstance(value, dict) else value


def _item_changes(key: str, old: list[Any], new: list[Any]) -> list[str]:
    """Items that were added, removed or changed, by their number in the new list."""
    names = [_name(item) for item in old], [_name(item) for item in new]
    if names[0] != names[1] and sorted(names[0]) == sorted(names[1]):
        before = dict(zip(names[0], old, strict=True))
        pairs = zip(names[1], new, strict=True)
        moved = [told for at, (name, item) in enumerate(pairs) for told in _changes(f"{key}.{at}", before[name], item)]
        return [f"{key} stood in another order", *moved]
    changes: list[str] = []
    for _, begin, end, first, last in difflib.SequenceMatcher(None, *names, autojunk=False).get_opcodes():
        if names[0][begin:end] == names[1][first:last]:
            both = zip(old[begin:end], new[first:last], strict=True)
            changes += [told for at, pair in enumerate(both, first) for told in _changes(f"{key}.{at}", *pair)]
        else:
            changes += [f"{key}: {name} was removed" for name in names[0][begin:end]]
            changes += [f"{key}: {name} was added" for name in names[1][first:last]]
    return changes


def _name(item: Any) -> str:
    """What tells an item of a list from others: a table's name or path, else the item itself."""
    if isinstance(item, dict):
        item = item.get("name", item.get("path", item))
    return item if isinstance(item, str) else json.dumps(item, sort_keys=True)


def _check_disk(module: StageSpec, project: Project, spec: Spec, inputs: Inputs, name: str) -> None:
    need, free = module.disk_needed(spec, project, inputs), shutil.disk_usage(project.root).free
    if need > free:
        raise ResourceError(
            f"{module.STAGE} {name} needs about {human_bytes(need)} of disk, {human_bytes(free)} are free",
            "free some space, or point -C at another disk",
        )


def _runner(module: StageSpec) -> Callable[[Any, Job], Manifest]:
    """The stage's run(), imported only now: it may load torch."""
    runner: Callable[[Any, Job], Manifest] = importlib.import_module(f"gptcli.{module.STAGE.replace('-', '_')}.run").run
    return runner


def _flat(spec: Spec) -> list[tuple[str, Any]]:
    return sorted(_walk(spec.model_dump(mode="json")))


def _walk(value: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, item in value.items():
        rows += _walk(item, f"{prefix}{key}.") if isinstance(item, dict) and item else [(prefix + key, item)]
    return rows


def _forecast(stage: str, spec: Spec, project: Project) -> list[tuple[str, str]]:
    """What a stage that has a forecast.py tells ahead of a run."""
    name = f"gptcli.{stage.replace('-', '_')}.forecast"
    if importlib.util.find_spec(name) is None:
        return []
    told: list[tuple[str, str]] = importlib.import_module(name).forecast(spec, project)
    return told


def _offline(spec: Spec) -> Spec:
    """The spec for a dry run, which fetches nothing."""
    return spec.model_copy(update={"offline": True}) if "offline" in type(spec).model_fields else spec


def _dry_run(
    module: StageSpec, project: Project, spec: Spec, origins: dict[str, str], place: Path, shared: Shared
) -> None:
    standing = what_stands(place, shared.force)
    try:
        inputs, missing = module.inputs(_offline(spec), project, standing.manifest), ""
    except ArtifactError as error:  # an earlier stage has not run yet, or a download has not been made
        inputs, missing = Inputs(), error.message
    changed = goes_on_with(standing, spec, place)
    differences = what_differs(standing, spec, inputs, changed) if standing.spec is not None else []
    if missing:
        plan = f"cannot start yet: {missing}"
    elif standing.spec is None:
        plan = "would build"
    elif differences:
        plan = "differs: " + "; ".join(differences)
    else:
        plan = "done already" if standing.manifest is not None else "would go on with the interrupted run"
        if changed:
            plan += ", with another " + " and ".join(changed)
    ahead = [] if plan == "done already" else _forecast(module.STAGE, _offline(spec), project)
    if shared.as_json:
        origin = {key: origins.get(key, "default") for key, _ in _flat(spec)}
        entries = [asdict(entry) for entry in inputs.entries]
        told = {"plan": plan, "path": project.relative(place), "spec": spec.content(), "origins": origin}
        print_json({**told, "inputs": entries, "forecast": dict(ahead)})
        return
    print(f"{module.STAGE} → {project.relative(place)}: {plan}")
    print_rows([(key, f"{value!r}  ({origins.get(key, 'default')})") for key, value in _flat(spec)])
    print_rows([(entry.role, f"{entry.path}  {entry.content_sha256[:12]}") for entry in inputs.entries])
    print_rows([(f"forecast: {label}", value) for label, value in ahead])
