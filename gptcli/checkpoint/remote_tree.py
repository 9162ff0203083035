"""A tree of files that fsspec opens: s3://, gs://, sftp://, file://, memory:// …"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gptcli.artifacts.durable import PENDING
from gptcli.checkpoint.stores import BLOCK
from gptcli.errors import GptcliError, SpecError
from gptcli.records.downloads import without_password

# Stores in which a file appears when its last byte has come: one under another name first would be copied there.
_WHOLE_OR_NOT = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "hf"})


class RemoteTree:
    """The files below a URL; what fsspec raises becomes a SpecError without passwords."""

    def __init__(self, url: str) -> None:
        self.address = without_password(url)
        try:
            import fsspec
        except ImportError as error:
            raise SpecError(f"{self.address} needs the package fsspec", "pip install 'gptcli[fsspec]'") from error
        scheme = url.partition("://")[0].lower()
        if scheme not in fsspec.available_protocols():
            raise SpecError(
                f"{self.address} is no address that can be opened", "a folder, s3://…, another of fsspec's, or hf://"
            )
        with self._told():
            self._system, self._root = fsspec.core.url_to_fs(url)
        self._is_direct = scheme in _WHOLE_OR_NOT

    def size(self, name: str) -> int | None:
        with self._told():
            self._system.invalidate_cache()
            try:
                found = self._system.info(self._path(name))
            except FileNotFoundError:
                return None
            return int(found["size"]) if found["type"] == "file" else None

    def put(self, source: Path, name: str) -> None:
        path = self._path(name)
        with self._told():
            self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
            if self._is_direct:
                self._system.put_file(str(source), path)
                return
            self._system.put_file(str(source), path + PENDING)
            if self._system.exists(path):  # not all systems rename over what stands
                self._system.rm_file(path)
            self._system.mv(path + PENDING, path)

    def blocks(self, name: str) -> Iterator[bytes]:
        with self._told(), self._system.open(self._path(name), "rb") as file:
            while block := file.read(BLOCK):
                yield block

    def _path(self, name: str) -> str:
        return f"{str(self._root).rstrip('/')}/{name}"

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (GptcliError, FileNotFoundError, GeneratorExit):
            raise
        except ImportError as error:
            raise SpecError(f"{self.address} cannot be opened yet: {error}", "install what it names") from error
        except Exception as error:  # of whichever package the scheme's file system is
            told = without_password((str(error).strip().splitlines() or [type(error).__name__])[0])
            raise SpecError(
                f"{self.address} cannot be reached: {told}", "check the address, and that this user may write it"
            ) from error
