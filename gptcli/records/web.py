"""One file from a web server: resumed where the server allows it, tried again after passing trouble.

Range requests and validators as in RFC 9110, sections 13 and 14.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gptcli import __version__
from gptcli.artifacts.durable import disk_errors, write_json
from gptcli.console import human_bytes
from gptcli.errors import ArtifactError, ResourceError, SpecError
from gptcli.records.downloads import Downloads, Meter, beside, exclusive, finish, is_kept, read_state

BLOCK = 1 << 18  # the most bytes taken from the connection at once
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before the second, third … attempt in a row without progress
LONGEST_WAIT = 60.0  # seconds, however long a server's Retry-After asks for
TIMEOUT = 60.0  # seconds in which nothing came

_CREDENTIALS = "check that you may read it: https://user:password@host/…, or HF_TOKEN for a dataset on the Hub"
_PROGRESS = 1 << 20  # bytes more than ever before after which failures are counted from the start
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # statuses that another attempt may not meet


@dataclass(frozen=True)
class Resource:
    """A file on a web server. `name` is shown; `url` has no password, which went to `authorization`."""

    url: str
    name: str
    authorization: str = ""  # the header's value; sent to the URL's own origin only
    sha256: str = ""  # hex the bytes must have; empty: whatever they have


def download(resource: Resource, target: Path, downloads: Downloads) -> Path:
    """The file at `target`, downloaded unless it stands there already.

    Raises SpecError naming the resource when the server refuses it, when it can't be reached after `WAITS`, or when
    it is missing and the network is forbidden; ArtifactError when its SHA-256 is not the one asked for; ResourceError
    when the disk is full.
    """
    if is_kept(target, resource.sha256):
        return target
    if downloads.offline and target.is_file():
        raise ArtifactError(
            f"{target}, downloaded from {resource.name}, does not have the SHA-256 {resource.sha256}",
            "run the same command without --offline to download it again",
        )
    downloads.require_network(resource.name)
    with exclusive(target, resource.name, downloads.tell):
        if not is_kept(target, resource.sha256):  # another process may have ended it meanwhile
            _Transfer(resource, target, downloads.tell).run()
    return target


class _PassingError(Exception):
    """What went wrong with one attempt, and seconds to wait that the server asked for."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to other web addresses; credentials go on only within their own origin."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise urllib.error.HTTPError(req.full_url, code, "redirect away from the web", headers, fp)
        made = super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
        known = req.unredirected_hdrs.get("Authorization")
        if made is not None and known and urlsplit(newurl)[:2] == urlsplit(req.full_url)[:2]:
            made.add_unredirected_header("Authorization", known)
        return made


