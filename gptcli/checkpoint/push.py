"""gptcli checkpoint push: a version sent elsewhere, every byte of it checked there."""

from __future__ import annotations

import shlex

from gptcli.artifacts.locations import resolve_model
from gptcli.artifacts.manifest import MANIFEST, Manifest, content_of, parse_manifest, read_manifest, verify_files
from gptcli.artifacts.project import Project
from gptcli.checkpoint.adapters import base_of
from gptcli.checkpoint.addresses import target_of
from gptcli.checkpoint.bars import OpenBar
from gptcli.checkpoint.changing import PATIENCE, changing, new_line
from gptcli.console import Report, human_bytes
from gptcli.errors import ArtifactError, SpecError

_ELSEWHERE = "a version never changes: tag the next one, or push elsewhere"
_UNREADABLE = "push elsewhere; or delete that file, if what lies beside it is this version"


def push(project: Project, ref: str, to: str, offline: bool, open_bar: OpenBar) -> Report:
    """Send MODEL:VERSION to DEST/MODEL/VERSION (a folder, an fsspec URL), or to a repository on the Hub.

    Files that stand there with the right SHA-256 are not sent again; each that was sent is read back (on the Hub: held
    against the hashes it lists); the manifest goes last, again where the one there is damaged. A push is a line in the
    model's log. Raises SpecError for what names no version or no place, ArtifactError where the version is damaged,
    where another content stands there under its name, or where what arrived is not what was sent.
    """
    model, colon, _ = ref.partition(":")
    if not colon or "/" in ref:
        raise SpecError(
            f"{ref} names no version", "gptcli checkpoint push MODEL:1.2.0 DEST, after gptcli checkpoint tag"
        )
    directory = resolve_model(project, ref).directory
    manifest = read_manifest(directory, "version")
    store = target_of(project, to, model, directory.name, offline)
    with project.lock("models", f"{model}:{directory.name}", PATIENCE):
        before = store.manifest()
        if before is not None:
            _require_same(before, manifest, store.address)
        problems = verify_files(directory, manifest)
        if problems:
            raise ArtifactError(f"{project.relative(directory)} is damaged: {problems[0]}", "push another version")
        with open_bar(f"push {ref}", manifest.total_bytes()) as bar:
            sent = store.send(directory, manifest, bar.advance)
    if before is None or sent:
        with changing(project, model) as registered:
            registered.append(new_line("push", version=directory.name, address=store.address))
    figures = {
        "model": model,
        "version": directory.name,
        "address": store.address,
        "files": len(manifest.files),
        "sent": sent,
        "bytes": manifest.total_bytes(),
        "content_sha256": manifest.content_sha256,
        "base": base_of(directory),
    }
    stands = before is not None and not sent
    rows = [
        ("sent", f"{sent} of {len(manifest.files)} files, {human_bytes(manifest.total_bytes())} in all, each checked"),
        ("fetch it", f"gptcli checkpoint pull {shlex.quote(store.address)}"),
    ]
    if figures["base"]:
        rows.append(("base", f"{figures['base']}: an adapter goes without it; push that too, or merge first"))
    title = f"{model}:{directory.name} " + ("stands there already" if stands else "pushed")
    return Report(title, store.address, figures, rows)


def _require_same(found: bytes, manifest: Manifest, address: str) -> None:
    """ArtifactError where the manifest that stands at the destination is of another content; a damaged one of this
    content is sent again."""
    try:
        there = parse_manifest(found, address)
    except ArtifactError as error:
        raise ArtifactError(f"{address} holds a {MANIFEST} that can't be read", _UNREADABLE) from error
    if manifest.content_sha256 not in (there.content_sha256, content_of(there)):
        raise ArtifactError(f"{address} holds another version of that number", _ELSEWHERE)
