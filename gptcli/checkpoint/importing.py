"""gptcli checkpoint import: somebody's weights as a run whose one checkpoint, at step 0, is theirs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gptcli.artifacts.build import SPEC, touch
from gptcli.artifacts.durable import sha256_file
from gptcli.artifacts.locations import ADAPTER_CONFIG
from gptcli.artifacts.manifest import Inputs, Manifest, Source, manifest_of
from gptcli.artifacts.project import Project
from gptcli.checkpoint.bars import OpenBar
from gptcli.checkpoint.imported import check_written, choose_tokenizer, write_model
from gptcli.checkpoint.one_step_run import CHECKPOINT, Making, end_swap, holds_another_s, make_run
from gptcli.console import Report, human_bytes, human_count
from gptcli.errors import ArtifactError, SpecError
from gptcli.models.importers import ForeignModel, open_foreign
from gptcli.models.importers.foreign import ForeignTokenizer

DTYPES = ("auto", "float32", "bfloat16")
_PATHS = ("path", "tokenizer_path")  # where the files lay is told, and makes no other model


@dataclass(frozen=True)
class Wish:
    """What to import: the path as typed, a tokenizer's folder or file (None: the model's own; "none": go without), the
    type to store weights in ("auto": as they are)."""

    path: str
    tokenizer: str | None = None
    dtype: str = "auto"


def import_model(project: Project, wish: Wish, name: str, force: bool, open_bar: OpenBar) -> Report:
    """Make runs/NAME of foreign weights; the same command again changes nothing.

    `open_bar(label, total bytes)` gives a bar for the length of a `with` block. Raises SpecError for a type that is
    none, ArtifactError when the source is missing, damaged or not supported, when it has no tokenizer, or when another
    run of that name stands and `force` is not given (with it, that run is kept as NAME.1), ResourceError when the disk
    is too small.
    """
    if wish.dtype not in DTYPES:
        raise SpecError(f"{wish.dtype} is no type to store weights in", f"--dtype {'|'.join(DTYPES)}")
    place = project.place("runs", name)
    with project.lock("runs", name):
        end_swap(place)
        path = project.path(wish.path)
        if (path / ADAPTER_CONFIG).is_file() and not (path / "config.json").is_file():
            raise ArtifactError(f"{path} is an adapter, not a whole model", "merge it into its base first")
        model = open_foreign(path)
        tokenizer = choose_tokenizer(project, model, wish.tokenizer)
        files = (*model.files, *(tokenizer.files if tokenizer else ()))
        standing = _standing(place, force)
        sources = _sources(project, files, standing.sources() if standing else ())
        spec = _spec(project, wish, model, files, sources)
        manifest = None if force else _settled(place, standing, spec)
        is_new = manifest is None
        if manifest is None:
            write = partial(_write, model, tokenizer, wish.dtype, sources, open_bar)
            smaller = ", or store fewer bytes with --dtype bfloat16"
            manifest = make_run(
                place, Making(spec, Inputs((), sources), _weight_bytes(model, wish.dtype), write, smaller)
            )
    return _report(project, name, place, manifest, is_new)


def _standing(place: Path, force: bool) -> Manifest | None:
    """The manifest of what stands at the place. Raises ArtifactError for a folder that is no run."""
    try:
        found = manifest_of(place)
    except ArtifactError:
        if not force:
            raise
        return None
    if found is None and not (place / SPEC).is_file() and holds_another_s(place):
        raise ArtifactError(f"{place} exists and is no run of gptcli's", "move it away, or choose another --name")
    return found


def _settled(place: Path, standing: Manifest | None, spec: dict[str, Any]) -> Manifest | None:
    """The finished import when it is what is asked for, None when there is work; ArtifactError when it differs."""
    begun = standing.spec if standing is not None else _begun(place / SPEC)
    if begun is None or (standing is None and begun.get("form")):
        return None  # an import that has not ended holds nothing that is lost by starting over
    if _content(begun) != _content(spec):
        made = f"made by checkpoint {begun['made']}" if begun.get("made") else "a run that was trained"
        what = f"an import of {begun['path']}" if begun.get("form") else made
        changed = sorted(key for key in {*begun, *spec} - {*_PATHS} if begun.get(key) != spec.get(key))
        more = f" ({', '.join(changed)} differ)" if begun.get("form") else ""
        raise ArtifactError(
            f"{place} stands already and is {what}{more}",
            "--force keeps what stands under another name; or choose another --name",
        )
    if standing is None:
        return None
    if manifest_of(place / CHECKPOINT) is None:
        raise ArtifactError(f"{place / CHECKPOINT} is gone", "--force imports it again and keeps what is left")
    touch(place)
    return standing


def _begun(path: Path) -> dict[str, Any] | None:
    """The spec of a run that has begun and not ended."""
    if not path.is_file():
        return None
    try:
        spec = json.loads(path.read_text(encoding="utf-8"))["spec"]
        if isinstance(spec, dict):
            return spec
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise ArtifactError(f"{path} can't be read", "--force starts over and keeps what stands under another name")


def _content(spec: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if key not in _PATHS}


def _sources(project: Project, files: tuple[Path, ...], known: tuple[Source, ...]) -> tuple[Source, ...]:
    """Every file once; hashed only when its bytes or mtime differ from what is known of it."""
    before = {(source.path, source.bytes, source.mtime_ns): source.sha256 for source in known}
    found = []
    for path in dict.fromkeys(files):
        try:
            state = path.stat()
            key = (project.relative(path), state.st_size, state.st_mtime_ns)
            found.append(Source(*key, before.get(key) or sha256_file(path)))
        except OSError as error:
            raise ArtifactError(f"{path} can't be read: {error.strerror or error}", "check the path") from error
    return tuple(found)


def _spec(
    project: Project, wish: Wish, model: ForeignModel, files: tuple[Path, ...], sources: tuple[Source, ...]
) -> dict[str, Any]:
    named = zip(dict.fromkeys(files), sources, strict=True)
    return {
        "form": model.form,
        "path": project.relative(project.path(wish.path)),
        "files": [{"name": path.name, "sha256": source.sha256} for path, source in named],
        "dtype": wish.dtype,
        "tokenizer": "named" if wish.tokenizer not in (None, "none") else wish.tokenizer or "its own",
        **({"tokenizer_path": wish.tokenizer} if wish.tokenizer not in (None, "none") else {}),
    }


def _weight_bytes(model: ForeignModel, dtype: str) -> int:
    if dtype == "auto":
        return sum(tensor.bytes for tensor in model.tensors.values())
    return model.parameters * (4 if dtype == "float32" else 2)


def _write(
    model: ForeignModel,
    tokenizer: ForeignTokenizer | None,
    dtype: str,
    sources: tuple[Source, ...],
    open_bar: OpenBar,
    target: Path,
) -> dict[str, Any]:
    """Write the model into `target`; figures for the checkpoint's stats."""
    with open_bar("importing", 2 * _weight_bytes(model, dtype)) as bar:
        facts = write_model(model, tokenizer, dtype, target, bar.advance)
        check_written(model, dtype, target, bar.advance)
    _require_unchanged(model, sources)
    return facts


