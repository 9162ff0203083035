"""Records of WARC (ISO 28500), WET, WAT and ARC files, told apart and cut out; damaged ones cost only themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from gptcli.records.compression import TRUNCATED
from gptcli.records.payload import MAX_HEADERS, parse_headers
from gptcli.records.window import Window

MAX_RECORD = 64 << 20  # bytes; a longer record is passed over and counted
BAD_LENGTH = "bad_length"  # fault: a record's length isn't where the next record begins
DAMAGED = "damaged"  # fault: bytes that belong to no record

_WARC = re.compile(rb"WARC/\d\.\d{1,2}\r?\n")
_WARC_AHEAD = re.compile(rb"WARC/(?<![^\n]WARC/)\d\.\d{1,2}\r?\n[A-Za-z-]{1,40}[ \t]*:")
_END = re.compile(rb"\r?\n\r?\n")
_BLANKS = re.compile(rb"[\r\n]*")
# URL (spaces happen), address, date, media type, in version 2 five more fields, length.
_ARC = re.compile(
    rb"([A-Za-z][A-Za-z0-9+.-]{0,31}:[^\r\n]{0,8192}) ([0-9A-Fa-f.:-]{1,64}) (\d{8,18}) ([^ \r\n]{1,256})"
    rb"(?: \d{1,3} [^ \r\n]{1,128} [^ \r\n]{1,4096} \d{1,20} [^ \r\n]{1,1024})? ([^ \r\n]{1,24})\r?\n"
)
_ARC_AHEAD = re.compile(rb"(?<=\n)" + _ARC.pattern)
_REACH = 1 << 14  # bytes: the longest beginning of a record


@dataclass(frozen=True, slots=True)
class WebRecord:
    """A record; `block` is what stands behind its header.

    kind: the WARC-Type in lower case ("" where none is told), for ARC "response" or "warcinfo"; "damaged" for bytes
    that are no record, "too_long" for one over MAX_RECORD: neither has a block.
    """

    kind: str
    offset: int  # bytes into the decompressed file
    size: int  # bytes, header included, blank lines behind it not
    headers: dict[str, str] = field(default_factory=dict)  # lower-case names; of ARC the WARC names
    block: bytes = b""
    fault: str = ""  # "", TRUNCATED, BAD_LENGTH or DAMAGED


def web_records(blocks: Iterable[bytes]) -> Iterator[WebRecord]:
    """All records of a decompressed WARC or ARC file, in order; what is no record comes as kind "damaged".

    Every byte but the blank lines between records belongs to one of those given. A record whose length is wrong ends
    where the next one begins. Memory is bounded by MAX_RECORD, twice.
    """
    window = Window(blocks)
    is_arc: bool | None = None
    while window.fill(1):
        blanks = window.match(_BLANKS, _REACH)
        if blanks is not None and window.end(blanks):
            window.skip(window.end(blanks))
            continue
        begins_warc = window.match(_WARC, 32) is not None
        arc = None if begins_warc or is_arc is False else _ARC.match(window.peek(_REACH))
        if is_arc is None and (begins_warc or arc):
            is_arc = not begins_warc
        if begins_warc and not is_arc:
            yield _warc(window)
        elif arc and is_arc:
            yield _arc(window, arc)
        else:
            yield _garbage(window, _ARC_AHEAD if is_arc else _WARC_AHEAD)


def _garbage(window: Window, ahead: re.Pattern[bytes]) -> WebRecord:
    offset = window.offset
    return WebRecord("damaged", offset, window.skip_to(ahead, _REACH), fault=DAMAGED)


def _warc(window: Window) -> WebRecord:
    blank_line = window.search(_END, 0, MAX_HEADERS)
    if blank_line is None:
        return _garbage(window, _WARC_AHEAD)
    head, begin = window.peek(window.position(blank_line)), window.end(blank_line)
    if _WARC_AHEAD.search(head, 8) is not None:  # a header that was cut off runs into the next record's
        return _garbage(window, _WARC_AHEAD)
    headers = parse_headers(head.split(b"\n")[1:])
    length = _length(headers.get("content-length", ""))
    kind = headers.get("warc-type", "").lower()
    return _record(window, kind, headers, begin, length, _WARC_AHEAD)


def _arc(window: Window, found: re.Match[bytes]) -> WebRecord:
    url, address, date, media_type, length = (part.decode("utf-8", "replace") for part in found.groups())
    date = f"{date[:4]}-{date[4:6]}-{date[6:8]}T{date[8:10]}:{date[10:12]}:{date[12:14]}Z" if len(date) >= 14 else date
    headers = {"warc-target-uri": url, "warc-ip-address": address, "warc-date": date, "arc-media-type": media_type}
    kind = "warcinfo" if url.startswith("filedesc:") else "response"
    return _record(window, kind, headers, found.end(), _length(length), _ARC_AHEAD)


def _length(value: str) -> int | None:
    return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else None


def _record(
    window: Window, kind: str, headers: dict[str, str], begin: int, length: int | None, ahead: re.Pattern[bytes]
) -> WebRecord:
    """The record here, whose block begins after `begin` bytes."""
    offset = window.offset
    if length is not None and length > MAX_RECORD:
        window.skip(begin)
        # Over so long a way the length is trusted only as far as no other record begins.
        size = begin + window.skip_to(ahead, _REACH, length)
        return WebRecord("too_long", offset, size, headers, fault="" if size == begin + length else BAD_LENGTH)
    end = begin + (length or 0)
    if length is not None and _is_boundary(window, end, ahead):
        return WebRecord(kind, offset, end, headers, window.take(end)[begin:])
    visible = window.fill(end + 1)
    within = _next_within(window, begin, ahead)
    if within is not None:
        fault, end = BAD_LENGTH, within
    elif window.fill(begin + MAX_RECORD + 1) > begin + MAX_RECORD:
        if length is None:
            return _garbage(window, ahead)
        fault = BAD_LENGTH  # nothing tells better than the length; what follows it is garbage
    else:
        fault = TRUNCATED if length is not None and visible < end else BAD_LENGTH
        end = window.fill(1)
    block = window.take(end)[begin:]
    return WebRecord(kind, offset, begin + len(block), headers, block.rstrip(b"\r\n"), fault)


def _next_within(window: Window, begin: int, ahead: re.Pattern[bytes]) -> int | None:
    """Where the next record begins, in bytes from here; None where none does in the next MAX_RECORD bytes."""
    reach = 4 * _REACH
    while True:
        found = window.search(ahead, begin, begin + reach)
        if found is not None:
            return window.position(found)
        if reach >= MAX_RECORD or window.fill(begin + reach) < begin + reach:
            return None
        reach = min(4 * reach, MAX_RECORD)


def _is_boundary(window: Window, end: int, ahead: re.Pattern[bytes]) -> bool:
    """Whether a record that is `end` bytes long is followed by another one, or ends the file."""
    if window.fill(end) < end:
        return False
    blanks = window.match(_BLANKS, _REACH, end)
    behind = end if blanks is None else window.end(blanks)
    return window.match(ahead, _REACH, behind) is not None or window.fill(behind + 1) <= behind
