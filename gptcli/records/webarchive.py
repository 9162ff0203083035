"""Documents of web archives: WARC, WET and ARC records to text, all other records counted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gptcli.records.gzipmembers import GzipMembers
from gptcli.records.pages import decode, page_meta, read_page
from gptcli.records.payload import body_of, charset, media_type, parse_response
from gptcli.records.pieces import EMPTY, NOT_TEXT, TOO_LONG, ByteStream, Notes, Piece, ReadOptions
from gptcli.records.webrecords import WebRecord, web_records
from gptcli.records.window import tell

# Why a record is no document; beside EMPTY, NOT_TEXT, TOO_LONG and those of pages.
REASONS = {
    kind: f"warc:{kind}"
    for kind in ("warcinfo", "request", "metadata", "revisit", "continuation", "damaged", "unknown")
}
STATUS = "warc:status"  # an HTTP status other than 200
NO_HTTP = "warc:no_http"  # a response that is no HTTP message
CODING = "warc:coding"  # a content coding that can't be decoded

MAX_BODY = 32 << 20  # bytes of a decoded HTTP body

_PAGES = ("text/html", "application/xhtml+xml")
_TEXTS = ("text/plain", "text/markdown", "text/x-markdown")
_TELL_PAGE = (b"<!doctype html", b"<html")


def read_webarchive(
    stream: ByteStream, options: ReadOptions, notes: Notes, member: str | None = None
) -> Iterator[Piece]:
    """One piece for every record of a decompressed WARC, WET, WAT or ARC file, in order.

    HTTP responses with status 200 and resources give their text where they are HTML (see `pages.read_page`) or plain
    text; conversions (WET) theirs as it is. Everything else has a reason: warc:request, warc:status … (`REASONS`).
    `Piece.member` is the target URI, behind `member`! inside an archive; `offset` and `size` are the record's bytes
    in the decompressed file; meta: url, date, content_type, and what the page tells.
    Bad content never raises: truncated and damaged records give what can be read of them, and a fault in `notes`
    under the stream's name; the stream's own fault is told there, too. Raises SpecError as `read_page` does.
    """
    for record in web_records(stream):
        if record.fault:
            tell(notes, stream.name, record.fault)
        yield _piece(record, options, notes, stream.name, member)
    if stream.fault:
        tell(notes, stream.name, stream.fault)


def read_webarchive_file(path: Path, name: str, options: ReadOptions, notes: Notes) -> Iterator[Piece]:
    """`read_webarchive` of a gzip file with a member a record: records behind a damaged one are read, too."""
    yield from read_webarchive(GzipMembers(path, name), options, notes)


def _piece(record: WebRecord, options: ReadOptions, notes: Notes, name: str, member: str | None) -> Piece:
    url = record.headers.get("warc-target-uri", "").strip()
    url = url[1:-1] if url.startswith("<") and url.endswith(">") else url  # wget writes them so
    place = "!".join(part for part in (member, url) if part) or None
    text, meta, reason = "", None, REASONS.get(record.kind, "")
    if record.kind == "too_long":
        reason = TOO_LONG
    elif record.kind == "response":
        text, meta, reason = _response(record, url, options, notes, f"{name}!{url}")
    elif record.kind == "resource" and url.startswith("metadata:"):  # wget's own files
        reason = REASONS["metadata"]
    elif record.kind in ("resource", "conversion"):
        kind = record.headers.get("content-type", "")
        if record.kind == "conversion":
            kind = kind or "text/plain"
        text, meta, reason = _content(record, url, record.block, kind, options)
    else:
        reason = reason or REASONS["unknown"]
    return Piece(text, record.offset, record.size, place, meta=meta, reason=reason)


def _response(
    record: WebRecord, url: str, options: ReadOptions, notes: Notes, name: str
) -> tuple[str, str | None, str]:
    if not record.block:
        return "", None, EMPTY
    message = parse_response(record.block)
    if message is None:
        return "", None, NO_HTTP
    if message.status != 200:
        return "", None, STATUS
    kind = message.headers.get("content-type") or record.headers.get("warc-identified-payload-type", "")
    if kind and media_type(kind) not in _PAGES + _TEXTS:
        return "", None, NOT_TEXT
    body, fault = body_of(message, MAX_BODY)
    if fault:
        tell(notes, name, fault)
    if fault and not body:
        return "", None, CODING
    return _content(record, url, body, kind, options)


def _content(
    record: WebRecord, url: str, body: bytes, content_type: str, options: ReadOptions
) -> tuple[str, str | None, str]:
    """The text of a body of some media type, as `read_page` returns it."""
    kind = media_type(content_type)
    if not kind and body[:1024].lstrip().lower().startswith(_TELL_PAGE):
        kind = "text/html"
    told = {"url": url, "date": record.headers.get("warc-date", ""), "content_type": kind}
    if kind in _PAGES:
        text, found, reason = read_page(body, options, charset(content_type))
        return text, page_meta(told, options.metadata, found), reason
    if kind not in _TEXTS:
        return "", None, NOT_TEXT
    meta = page_meta(told, options.metadata)
    if not body.strip():
        return "", meta, EMPTY
    if len(body) > MAX_BODY:
        return "", meta, TOO_LONG
    # A conversion is UTF-8 by its standard; others say what they are, or it is found out.
    text = decode(body, options.encoding, "utf-8" if record.kind == "conversion" else charset(content_type))
    if options.max_chars and len(text) > options.max_chars:
        return "", meta, TOO_LONG
    return text, meta, ""