def _require_unchanged(model: ForeignModel, sources: tuple[Source, ...]) -> None:
    """The files were hashed before they were read: they must still be the same."""
    for path, source in zip(dict.fromkeys(model.files), sources, strict=False):
        state = path.stat()
        if (state.st_size, state.st_mtime_ns) != (source.bytes, source.mtime_ns):
            raise ArtifactError(f"{path} changed while it was imported", "run the same command again")


def _report(project: Project, name: str, place: Path, manifest: Manifest, is_new: bool) -> Report:
    stats, spec = manifest.stats, manifest.spec
    figures = {
        "name": name,
        "imported": is_new,
        "checkpoint": project.relative(place / CHECKPOINT),
        "content_sha256": manifest.content_sha256,
        "bytes": manifest.total_bytes(),
        "source": spec,
        "sources": [asdict(source) for source in manifest.sources()],
        **stats,
    }
    rows = [
        ("from", f"{spec['path']} ({spec['form']})"),
        ("parameters", f"{stats['parameters']:,} ({human_count(stats['parameters'])}), {stats['dtype']}"),
        ("size", human_bytes(stats["weight_bytes"])),
        ("tokenizer", f"{stats['vocab_size']:,} ids" if stats["vocab_size"] else "none"),
    ]
    title = f"{name}: imported" if is_new else f"{name}: imported already"
    return Report(title, project.relative(place / CHECKPOINT), figures, rows)
