"""`hf://datasets/OWNER/NAME[@REVISION][/PATH]`: files of a dataset on the Hugging Face Hub, at one commit.

The first use resolves the revision to a commit and lists its files; both are kept, so that later runs, offline ones
too, read the same. The listing takes huggingface_hub, the files themselves come through `web.download`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from gptcli.artifacts.durable import write_json
from gptcli.errors import SpecError
from gptcli.records.downloads import Downloads, exclusive, read_state
from gptcli.records.patterns import chosen
from gptcli.records.web import Resource, download

_TYPED = re.compile(
    r"hf://datasets/(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>refs/(?:convert/[^/]+|pr/\d+)|[^/]+))?(?:/(?P<path>.*))?",
    re.IGNORECASE,
)
_NO_DATA = ("README.md",)  # about the data; read only where it is typed


def hub_files(typed: str, downloads: Downloads) -> list[tuple[Path, str]]:
    """The files of a dataset that a typed hf:// source means, downloaded, sorted by name; README.md and hidden files
    only where they are typed.

    Raises SpecError for another kind of hf:// source, where no file matches, and as `web.download` does.
    """
    place = _TYPED.fullmatch(typed)
    if place is None:
        raise SpecError(
            f"{typed} names no dataset on the Hub", "hf://datasets/OWNER/NAME[@REVISION][/path, folder or glob]"
        )
    repo, revision, path = place["repo"], unquote(place["revision"] or ""), place["path"] or ""
    prefix = f"hf://datasets/{repo}" + (f"@{place['revision']}" if revision else "")
    folder = downloads.folder(prefix)
    listing = _listing(folder, prefix, repo, revision or "main", downloads)
    sizes: dict[str, str] = listing["files"]
    found = [name for name in chosen(sizes, path) if path or name not in _NO_DATA]
    if not found:
        raise SpecError(
            f"no file of {prefix} matches {path or 'a data file'}",
            f"it holds {', '.join(sorted(sizes)[:5]) or 'no files'}{' …' if len(sizes) > 5 else ''}",
        )
    files, has_come = [], False
    for name in found:
        target = _inside(folder / listing["commit"], name, prefix)
        if not target.is_file():
            has_come = True
            download(_resource(repo, listing["commit"], name, f"{prefix}/{name}", sizes[name]), target, downloads)
        files.append((target, f"{prefix}/{name}"))
    if has_come:
        downloads.tell_kept(folder)
    return files


def _inside(folder: Path, name: str, prefix: str) -> Path:
    """Where a file of the listing is kept; SpecError for a name that would lead elsewhere."""
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise SpecError(f"{prefix} lists a file named {name!r}", "name its files one by one")
    return folder / name


def _listing(folder: Path, prefix: str, repo: str, revision: str, downloads: Downloads) -> dict[str, Any]:
    """{"commit": hash, "files": {path: SHA-256 or ""}}, asked for once."""
    path = folder / "listing.json"
    if not path.is_file():
        downloads.require_network(prefix)
        with exclusive(path, prefix, downloads.tell):
            if not path.is_file():
                listing = _ask(prefix, repo, revision)
                write_json(path, listing)
                downloads.tell(f"{prefix} is at commit {listing['commit'][:12]} with {len(listing['files'])} files")
    found = read_state(path)
    if not isinstance(found.get("files"), dict) or not isinstance(found.get("commit"), str):
        raise SpecError(f"{path} is damaged", f"delete {folder} and run the same command again")
    return found


def _ask(prefix: str, repo: str, revision: str) -> dict[str, Any]:
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.hf_api import RepoFile
    except ImportError as error:
        raise SpecError(f"{prefix} needs the package huggingface_hub", "pip install 'gptcli[hub]'") from error
    try:
        api = HfApi(endpoint=_endpoint())
        commit = str(api.dataset_info(repo, revision=revision).sha)
        entries = list(api.list_repo_tree(repo, repo_type="dataset", recursive=True, revision=commit))
    except Exception as error:  # of whichever HTTP client the installed version is built on
        told = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SpecError(f"cannot list {prefix}: {told}", _way_out(error)) from error
    files = {entry.path: entry.lfs.sha256 if entry.lfs else "" for entry in entries if isinstance(entry, RepoFile)}
    return {"commit": commit, "files": files}


def _way_out(error: Exception) -> str:
    """A hint for what went wrong with the listing: by the server's answer where there was one."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        refused = status in (401, 403, 404)  # a private dataset is answered like one that isn't there
        return "check name and revision; for a private dataset set HF_TOKEN" if refused else "run it again later"
    if isinstance(error, ValueError):  # what is no name of a dataset
        return "check name and revision"
    mirror = f", and HF_ENDPOINT ({_endpoint()})" if _endpoint() else ""
    return f"check the network{mirror}; what was downloaded once is read without it"


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None  # the Hub's own setting for mirrors


def _resource(repo: str, commit: str, path: str, name: str, sha256: str) -> Resource:
    try:
        from huggingface_hub import get_token, hf_hub_url
    except ImportError as error:
        raise SpecError(f"{name} needs the package huggingface_hub", "pip install 'gptcli[hub]'") from error
    url = hf_hub_url(repo, path, repo_type="dataset", revision=commit)
    if _endpoint():
        url = f"{_endpoint()}/datasets/{url.partition('/datasets/')[2]}"
    token = get_token()
    return Resource(url, name, f"Bearer {token}" if token else "", sha256)
