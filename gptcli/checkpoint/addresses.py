"""An address of push and pull as the store it means."""

from __future__ import annotations

import re

from gptcli.artifacts.project import Project
from gptcli.checkpoint.stores import Folder, Store, TreeStore
from gptcli.errors import ArtifactError, SpecError
from gptcli.records.downloads import without_password

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HUB = re.compile(r"hf://(?:models/)?(?P<repo>[^/@\s]+/[^/@\s]+?)(?:@(?P<revision>[^/\s]+))?/?", re.IGNORECASE)
_LOCAL = ("file", "local", "memory")


def target_of(project: Project, typed: str, model: str, version: str, offline: bool) -> Store:
    """Where a version is pushed to: DEST/MODEL/VERSION, or a repository on the Hub.

    Raises SpecError for an address that is none, or whose package is missing, ArtifactError for one that takes the
    network where that is forbidden.
    """
    scheme = _scheme(typed, offline)
    if scheme == "hf":
        repo, revision = _repository(typed)
        if revision:
            raise SpecError(f"{typed} names a revision: the version becomes one", f"push to hf://{repo}")
        return _hub(repo, version)
    return _tree(project, f"{typed.rstrip('/')}/{model}/{version}", scheme)


def source_of(project: Project, typed: str, offline: bool) -> Store:
    """Where a version is pulled from: its own place, or hf://ORG/REPO, @VERSION for another than the latest pushed.

    Raises as `target_of`.
    """
    scheme = _scheme(typed, offline)
    return _hub(*_repository(typed)) if scheme == "hf" else _tree(project, typed.rstrip("/") or "/", scheme)


def _scheme(typed: str, offline: bool) -> str:
    if not typed.strip():
        raise SpecError("no place was named", "a folder (. is this project's), s3://…, another of fsspec's, or hf://")
    match = _SCHEME.match(typed)
    scheme = match[1].lower() if match else ""
    if offline and scheme not in ("", *_LOCAL):
        raise ArtifactError(f"{without_password(typed)} takes the network, which --offline forbids", "leave it out")
    return scheme


def _tree(project: Project, place: str, scheme: str) -> Store:
    if not scheme:
        return TreeStore(Folder(project.path(place), place))
    from gptcli.checkpoint.remote_tree import RemoteTree

    return TreeStore(RemoteTree(place))


def _repository(typed: str) -> tuple[str, str]:
    match = _HUB.fullmatch(typed)
    if match is None:
        raise SpecError(f"{typed} names no model repository on the Hub", "hf://ORG/REPO, or hf://ORG/REPO@VERSION")
    return match["repo"], match["revision"] or ""


def _hub(repo: str, version: str) -> Store:
    from gptcli.checkpoint.hub_store import HubStore

    return HubStore(repo, version)
