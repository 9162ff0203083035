"""HTML pages to text: the charset found as browsers find it, boilerplate left out, input bounded."""

from __future__ import annotations

import codecs
import json
import logging
import re
from collections.abc import Callable
from typing import Any

from gptcli.errors import SpecError
from gptcli.records.pieces import EMPTY, TOO_LONG, ReadOptions

EXTRACTORS = ("resiliparse", "trafilatura", "none")
MAX_PAGE = 20_000_000  # bytes of HTML; the largest page of Common Crawl is cut at 1 MiB (5 MiB since 2025)

# Why a page has no text; `Piece.reason`.
PAGE_TOO_LONG = "bad_page:too_long"  # more than MAX_PAGE bytes
TOO_MANY_TAGS = "bad_page:too_many_tags"
TOO_DEEP = "bad_page:too_deep"
UNREADABLE = "bad_page:unreadable"  # the extractor gave up

_MOST_TAGS = {"resiliparse": 500_000, "trafilatura": 100_000}  # about 300 bytes of memory a tag
_MOST_ATTRIBUTES = 4096  # of one tag: the parser compares each with all before it
_MOST_STEPS = 20_000_000  # tags times the depth they can stand in: the extractors walk up from each
_MOST_OPEN = 60_000  # formatting tags left open: the time they take grows with their square
_LONG_TAG = 1 << 15  # characters; below it no tag has too many attributes
_MOST_META = 1000  # characters of a title or a URL
_META_CHARSET_IN = 1024  # bytes: where HTML allows the declaration

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_META_CHARSET = re.compile(rb"""<meta\b[^>]*?\bcharset\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
_XML_ENCODING = re.compile(rb"""<\?xml\b[^>]*?\bencoding\s*=\s*["']([\w.:-]+)""", re.IGNORECASE)
_FORMATS = re.compile(r"<(/?)(?:a|b|big|code|em|font|i|nobr|s|small|strike|strong|tt|u)(?=[\s/>])", re.IGNORECASE)
_NESTING = re.compile(r"<(/?)(?:div|article|ul|ol|dl|dir|menu)(?=[\s/>])", re.IGNORECASE)
_TAG = re.compile(r"""<[a-zA-Z](?:[^>=]++|=\s*+(?:"[^"]*+"|'[^']*+')?+)*+""")  # a quote counts behind = only
_VALUE = re.compile(r"""=\s*+(?:"[^"]*+"|'[^']*+'|[^\s>]++)""")
_BETWEEN = re.compile(r"[\s/]+")


def read_page(data: bytes, options: ReadOptions, charset: str = "") -> tuple[str, str | None, str]:
    """The text of an HTML page, its metadata as compact JSON, and why there is no text ("" where there is).

    charset: what HTTP said. Paragraphs are separated by a blank line, list items keep their bullets; alternative
    texts, link targets and forms are left out. `options.extractor`: "resiliparse" takes the main content, or all
    visible text where it finds none; "trafilatura" without comments; "none" gives the page's source.
    Metadata: title, lang, and canonical (a URL), those there are. The reason is EMPTY, TOO_LONG (over `max_chars`) or
    bad_page:…; content never raises. Raises SpecError for an unknown extractor, or one that is not installed.
    """
    extract = _extractor(options.extractor)
    if len(data) > MAX_PAGE:
        return "", None, PAGE_TOO_LONG
    html = decode(data, options.encoding, charset, declared=True)
    if options.extractor != "none" and (reason := _excess(html, options.extractor)):
        return "", None, reason
    try:
        text, found = extract(html)
    except Exception:  # whatever a parser stumbles over: the page is counted
        return "", None, UNREADABLE
    meta = page_meta(found, options.metadata)
    if not text.strip():
        return "", meta, EMPTY
    if options.max_chars and len(text) > options.max_chars:
        return "", meta, TOO_LONG
    return text, meta, ""


def page_meta(found: dict[str, str], columns: tuple[str, ...] | None, more: str | None = None) -> str | None:
    """Compact JSON of what was found and is wanted (None: all), then of `more`; None where that is nothing."""
    kept: dict[str, Any] = {key: value for key, value in found.items() if value and (columns is None or key in columns)}
    kept |= json.loads(more) if more else {}
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":")) if kept else None


def decode(data: bytes, encoding: str = "auto", charset: str = "", declared: bool = False) -> str:
    """Bytes from the web as text, U+FFFD for what is invalid.

    In this order: byte order mark; `encoding` where it isn't "auto"; UTF-8 where the bytes are valid UTF-8 beyond
    ASCII (no other charset looks like it by chance); HTTP's `charset`; with `declared` what the page's head declares;
    detection. Names of charsets mean what the WHATWG encoding standard says (latin-1 is windows-1252).
    """
    for mark, codec in _BOMS:
        if data.startswith(mark):
            return data[len(mark) :].decode(codec, "replace")
    if encoding != "auto":
        return data.decode(encoding, "replace")
    if not data.isascii() or (b"\0" not in data and b"\x1b" not in data):  # UTF-16 and ISO-2022 can be ASCII bytes
        try:
            return data.decode()
        except UnicodeDecodeError:
            pass
    codec = _codec(charset) or (_declared(data) if declared else "") or _detected(data)
    return data.decode(codec, "replace")


