"""gptcli checkpoint diff: in what two models differ, down to which layers moved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gptcli.artifacts.durable import sha256_file, write_text
from gptcli.artifacts.locations import ADAPTER_CONFIG, resolve_model
from gptcli.artifacts.manifest import Manifest, manifest_of
from gptcli.artifacts.project import Project
from gptcli.checkpoint.bars import OpenBar
from gptcli.checkpoint.moved import Comparison, Moved, compare_models, finite, tensors_of
from gptcli.checkpoint.moved_picture import picture
from gptcli.console import Report, human_count
from gptcli.errors import ArtifactError
from gptcli.models.arithmetic import Difference
from gptcli.models.family import read_config
from gptcli.models.importers.hugging_face import read_json
from gptcli.models.importers.tokenizer_files import tokenizer_files
from gptcli.tokenizer import CARRIED_FILES, JSON_FILE

NO_DIFFERENCE = "no difference"
_MISSING = "(not set)"
_SHOWN = 4  # names in a row of the table; --json has them all
# Keys of config.json that say how the file was written, not what the model is.
_UNTOLD = ("transformers_version", "_name_or_path")
_TOKENIZER_FILES = (*CARRIED_FILES, "vocab.json", "merges.txt", "added_tokens.json")


def diff(project: Project, one: str, other: str, file: str | None, open_bar: OpenBar) -> Report:
    """Compare two models tensor by tensor, and draw which layers moved into `file` (SVG) if given.

    They are the same where weights, config and tokenizer are; what they were made from and how, `spec` and `lineage`,
    is told and makes no difference.

    Raises ArtifactError when one is missing or can't be read, and where one is an adapter and the other a whole model.
    """
    names = (one, other)
    homes = resolve_model(project, one).directory, resolve_model(project, other).directory
    adapted = [(home / ADAPTER_CONFIG).is_file() for home in homes]
    if adapted[0] != adapted[1]:
        adapter, whole = names[adapted[1]], names[adapted[0]]
        raise ArtifactError(
            f"{adapter} is an adapter, {whole} a whole model",
            f"gptcli checkpoint merge {adapter} --name NAME makes a whole model of it",
        )
    first, second = tensors_of(homes[0]), tensors_of(homes[1])
    total = sum(tensor.bytes for tensors in (first, second) for tensor in tensors.values())
    with open_bar("comparing", total) as bar:
        found = compare_models(first, second, bar.advance)
    manifests = manifest_of(homes[0]), manifest_of(homes[1])
    figures = {
        "models": [{"model": name, "path": project.relative(home)} for name, home in zip(names, homes, strict=True)],
        "same": False,
        "config": _values(*_configs(homes, adapted[0])),
        "tokenizer": _files(homes),
        "spec": _values(_spec(manifests[0]), _spec(manifests[1])),
        "lineage": _lineage(manifests),
        "only_first": found.only_first,
        "only_second": found.only_second,
        "whole": _figures(found.whole()),
        "layers": [{"part": part, **_figures(each)} for part, each in found.parts().items()],
        "tensors": [_tensor(moved) for moved in found.tensors],
    }
    figures["same"] = found.is_same and not figures["config"] and not figures["tokenizer"]
    drawn = ""
    if file is not None:
        write_text(project.path(file), picture(one, other, found))
        drawn = project.relative(project.path(file))
        figures["picture"] = drawn
    return Report(_title(one, other, figures, found), drawn, figures, list(_rows(figures, found)))


def _configs(homes: tuple[Path, Path], are_adapters: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is to be compared of both configs: where gptcli computes both models, what decides what they compute; else
    all that is in the files."""
    if not are_adapters:
        try:
            one, other = (read_config(home).to_hf() for home in homes)
            return one, other
        except ArtifactError:
            pass
    name = ADAPTER_CONFIG if are_adapters else "config.json"
    raw = [{key: value for key, value in read_json(home / name).items() if key not in _UNTOLD} for home in homes]
    return raw[0], raw[1]


def _spec(manifest: Manifest | None) -> dict[str, Any]:
    if manifest is None:
        return {}
    found: dict[str, Any] = manifest.spec.get("training", manifest.spec)  # a version carries its checkpoint's spec so
    return found


