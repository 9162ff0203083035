"""gptcli checkpoint import: somebody's weights as a run whose one checkpoint, at step 0, is theirs.

The run is begun as training begins one: its spec.json first, then the checkpoint as an artifact, the manifest last. So
whatever cuts it short, the same command goes on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from gptcli.artifacts.build import SPEC, Build, repair, set_aside, touch
from gptcli.artifacts.durable import PENDING, sha256_file, write_bytes, write_json
from gptcli.artifacts.locations import ADAPTER_CONFIG
from gptcli.artifacts.manifest import (
    MANIFEST,
    FileEntry,
    Inputs,
    Manifest,
    Source,
    make_manifest,
    manifest_of,
    verify_files,
    write_manifest,
)
from gptcli.artifacts.project import Project
from gptcli.artifacts.rows import METRICS
from gptcli.checkpoint.imported import check_written, choose_tokenizer, write_model
from gptcli.console import Report, human_bytes, human_count
from gptcli.errors import ArtifactError, ResourceError, SpecError
from gptcli.models.importers import ForeignModel, open_foreign
from gptcli.runtime.device import peak_memory_bytes

CHECKPOINT = "checkpoints/step-00000000"
DTYPES = ("auto", "float32", "bfloat16")
_PATHS = ("path", "tokenizer_path")  # where the files lay is told, and makes no other model


class Bar(Protocol):
    def advance(self, count: float = 1) -> None: ...


OpenBar = Callable[[str, float], AbstractContextManager[Bar]]


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
        repair(place / CHECKPOINT)
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
            _require_room(project, model, wish.dtype)
            if force and place.exists():
                set_aside(place)
            manifest = _make(place, spec, Inputs((), sources), model, tokenizer, wish.dtype, open_bar)
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


def holds_another_s(place: Path) -> bool:
    """Whether a folder without manifest and spec.json holds what no run has left: one cut short in writing its first
    file leaves that file's unfinished name."""
    return place.exists() and not all(path.name.endswith(PENDING) for path in place.iterdir())


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


def _require_room(project: Project, model: ForeignModel, dtype: str) -> None:
    need, free = _weight_bytes(model, dtype) + (64 << 20), shutil.disk_usage(project.root).free
    if need > free:
        raise ResourceError(
            f"the import needs about {human_bytes(need)} of disk, {human_bytes(free)} are free",
            "free some space, point -C at another disk, or store fewer bytes with --dtype bfloat16",
        )


def _weight_bytes(model: ForeignModel, dtype: str) -> int:
    if dtype == "auto":
        return sum(tensor.bytes for tensor in model.tensors.values())
    return model.parameters * (4 if dtype == "float32" else 2)


def _make(
    place: Path,
    spec: dict[str, Any],
    inputs: Inputs,
    model: ForeignModel,
    tokenizer: Any,
    dtype: str,
    open_bar: OpenBar,
) -> Manifest:
    write_json(place / SPEC, {"kind": "run", "spec": spec, "inputs": []})
    target = place / CHECKPOINT
    manifest = manifest_of(target)
    if manifest is None or manifest.spec != spec or verify_files(target, manifest):
        if target.exists():
            shutil.rmtree(target)
        build = Build.open(target, kind="checkpoint", spec=spec, inputs=inputs, say=lambda line: None)
        with open_bar("importing", 2 * _weight_bytes(model, dtype)) as bar:
            facts = write_model(model, tokenizer, dtype, build.directory, bar.advance)
            check_written(model, dtype, build.directory, bar.advance)
        _require_unchanged(model, inputs.sources)
        manifest = build.commit({"step": 0, "tokens": 0, **facts}, _records())
    write_bytes(place / METRICS, b"")
    names = (METRICS, SPEC)
    files = [FileEntry(name, (place / name).stat().st_size, sha256_file(place / name)) for name in names]
    files += [FileEntry(f"{CHECKPOINT}/{entry.path}", entry.bytes, entry.sha256) for entry in manifest.files]
    ended = make_manifest("run", spec, inputs, tuple(files), {**manifest.stats, "best_step": 0}, _records())
    write_manifest(place, ended)
    return ended


def _require_unchanged(model: ForeignModel, sources: tuple[Source, ...]) -> None:
    """The files were hashed before they were read: they must still be the same."""
    for path, source in zip(dict.fromkeys(model.files), sources, strict=False):
        state = path.stat()
        if (state.st_size, state.st_mtime_ns) != (source.bytes, source.mtime_ns):
            raise ArtifactError(f"{path} changed while it was imported", "run the same command again")


def _records() -> dict[str, Any]:
    from datetime import UTC, datetime

    created = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {"created": created, "peak_memory_bytes": peak_memory_bytes()}


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


__all__ = ["CHECKPOINT", "MANIFEST", "OpenBar", "Wish", "holds_another_s", "import_model"]