class _Transfer:
    """The attempts at one file."""

    def __init__(self, resource: Resource, target: Path, tell: Callable[[str], None]) -> None:
        self._resource = resource
        self._target = target
        self._part = beside(target, "part")
        self._state_path = beside(target, "json")
        self._tell = tell
        self._meter = Meter(resource.name, target, tell)
        self._opener = urllib.request.build_opener(_Redirects())

    def run(self) -> None:
        highest, failures = self._part_bytes(), 0
        while True:
            try:
                self._attempt()
                break
            except _PassingError as trouble:
                got = self._part_bytes()
                failures = 1 if got >= highest + _PROGRESS else failures + 1
                highest = max(highest, got)
                if failures > len(WAITS):
                    raise SpecError(
                        f"cannot download {self._resource.name}: {trouble}",
                        "check the address and the network; the same command goes on from what has come",
                    ) from trouble
                wait = max(WAITS[failures - 1], min(trouble.wait, LONGEST_WAIT))
                self._tell(f"{self._resource.name}: {trouble}; trying again in {wait:g} s")
                time.sleep(wait)
        finish(self._target, self._resource.name, read_state(self._state_path), self._resource.sha256)
        self._meter.end()

    def _attempt(self) -> None:
        """Raises _PassingError where another attempt may do better."""
        state, begin = read_state(self._state_path), self._part_bytes()
        if begin and state.get("bytes") == begin:
            return  # an earlier process was stopped when all had come
        validator = state.get("etag") or state.get("last_modified") or ""
        if not validator:  # nothing tells whether the server's file is still the same
            begin = 0
        headers = {"User-Agent": f"gptcli/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}
        if begin:
            headers |= {"Range": f"bytes={begin}-", "If-Range": validator}
        with self._open(headers) as response:
            if response.status == 206:
                begin, total = self._go_on(response.headers, begin, state), state.get("bytes")
            elif response.status == 200:
                begin, total = 0, self._begin(response.headers)
            else:
                raise self._refused(response.status, response.reason)
            self._require_space(begin, total)
            self._meter.start(begin, total)
            done = self._receive(response, begin, total)
        if total is not None and done != total:
            raise _PassingError(f"the connection ended after {human_bytes(done)} of {human_bytes(total)}")

    def _open(self, headers: dict[str, str]) -> Any:
        request = urllib.request.Request(self._resource.url, headers=headers)
        if self._resource.authorization:
            request.add_unredirected_header("Authorization", self._resource.authorization)
        try:
            return self._opener.open(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 416:
                    self._part.unlink(missing_ok=True)
                    raise _PassingError("the server has not the bytes that are missing") from error
                if error.code in _PASSING:
                    wait = error.headers.get("Retry-After") or ""
                    told = f"the server answers {error.code} {error.reason}"
                    raise _PassingError(told, float(wait) if wait.isdecimal() else 0.0) from error
                raise self._refused(error.code, error.reason) from error
        except urllib.error.URLError as error:
            self._require_mendable(error.reason)
            raise _PassingError(f"the server cannot be reached ({error.reason})") from error
        except (http.client.HTTPException, OSError) as error:
            raise _PassingError(f"the connection broke ({error or type(error).__name__})") from error

    def _refused(self, status: int, reason: str) -> SpecError:
        hint = "check the address"
        if status in (401, 403):
            hint = _CREDENTIALS
        return SpecError(f"cannot download {self._resource.name}: the server answers {status} {reason}", hint)

    def _require_mendable(self, reason: object) -> None:
        """SpecError for what no further attempt can mend: a host of no such name, a certificate nobody trusts."""
        unknown = isinstance(reason, socket.gaierror) and reason.errno != socket.EAI_AGAIN
        if unknown or isinstance(reason, ssl.SSLCertVerificationError):
            raise SpecError(f"cannot download {self._resource.name}: {reason}", "check the address and the network")

    def _go_on(self, headers: Message, begin: int, state: dict[str, Any]) -> int:
        """The server sends the rest: of the same file, from the byte asked for; else all begins again."""
        place = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", (headers.get("Content-Range") or "").strip())
        known = state.get("bytes")
        is_same = place is not None and int(place[1]) == begin > 0
        is_same = is_same and (place is None or known is None or place[2] in ("*", str(known)))
        if not is_same or (state.get("etag") and headers.get("ETag") not in (None, state["etag"])):
            self._part.unlink(missing_ok=True)
            raise _PassingError("the file on the server changed meanwhile")
        return begin

    def _begin(self, headers: Message) -> int | None:
        """The server sends all from the start; the bytes there will be, where it says so."""
        etag, length = headers.get("ETag") or "", headers.get("Content-Length") or ""
        is_whole = length.isdecimal() and not headers.get("Transfer-Encoding")
        state = {
            "url": self._resource.name,
            "etag": "" if etag.startswith("W/") else etag,  # a weak one does not vouch for every byte
            "last_modified": headers.get("Last-Modified") or "",
            "bytes": int(length) if is_whole else None,
        }
        with disk_errors(self._part):
            self._part.unlink(missing_ok=True)  # first: old bytes must never stand beside the new validator
        write_json(self._state_path, state)
        return int(length) if is_whole else None

    def _require_space(self, begin: int, total: int | None) -> None:
        missing, free = (total or 0) - begin, shutil.disk_usage(self._part.parent).free
        if missing > free:
            raise ResourceError(
                f"{self._resource.name} needs {human_bytes(missing)} more and {self._part.parent} has "
                f"{human_bytes(free)} free",
                "free some space and run the same command again",
            )

    def _receive(self, response: Any, begin: int, total: int | None) -> int:
        """Bytes in the part once the server has sent what it sends."""
        done = begin
        with disk_errors(self._part), self._part.open("ab") as file:
            try:
                while done != total and (block := _read(response)):
                    file.write(block)
                    done += len(block)
                    self._meter.advance(len(block), done, total)
            finally:
                file.flush()
                os.fsync(file.fileno())
        return done

    def _part_bytes(self) -> int:
        return self._part.stat().st_size if self._part.is_file() else 0


def _read(response: Any) -> bytes:
    try:
        block: bytes = response.read1(BLOCK)
    except (http.client.HTTPException, OSError, ValueError) as error:  # ValueError: a chunk's length that is none
        raise _PassingError(f"the connection broke ({error or type(error).__name__})") from error
    return block