def _values(one: dict[str, Any], other: dict[str, Any]) -> dict[str, list[Any]]:
    """Keys whose values differ, tables opened, with both values."""
    flat = dict(_flat(one)), dict(_flat(other))
    keys = [*flat[0], *(key for key in flat[1] if key not in flat[0])]
    pairs = {key: [flat[0].get(key, _MISSING), flat[1].get(key, _MISSING)] for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _flat(table: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{before}{key}.")
        else:
            yield before + key, value


def _files(homes: tuple[Path, Path]) -> list[str]:
    """Tokenizer files that are not the same bytes in both, or only in one; a vocabulary in two files counts as the
    tokenizer.json that an import or an average makes of it where only one model has it so."""
    sums = [_sums(home) for home in homes]
    pairs = ["vocab.json" in each and JSON_FILE not in each for each in sums]
    if pairs[0] != pairs[1]:
        sums = [
            _written_sums(home) if is_pair else each for home, is_pair, each in zip(homes, pairs, sums, strict=True)
        ]
    return [name for name in _TOKENIZER_FILES if sums[0].get(name) != sums[1].get(name)]


def _sums(home: Path) -> dict[str, str]:
    return {name: sha256_file(home / name) for name in _TOKENIZER_FILES if (home / name).is_file()}


def _written_sums(home: Path) -> dict[str, str]:
    """The sums of the files as which a model's tokenizer is written; of those it has where it is none."""
    tokenizer = tokenizer_files(home)
    if tokenizer is None:
        return _sums(home)
    try:
        with TemporaryDirectory() as folder:
            tokenizer.write(Path(folder))
            return _sums(Path(folder))
    except ArtifactError:
        return _sums(home)


def _lineage(manifests: tuple[Manifest | None, Manifest | None]) -> list[dict[str, Any]]:
    """Inputs that only one of them was made from."""
    entries = [manifest.inputs if manifest else () for manifest in manifests]
    sums = [{entry.content_sha256 for entry in each} for each in entries]
    told = [
        {"of": ("first", "second")[at], "role": entry.role, "path": entry.path, "content_sha256": entry.content_sha256}
        for at in (0, 1)
        for entry in entries[at]
        if entry.content_sha256 not in sums[1 - at]
    ]
    return [entry for number, entry in enumerate(told) if entry not in told[:number]]


def _figures(figures: Difference) -> dict[str, Any]:
    return {
        "norm": finite(figures.norm),
        "other_norm": finite(figures.other_norm),
        "distance": finite(figures.distance),
        "relative": finite(figures.relative),
        "cosine": finite(figures.cosine),
        "largest": finite(figures.largest),
        "changed": figures.changed,
        "count": figures.count,
    }


def _tensor(moved: Moved) -> dict[str, Any]:
    shapes = [list(shape) for shape in moved.shapes]
    return {
        "name": moved.name,
        "part": moved.place.part,
        "kind": moved.place.kind,
        "same": moved.same,
        "shape": shapes[0] if shapes[0] == shapes[1] else shapes,
        "dtype": moved.dtypes[0] if moved.dtypes[0] == moved.dtypes[1] else list(moved.dtypes),
        **(_figures(moved.figures) if moved.figures is not None else {}),
    }


def _title(one: str, other: str, figures: dict[str, Any], found: Comparison) -> str:
    if figures["same"]:
        return f"{one} and {other}: {NO_DIFFERENCE}"
    if found.is_same:
        return f"{one} and {other}: the weights are the same"
    return f"{one} and {other}: {len(found.differing)} of {len(found.tensors)} tensors differ"


def _rows(figures: dict[str, Any], found: Comparison) -> Iterator[tuple[str, str]]:
    if figures["same"]:  # where they come from is no difference
        return
    for key in ("config", "spec"):
        pairs = figures[key]
        common = {name: pair for name, pair in pairs.items() if _MISSING not in pair}
        for name, (was, now) in list(common.items())[:_SHOWN]:
            yield key, f"{name}: {_short(was)} → {_short(now)}"
        if len(common) > _SHOWN:
            yield key, f"and {len(common) - _SHOWN} more (--json)"
        for at in (0, 1):
            alone = [f"{name}: {_short(pair[at])}" for name, pair in pairs.items() if pair[1 - at] == _MISSING]
            if alone:
                yield key, f"only in the {('first', 'second')[at]}: {_listed(alone)}"
    if figures["tokenizer"]:
        yield "tokenizer", f"{', '.join(figures['tokenizer'])} differ"
    for entry in figures["lineage"]:
        yield "lineage", f"only the {entry['of']} is made from {entry['path']} ({entry['content_sha256'][:12]})"
    for at, key in enumerate(("only_first", "only_second")):
        if figures[key]:
            yield "tensors", f"only in the {('first', 'second')[at]}: {_listed(figures[key])}"
    yield from _tensor_rows(found)


def _tensor_rows(found: Comparison) -> Iterator[tuple[str, str]]:
    """Other shapes and types, then how far each layer moved, then the tensors that moved farthest."""
    reshaped = [moved for moved in found.tensors if moved.figures is None]
    if reshaped:
        shown = [f"{moved.name} {list(moved.shapes[0])} → {list(moved.shapes[1])}" for moved in reshaped]
        yield "shapes", _listed(shown)
    types = {moved.dtypes for moved in found.tensors if moved.dtypes[0] != moved.dtypes[1]}
    for one, other in sorted(types):
        yield "types", f"{one} → {other}"
    whole = found.whole()
    if not whole.changed:
        return
    yield "all weights", _movement(whole)
    for part, each in found.parts().items():
        yield f"layer {part}" if isinstance(part, int) else part, _movement(each) if each.changed else "the same"
    moved_most = sorted(
        (moved for moved in found.differing if moved.figures is not None and moved.figures.relative is not None),
        key=lambda moved: -(moved.figures.relative or 0.0) if moved.figures else 0.0,
    )
    for at, moved in enumerate(moved_most[:3]):
        if moved.figures is not None:
            yield "moved most" if not at else "", f"{moved.name}  {_movement(moved.figures)}"


def _movement(each: Difference) -> str:
    relative = f"{100 * each.relative:.3g} %" if each.relative is not None else "unknown"
    cosine = f"{each.cosine:.6f}" if each.cosine is not None else "unknown"
    return (
        f"moved {relative} of its norm, cosine {cosine}, largest {each.largest:.3g}, "
        f"{human_count(each.changed)} of {human_count(each.count)} values"
    )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
