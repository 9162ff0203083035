"""The manifest of a version that lies elsewhere, held against itself before anything is fetched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import PurePosixPath

from gptcli.artifacts.durable import PENDING, canonical_json
from gptcli.artifacts.manifest import MANIFEST, Manifest, manifest_problem, parse_manifest, sum_matches
from gptcli.checkpoint.stores import Store
from gptcli.errors import ArtifactError

_LONGEST_PART = 200  # bytes of UTF-8 of a file's name: file systems allow 255, and unfinished ones have longer names


def read_incoming(store: Store) -> Manifest:
    """The manifest of the version that stands there.

    Raises ArtifactError where there is none, where it can't be read, does not match its own checksums, or lists what
    names no file of its own.
    """
    data = store.manifest()
    if data is None:
        raise ArtifactError(
            f"no version stands at {store.address}: it has no {MANIFEST}",
            "name the version's own place, DEST/MODEL/VERSION; gptcli checkpoint import takes other models",
        )
    try:
        manifest = parse_manifest(data, store.address, "version")
    except ArtifactError as error:
        raise ArtifactError(error.message, "push that version again") from error
    problem = manifest_problem(manifest, sum_matches(data)) or _number_problem(manifest)
    if problem is not None:
        raise ArtifactError(f"{store.address}/{MANIFEST}: {problem}", "push that version again")
    names = [entry.path for entry in manifest.files]
    known = {MANIFEST, *names}
    for name, count in Counter(names).items():
        if not _names_a_file(name, known) or count > 1:
            raise ArtifactError(f"{store.address}/{MANIFEST} lists {name!r}, which is no name of a file in it")
    return manifest


def _number_problem(manifest: Manifest) -> str | None:
    try:
        canonical_json([manifest.stats, manifest.records])
    except ValueError:
        return "it has numbers that are none"
    return None


def _names_a_file(name: str, known: Collection[str]) -> bool:
    """Whether a name leads to a file inside a version, its own and no other's: not through another file, and not to
    where one is written before it has its name."""
    path = PurePosixPath(name)
    is_inside = bool(path.parts) and not path.is_absolute() and ".." not in path.parts and str(path) == name
    if not is_inside or path.parts[0] == MANIFEST or not name.isprintable():
        return False
    if any(len(part.encode()) > _LONGEST_PART for part in path.parts):
        return False
    is_unfinished = name.endswith(PENDING) and name.removesuffix(PENDING) in known
    return not is_unfinished and not any(str(parent) in known for parent in path.parents)
