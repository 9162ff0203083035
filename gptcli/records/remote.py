"""Sources that are no local files: `-`, web addresses, hf:// datasets, what fsspec opens; each is made local."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from gptcli.errors import SpecError
from gptcli.records.buckets import bucket_files
from gptcli.records.downloads import STDIN, Downloads, without_password
from gptcli.records.hub import hub_files
from gptcli.records.standard_input import spooled_input
from gptcli.records.web import Resource, download

_CHECKSUM = re.compile(r"sha256=([0-9a-fA-F]{64})")
_LONGEST_NAME = 150  # bytes of a file's name in the cache; the files beside it add to theirs

Found = list[tuple[Path, str]]  # a file and its name as the user would type it


def remote_files(typed: str, downloads: Downloads) -> Found:
    """The files behind such a source, in `downloads.cache`, sorted by name.

    Raises SpecError where there is none, where it can't be had, or where the package that reads it isn't installed;
    ArtifactError for a wrong checksum; ResourceError where the disk is full.
    """
    if typed == STDIN:
        return [(spooled_input(downloads), STDIN)]
    scheme = typed.partition("://")[0].lower()
    return _KINDS.get(scheme, bucket_files)(typed, downloads)


def _web_files(typed: str, downloads: Downloads) -> Found:
    resource = _resource(typed)
    target = downloads.folder(resource.name) / _file_name(resource.url)
    is_new = not target.is_file()
    download(resource, target, downloads)
    if is_new:
        downloads.tell_kept(target.parent)
    return [(target, resource.name)]


def _resource(typed: str) -> Resource:
    """A web address in its parts: URL, name without credentials, credentials, checksum.

    Raises SpecError for an address that is none and for a fragment that is no checksum.
    """
    try:
        parts = urlsplit(typed)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        scheme = typed.partition(":")[0]  # the rest may hold a password
        raise SpecError(f"a source that begins with {scheme}:// is no web address", "check host and port") from error
    if not host:
        raise SpecError(f"{without_password(typed)} names no host", "a web address is https://HOST/PATH")
    checksum = _CHECKSUM.fullmatch(parts.fragment)
    if parts.fragment.startswith("sha256=") and checksum is None:
        raise SpecError(f"{without_password(typed)} has no whole SHA-256", "after #sha256= stand 64 hex digits")
    userinfo = parts.netloc.rpartition("@")[0]
    netloc = parts.netloc.rpartition("@")[2]
    authorization = ""
    if userinfo:
        authorization = f"Basic {base64.b64encode(unquote(userinfo).encode()).decode()}"
    bare = parts._replace(netloc=netloc, fragment="" if checksum else parts.fragment)
    url = bare._replace(
        scheme=parts.scheme.lower(),
        netloc=_ascii_host(host, port),
        path=quote(parts.path or "/", safe="/%:=&~+!$,;'@()*"),
        query=quote(parts.query, safe="/%:=&?~+!$,;'@()*[]"),
        fragment="",
    )
    return Resource(url.geturl(), bare.geturl(), authorization, checksum[1].lower() if checksum else "")


def _ascii_host(host: str, port: int | None) -> str:
    """Host and port as a request needs them; SpecError for a host that can't be a name."""
    try:
        name = f"[{host}]" if ":" in host else host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise SpecError(f"{host} is no host name", "check the address") from error
    return name if port is None else f"{name}:{port}"


def _file_name(url: str) -> str:
    """The last part of a URL's path, fit to be a file's name: readers tell forms of text by its ending."""
    name = unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2]
    name = re.sub(r"[\x00-\x1f\x7f/]", "_", name).lstrip(".") or "index"
    return os.fsencode(name)[-_LONGEST_NAME:].decode("utf-8", "ignore")


_KINDS: dict[str, Callable[[str, Downloads], Found]] = {"http": _web_files, "https": _web_files, "hf": hub_files}
