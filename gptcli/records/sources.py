"""What a user typed as sources, made into files, and their fingerprints.

Files, folders and globs are found here, `python:stdlib` in stdlib.py; standard input, web addresses, hf:// and fsspec
URLs become files of the project's cache in remote.py.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from gptcli.artifacts.durable import canonical_json, sha256_file
from gptcli.artifacts.manifest import MANIFEST, Input, Inputs, Source
from gptcli.errors import SpecError
from gptcli.records.downloads import Downloads, is_remote, without_password
from gptcli.records.ignore import GITIGNORE, Ignored
from gptcli.records.opening import os_error
from gptcli.records.stdlib import DOCSTRINGS, STDLIB, stdlib_files

_SCHEME = re.compile(r"[a-z][a-z0-9+.]+:")
_HASHERS = 4  # threads; hashing lets go of the interpreter's lock

Say = Callable[[str], None]


@dataclass(frozen=True)
class SourceFile:
    """One file to read: where it is, its name as the user would type it, and the typed source it came from.

    Name and source carry no password, whatever URL was typed.
    """

    path: Path
    name: str
    source: str


def expand(
    sources: Sequence[str], root: Path, cache: Path | None = None, offline: bool = False, say: Say | None = None
) -> list[SourceFile]:
    """The files behind typed sources, in the order typed, sorted within a folder or glob.

    Relative paths are taken from `root`. A folder is read recursively; left out are hidden files and folders, links to
    folders or to nothing, and what .gitignore files in it name (how many is told through `say`). What is no local file
    is brought into the folder `cache` once and kept there; `offline` forbids the network. Raises SpecError naming what
    is missing, empty, unreadable, no regular file, or of an unknown scheme, and what is not local where there is no
    cache; ArtifactError for a wrong checksum.
    """
    if not sources:
        raise SpecError("no sources are given", "name files, folders, globs or python:stdlib")
    tell = say or _silent
    return [file for typed in sources for file in _expand_one(typed, root, cache, offline, tell)]


def _silent(line: str) -> None:
    """Told to nobody."""


def _expand_one(typed: str, root: Path, cache: Path | None, offline: bool, tell: Say) -> list[SourceFile]:
    name = without_password(typed)
    try:
        if not is_remote(typed):
            return _found(typed, root, tell)
        if cache is None:
            raise SpecError(f"{name} is no local file, and this command reads only local files", "download it first")
        from gptcli.records.remote import remote_files  # it loads the HTTP client, which local files don't need

        return [SourceFile(path, found, name) for path, found in remote_files(typed, Downloads(cache, offline, tell))]
    except OSError as error:
        raise os_error(name, error) from error
    except (ValueError, RuntimeError) as error:  # a NUL in a path, a ~user there is not
        raise SpecError(f"{name!r} is no path: {without_password(str(error))}", "check the path") from error


def _found(typed: str, root: Path, tell: Say) -> list[SourceFile]:
    if typed in (STDLIB, DOCSTRINGS):
        return [SourceFile(path, f"{STDLIB}/{name}", typed) for name, path in stdlib_files()]
    path = root / Path(typed).expanduser()
    if path.is_dir():
        return _folder(path, typed.rstrip("/") or "/", typed, tell)
    if not os.path.lexists(path):
        if _SCHEME.match(typed):
            raise SpecError(
                f"{typed} is no source that can be read",
                f"a source is a file, a folder, a glob, a URL or {STDLIB}; download it first",
            )
        if glob.has_magic(typed):
            return _glob(typed, root, tell)
    _require_readable(path, typed)
    return [SourceFile(path, _printable(typed), typed)]


def _folder(folder: Path, name: str, typed: str, tell: Say) -> list[SourceFile]:
    found, ignored, artifacts = _walk(folder, name)
    dangling = {child for child in found if not (folder / child).exists() and (folder / child).is_symlink()}
    found = [child for child in found if child not in dangling]
    if dangling:
        tell(f"{len(dangling)} {'link' if len(dangling) == 1 else 'links'} to nothing left out of {name}")
    if artifacts:
        tell(f"{artifacts} {'artifact' if artifacts == 1 else 'artifacts'} of gptcli left out of {name}")
    if ignored.files or ignored.folders:
        tell(f"{_counted(ignored)} ignored by {GITIGNORE} in {name}")
    if not found and (ignored.files or ignored.folders):
        raise SpecError(
            f"the folder {name} holds no files but those that its {GITIGNORE} leaves out",
            f"name them with a glob: {name}/**",
        )
    if not found and artifacts:
        raise SpecError(f"the folder {name} holds nothing but what gptcli made", "name the sources of a corpus instead")
    if not found:
        raise SpecError(f"the folder {name} holds no files", "name a folder with files in it")
    for child in found:
        _require_readable(folder / child, f"{name}/{child}")
    return [SourceFile(folder / child, _printable(f"{name}/{child}"), typed) for child in sorted(found)]


def _walk(folder: Path, name: str) -> tuple[list[str], Ignored, int]:
    """The paths within a folder that are neither hidden, ignored nor made by gptcli; what was ignored; artifacts."""
    found: list[str] = []
    ignored, artifacts = Ignored(folder), 0

    def refuse(error: OSError) -> None:
        inside = os.path.relpath(error.filename or folder, folder)
        raise os_error(name if inside == "." else f"{name}/{inside}", error) from error

    for directory, folders, files in os.walk(folder, onerror=refuse):
        inside = os.path.relpath(directory, folder)
        inside = "" if inside == "." else inside
        if MANIFEST in files and _is_artifact(Path(directory)):
            folders.clear()
            artifacts += 1
            continue
        ignored.enter(inside, GITIGNORE in files)
        folders[:] = ignored.kept(inside, [child for child in folders if not child.startswith(".")], is_folder=True)
        kept = ignored.kept(inside, [child for child in files if not child.startswith(".")], is_folder=False)
        found += [f"{inside}/{child}" for child in kept] if inside else kept
    return found, ignored, artifacts


def _is_artifact(directory: Path) -> bool:
    """Whether gptcli made a folder: a corpus made of itself would change whenever it is built."""
    try:
        return b'"gptcli_version"' in (directory / MANIFEST).read_bytes()
    except OSError:
        return False


def _counted(ignored: Ignored) -> str:
    parts = [(ignored.files, "file"), (ignored.folders, "folder")]
    return " and ".join(f"{count:,} {what}{'s' if count > 1 else ''}" for count, what in parts if count)


def _glob(typed: str, root: Path, tell: Say) -> list[SourceFile]:
    pattern = str(Path(typed).expanduser())
    matches = sorted(glob.glob(pattern, root_dir=root, recursive=True))  # noqa: PTH207 (Path.glob: no absolute patterns)
    _require_open_folders(pattern, root)
    if not matches:
        raise SpecError(f"no file matches {typed}", "check the pattern; it is taken from the project, ** goes deeper")
    files: dict[str, SourceFile] = {}
    for match in matches:
        path = root / match
        if not path.is_dir():
            _require_readable(path, match)
            files.setdefault(match, SourceFile(path, _printable(match), typed))
        elif "**" not in typed:  # with ** its files match by themselves
            files.update((file.name, file) for file in _folder(path, match.rstrip("/"), typed, tell))
    if not files:
        raise SpecError(f"no file matches {typed}, only folders", "end the pattern with /*")
    return [files[name] for name in sorted(files)]


def _require_open_folders(pattern: str, root: Path) -> None:
    """The glob module passes over folders it can't read; their files would be missing in silence."""
    parts = Path(pattern).parts
    for length in range(1, len(parts)):
        prefix = f"{Path(*parts[:length])}/"
        for folder in sorted(glob.glob(prefix, root_dir=root, recursive=True)):  # noqa: PTH207
            if not os.access(root / folder, os.R_OK | os.X_OK):
                raise SpecError(
                    f"cannot read {folder.rstrip('/')}: permission denied", "check that this user may read it"
                )


