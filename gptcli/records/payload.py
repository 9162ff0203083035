"""HTTP messages as web archives hold them: status, headers, and the body without its transfer and content codings."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from gptcli.records.compression import CORRUPT, TRUNCATED

MAX_HEADERS = 1 << 16  # bytes of a header block
NO_DECODER = "no_decoder"  # fault: a content coding this machine has no decoder for

_STATUS = re.compile(rb"HTTP/\d(?:\.\d)?[ \t]+(\d{3})\b")
_END = re.compile(rb"\r?\n\r?\n")
_CHARSET = re.compile(r"""\bcharset\s*=\s*["']?([^\s;"']+)""", re.IGNORECASE)
_CHUNK = re.compile(rb"[ \t]*([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]{0,1024})?\r?\n")
_FEED = 1 << 12  # compressed bytes fed at once: what one step can grow to is bounded


@dataclass(frozen=True, slots=True)
class Message:
    """An HTTP response: `body` as it stands, still coded. Header names are lower-case; of several, the first."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def media_type(self) -> str:
        """Such as "text/html"; "" where none is told."""
        return media_type(self.headers.get("content-type", ""))

    @property
    def charset(self) -> str:
        return charset(self.headers.get("content-type", ""))


def media_type(content_type: str) -> str:
    """ "text/html" of "Text/HTML; charset=utf-8"."""
    return content_type.split(";", 1)[0].strip().lower()


def charset(content_type: str) -> str:
    """The charset a content type names, or ""."""
    found = _CHARSET.search(content_type)
    return found[1] if found else ""


def parse_response(block: bytes) -> Message | None:
    """The HTTP response of a record; None where it doesn't begin as one. Headers that don't end have no body."""
    status = _STATUS.match(block)
    if status is None:
        return None
    end = _END.search(block, 0, MAX_HEADERS)
    head, body = (block[: end.start()], block[end.end() :]) if end else (block[:MAX_HEADERS], b"")
    return Message(int(status[1]), parse_headers(head.split(b"\n")[1:]), body)


def parse_headers(lines: list[bytes]) -> dict[str, str]:
    """Header lines, lower-case names; a line that begins with a blank goes on with the one before (RFC 9112)."""
    headers: dict[str, str] = {}
    name = ""
    for line in lines:
        text = line.decode("utf-8", "replace")
        if text[:1] in (" ", "\t"):
            if name:
                headers[name] += " " + text.strip()
            continue
        name, _, value = text.partition(":")
        name = name.strip().lower() if value else ""
        if name in headers:
            name = ""
        if name:
            headers[name] = value.strip()
    return headers


def body_of(message: Message, limit: int) -> tuple[bytes, str]:
    """The body decoded, at most `limit` + 1 bytes of it, and a fault: "", TRUNCATED, CORRUPT or NO_DECODER.

    A body that isn't coded as its headers say is taken as it stands: archives often store what the browser saw.
    """
    body, fault = message.body, ""
    if "chunked" in message.headers.get("transfer-encoding", "").lower():
        body, fault = _dechunk(body)
    codings = message.headers.get("content-encoding", "").lower().replace(" ", "").split(",")
    for coding in reversed(codings[-4:]):
        if coding in ("", "identity"):
            continue
        decoder = _decoder(coding, body)
        if decoder is None:
            return b"", NO_DECODER
        body, wrong = decoder(body, limit)
        fault = wrong or fault
    return body[: limit + 1], fault


def _dechunk(data: bytes) -> tuple[bytes, str]:
    chunks: list[bytes] = []
    at = 0
    while (head := _CHUNK.match(data, at)) is not None:
        size = int(head[1], 16)
        at = head.end()
        if size == 0:
            return b"".join(chunks), ""
        chunks.append(data[at : at + size])
        if at + size > len(data):
            return b"".join(chunks), TRUNCATED
        at += size
        at += 2 if data.startswith(b"\r\n", at) else int(data.startswith(b"\n", at))
    if not chunks:
        return data, ""  # not chunked after all
    if at >= len(data):
        return b"".join(chunks), TRUNCATED
    return b"".join([*chunks, data[at:]]), CORRUPT


_Decoder = Callable[[bytes, int], tuple[bytes, str]]


def _decoder(coding: str, body: bytes) -> _Decoder | None:
    """What decodes a content coding; None where the machine has nothing that does."""
    if coding in ("gzip", "x-gzip"):
        return _gunzip if body.startswith(b"\x1f\x8b") else _as_it_stands
    if coding == "deflate":  # zlib by the standard, bare by custom
        wbits = 15 if body[:1] and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0 else -15
        return lambda data, limit: _inflate(data, limit, wbits)
    if coding == "br":
        return _unbrotli
    if coding == "zstd":
        return _unzstd if body.startswith(b"\x28\xb5\x2f\xfd") else _as_it_stands
    return None


def _as_it_stands(data: bytes, limit: int) -> tuple[bytes, str]:
    return data, ""


def _gunzip(data: bytes, limit: int) -> tuple[bytes, str]:
    return _inflate(data, limit, 31)


def _inflate(data: bytes, limit: int, wbits: int) -> tuple[bytes, str]:
    stream = zlib.decompressobj(wbits)
    out, fault = b"", TRUNCATED
    try:
        out = stream.decompress(data, limit + 1)
    except zlib.error:
        out, fault = _what_inflates(data, limit, wbits), CORRUPT
        if not out:
            return data, ""  # not coded after all
    return out, "" if stream.eof or len(out) > limit else fault


def _what_inflates(data: bytes, limit: int, wbits: int) -> bytes:
    """The bytes before the damage: fed a few at a time, so that the last good ones come out."""
    stream, parts, size = zlib.decompressobj(wbits), [], 0
    try:
        for at in range(0, len(data), 64):
            parts.append(stream.decompress(data[at : at + 64], limit + 1 - size))
            size += len(parts[-1])
            if size > limit:
                break
    except zlib.error:
        pass
    return b"".join(parts)


def _unbrotli(data: bytes, limit: int) -> tuple[bytes, str]:
    try:
        brotli: Any = import_module("brotli")
    except ImportError:
        return b"", NO_DECODER
    return _fed(data, limit, brotli.Decompressor(), "process", lambda stream: bool(stream.is_finished()), brotli.error)


def _unzstd(data: bytes, limit: int) -> tuple[bytes, str]:
    import zstandard

    stream = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
    return _fed(data, limit, stream, "decompress", lambda stream: bool(stream.eof), zstandard.ZstdError)


def _fed(
    data: bytes, limit: int, stream: Any, step: str, ended: Callable[[Any], bool], error: type[Exception]
) -> tuple[bytes, str]:
    parts: list[bytes] = []
    size = 0
    try:
        for at in range(0, len(data), _FEED):
            parts.append(getattr(stream, step)(data[at : at + _FEED]))
            size += len(parts[-1])
            if size > limit or ended(stream):
                return b"".join(parts), ""
    except error:
        return (b"".join(parts), CORRUPT) if size else (data, "")
    return b"".join(parts), TRUNCATED
