"""A version as a repository on the Hugging Face Hub: its files at the top, so that transformers opens the repository by
its name, and the version as a tag."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gptcli.artifacts.durable import fsync_directory
from gptcli.artifacts.manifest import MANIFEST, FileEntry, Manifest
from gptcli.checkpoint.stores import Advance
from gptcli.errors import ArtifactError, GptcliError, SpecError
from gptcli.records.downloads import Downloads
from gptcli.records.web import Resource, download

_LATEST = "main"
_KEPT = (".gitattributes", "README.md")  # the repository's own files, which no version has


class HubStore:
    """One revision of a model repository; `revision` empty: the latest that was pushed.

    A push is one commit, which holds the whole version or is not there, and then the tag. What the Hub lists is held
    against the manifest: a large file's SHA-256, a small one's git hash. HF_TOKEN and HF_ENDPOINT are heeded.
    """

    def __init__(self, repo: str, revision: str) -> None:
        self._repo, self._revision = repo, revision
        self.address = f"hf://{repo}" + (f"@{revision}" if revision else "")
        try:
            import huggingface_hub
        except ImportError as error:
            raise SpecError(f"{self.address} needs the package huggingface_hub", "pip install 'gptcli[hub]'") from error
        self._hub: Any = huggingface_hub
        self._endpoint = os.environ.get("HF_ENDPOINT") or None
        self._api: Any = huggingface_hub.HfApi(endpoint=self._endpoint)
        self._found: str | None = None  # the revision's commit, once it was asked for

    def manifest(self) -> bytes | None:
        commit = self._commit()
        if commit is None or MANIFEST not in self._listing(commit):
            return None
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / MANIFEST
            self._download(MANIFEST, target, "")
            return target.read_bytes()

    def send(self, directory: Path, manifest: Manifest, advance: Advance) -> int:
        names = [*(entry.path for entry in manifest.files), MANIFEST]
        with self._told("be written"):
            self._api.create_repo(self._repo, private=True, exist_ok=True)
            commit = self._commit()
            before = self._listing(commit or _LATEST) if commit or self._has_commits() else {}
            missing = [name for name in names if before.get(name) != self._id_of(directory / name, before.get(name))]
            if commit is None:
                gone = [name for name in before if name not in names and name not in _KEPT]
                commit = self._write(directory, missing, gone)
        advance(manifest.total_bytes())
        self._require_arrived(directory, names, commit)
        if self._commit() is None:
            with self._told("be tagged"):
                self._api.create_tag(self._repo, tag=self._revision, revision=commit)
        return sum(name != MANIFEST for name in missing)

    def _write(self, directory: Path, missing: list[str], gone: list[str]) -> str:
        """One commit on the main branch; its hash."""
        if not missing and not gone:  # a push that was cut short before its tag
            return str(self._api.model_info(self._repo, revision=_LATEST).sha)
        add, delete = self._hub.CommitOperationAdd, self._hub.CommitOperationDelete
        operations = [add(path_in_repo=name, path_or_fileobj=str(directory / name)) for name in missing]
        operations += [delete(path_in_repo=name) for name in gone]
        made = self._api.create_commit(self._repo, operations, commit_message=f"Version {self._revision}")
        return str(made.oid)

    def _require_arrived(self, directory: Path, names: list[str], commit: str) -> None:
        there = self._listing(commit)
        for name in names:
            if there.get(name) != self._id_of(directory / name, there.get(name)):
                raise ArtifactError(
                    f"{self.address}/{name} is not what was sent: its hash there is another",
                    "a version never changes: push the next one, or to another repository",
                )

    def fetch(self, entry: FileEntry, target: Path, advance: Advance) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        parts = target.with_name(f".{target.name}.download") / target.name
        self._download(entry.path, parts, entry.sha256)
        parts.replace(target)
        fsync_directory(target.parent)
        shutil.rmtree(parts.parent)
        advance(entry.bytes)

    def _download(self, name: str, target: Path, sha256: str) -> None:
        commit = self._commit()
        url = str(self._hub.hf_hub_url(self._repo, name, revision=commit))
        if self._endpoint:
            url = f"{self._endpoint}/{self._repo}/{url.partition(f'/{self._repo}/')[2]}"
        token = self._hub.get_token()
        resource = Resource(url, f"{self.address}/{name}", f"Bearer {token}" if token else "", sha256)
        download(resource, target, Downloads(target.parent))

    def _commit(self) -> str | None:
        """The commit of the revision, None where there is no such revision or repository."""
        if self._found is None:
            missing = (self._hub.errors.RepositoryNotFoundError, self._hub.errors.RevisionNotFoundError)
            with self._told("be read"):
                try:
                    self._found = str(self._api.model_info(self._repo, revision=self._revision or _LATEST).sha)
                except missing:
                    return None
        return self._found

    def _has_commits(self) -> bool:
        return any(branch.name == _LATEST for branch in self._api.list_repo_refs(self._repo).branches)

    def _listing(self, revision: str) -> dict[str, str]:
        """The hash of each file: SHA-256 of a large one, git's SHA-1 of another."""
        with self._told("be read"):
            entries = list(self._api.list_repo_tree(self._repo, recursive=True, revision=revision))
        files = [entry for entry in entries if hasattr(entry, "blob_id")]
        return {entry.path: entry.lfs.sha256 if entry.lfs else entry.blob_id for entry in files}

    @staticmethod
    def _id_of(path: Path, like: str | None) -> str:
        """A file's hash of the kind that `like` is of; empty where that is None."""
        if like is None:
            return ""
        if len(like) == len(hashlib.sha1().hexdigest()):
            data = path.read_bytes()
            return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except GptcliError:
            raise
        except Exception as error:  # of whichever HTTP client the installed version is built on
            told = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise SpecError(
                f"{self.address} cannot {what}: {told}", "check the name and the network; HF_TOKEN says who you are"
            ) from error