def _require_readable(path: Path, name: str) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise os_error(name, error) from error
    if not stat.S_ISREG(mode):
        raise SpecError(f"{name} is no regular file", "sources are files that can be read twice")
    if not os.access(path, os.R_OK):
        raise SpecError(f"cannot read {name}: permission denied", "check that this user may read it")


def _printable(name: str) -> str:
    """A name that UTF-8 and JSON can hold, whatever bytes the file system has in it (`\\xff` for one that is none)."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def fingerprint(files: Iterable[SourceFile], previous: Sequence[Source] = ()) -> tuple[Source, ...]:
    """Bytes, mtime_ns and SHA-256 of every file's raw bytes, each file once, in order.

    A file is hashed only when its bytes or its mtime_ns differ from the `previous` record of the same name. Raises
    SpecError when one can't be read.
    """
    known = {(source.path, source.bytes, source.mtime_ns): source.sha256 for source in previous}

    def one(file: SourceFile) -> Source:
        try:
            found = file.path.stat()
            key = (file.name, found.st_size, found.st_mtime_ns)
            return Source(*key, known.get(key) or sha256_file(file.path))
        except OSError as error:
            raise os_error(file.name, error) from error

    unique = list({file.name: file for file in files}.values())
    with ThreadPoolExecutor(_HASHERS) as pool:
        return tuple(pool.map(one, unique))


def recorded_files(
    typed: Sequence[str], root: Path, inputs: Inputs, role: str, cache: Path | None = None, offline: bool = False
) -> list[SourceFile]:
    """The files behind typed sources that `inputs` recorded for `role`; what came into a folder since is left out.

    cache, offline: as `expand` was given them; what stands in the cache needs no network. Raises SpecError when a file
    is gone.
    """
    known = {source.path for source in inputs.sources}
    files = [file for file in expand(typed, root, cache, offline) if file.name in known]
    recorded = [entry for entry in inputs.entries if entry.role == role]
    for entry, found in zip_longest(recorded, source_inputs(files, inputs.sources, role)):
        if entry != found:
            raise SpecError(f"files of {(entry or found).path} are no longer there", "run the same command again")
    return files


def require_unchanged(path: Path, recorded: Source) -> None:
    """Raise SpecError when a file, once read, is not the one that was recorded, by its bytes and mtime_ns."""
    try:
        found = path.stat()
    except OSError as error:
        raise os_error(recorded.path, error) from error
    if (found.st_size, found.st_mtime_ns) != (recorded.bytes, recorded.mtime_ns):
        raise SpecError(f"{recorded.path} changed while it was read", "run the same command again")


def source_inputs(files: Sequence[SourceFile], sources: Sequence[Source], role: str = "source") -> tuple[Input, ...]:
    """One manifest input for each typed source; its hash covers the names and bytes of its files, in order."""
    hashes = {source.path: source.sha256 for source in sources}
    by_source: dict[str, list[list[str]]] = {}
    for file in files:
        by_source.setdefault(file.source, []).append([file.name, hashes[file.name]])
    return tuple(
        Input(role, typed, hashlib.sha256(canonical_json(entries)).hexdigest()) for typed, entries in by_source.items()
    )