def _codec(label: str) -> str:
    """Python's name of a charset's label; "" where the web has no such charset."""
    from resiliparse.parse.encoding import map_encoding_to_html5

    label = label.strip().strip("\"'").lower()
    return map_encoding_to_html5(label, fallback_utf8=False) or "" if label else ""


def _declared(data: bytes) -> str:
    head = data[:_META_CHARSET_IN]
    found = _META_CHARSET.search(head) or _XML_ENCODING.match(head.lstrip())
    codec = _codec(found[1].decode("ascii", "replace")) if found else ""
    return "utf-8" if codec.startswith("utf-16") else codec  # a head that could be read as ASCII isn't UTF-16


def _detected(data: bytes) -> str:
    from resiliparse.parse.encoding import detect_encoding

    if data.startswith((b"<\0", b"\0<")):  # as XML tells UTF-16 without a mark
        return "utf-16-le" if data[1] == 0 else "utf-16-be"
    sample = data[: 1 << 18]
    try:
        sample[: len(sample) - 3].decode()  # a character may be cut at the end
        return "utf-8"
    except UnicodeDecodeError as error:
        if error.start >= len(sample) - 6:
            return "utf-8"
    return detect_encoding(data) or "cp1252"


def _excess(html: str, extractor: str) -> str:
    """Why a page would take an extractor more time or memory than any real page: both grow with tags times depth."""
    tags = html.count("<") - html.count("</")
    if tags > _MOST_TAGS[extractor]:
        return TOO_MANY_TAGS
    if len(html) > _LONG_TAG and _most_attributes(html) > _MOST_ATTRIBUTES:
        return TOO_MANY_TAGS
    if tags * tags > _MOST_STEPS and tags * _depth(html) > _MOST_STEPS:
        return TOO_DEEP
    if tags > _MOST_OPEN and _open_formats(html) > _MOST_OPEN:
        return TOO_DEEP
    return ""


def _open_formats(html: str) -> int:
    """Formatting tags that are never closed: a parser opens them again, all of them, in every block (HTML 13.2.4.3)."""
    return sum(-1 if closing else 1 for closing in _FORMATS.findall(html))


def _most_attributes(html: str) -> int:
    """Of the tags that are long enough to have too many."""
    long_tags = (tag[0] for tag in _TAG.finditer(html) if tag.end() - tag.start() > _LONG_TAG)
    return max((len(_BETWEEN.split(_VALUE.sub(" ", tag))) for tag in long_tags), default=0)


def _depth(html: str) -> int:
    """How deep blocks and lists are nested, at most."""
    depth = most = 0
    for closing in _NESTING.findall(html):
        depth = max(0, depth - 1) if closing else depth + 1
        most = max(most, depth)
    return most


def _extractor(name: str) -> Callable[[str], tuple[str, dict[str, str]]]:
    if name == "resiliparse":
        return _resiliparse
    if name == "trafilatura":
        try:
            import trafilatura  # noqa: F401
        except ImportError as error:
            raise SpecError(
                "extractor trafilatura is not installed", "install it: pip install 'gptcli[trafilatura]'"
            ) from error
        logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # a page it can't read is counted, not printed
        return _trafilatura
    if name == "none":
        return lambda html: (html, {})
    raise SpecError(f"unknown extractor {name}", f"choose one of {', '.join(EXTRACTORS)}")


def _resiliparse(html: str) -> tuple[str, dict[str, str]]:
    from resiliparse.extract.html2text import extract_plain_text

    tree = _tree(html)
    text: str = extract_plain_text(tree, main_content=True, alt_texts=False)
    return text if text.strip() else extract_plain_text(tree, main_content=False, alt_texts=False), _found(tree)


def _trafilatura(html: str) -> tuple[str, dict[str, str]]:
    import trafilatura

    # Its own metadata halves its speed, so that comes from the faster parser.
    return trafilatura.extract(html, include_comments=False) or "", _found(_tree(html))


def _tree(html: str) -> Any:
    from resiliparse.parse.html import HTMLTree

    return HTMLTree.parse(html)


def _found(tree: Any) -> dict[str, str]:
    """Title, language and canonical URL of a parsed page, "" for what it doesn't tell."""
    head = tree.head
    link = head.query_selector('link[rel~="canonical"]') if head is not None else None
    root = head.parent if head is not None else None
    canonical = _line(link.getattr("href") if link is not None else None)
    return {
        "title": _line(tree.title),
        "lang": _line(root.getattr("lang") if root is not None else None),
        "canonical": canonical if canonical.lower().startswith(("http://", "https://")) else "",
    }


def _line(value: str | None) -> str:
    return " ".join((value or "")[: 4 * _MOST_META].split())[:_MOST_META]
