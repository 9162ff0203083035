"""Spans of e-mail addresses, and how all finders of personal data go through a text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

Span = tuple[int, int]  # characters: start, end


def spans(text: str, pattern: re.Pattern[str], judge: Callable[[re.Match[str]], Span | None]) -> Iterator[Span]:
    """What `judge` accepts of the pattern's matches; after a refusal the search goes on behind the match's group 1.

    A pattern has bounded length and a group 1 that is never empty, so the time is linear in the text.
    """
    place = 0
    while match := pattern.search(text, place):
        found = judge(match)
        if found:
            yield found
        place = found[1] if found else match.end(1)


def apart(found: list[Span]) -> Iterator[Span]:
    """Spans in order, without those that begin inside one before them."""
    end = 0
    for span in sorted(found):
        if span[0] >= end:
            yield span
            end = span[1]


# The part behind the @: up to 9 labels of up to 63 signs (RFC 1035); what stands before is read backwards from there.
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_AT_DOMAIN = re.compile(rf"(@)((?:{_LABEL}\.){{1,8}}[A-Za-z]{{2,24}})(?![A-Za-z0-9_-])")
_LOCAL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._%+-'")
_MOST_LOCAL = 64  # RFC 5321, 4.5.3.1.1
_GENERIC = """
    com org net edu gov mil int arpa info biz name pro aero coop museum jobs mobi travel tel cat asia post
    academy agency app art band bank berlin blog business cafe capital care center chat church city clinic
    cloud club community company consulting dance dental dev digital design earth education email energy
    engineering events expert family farm finance fit foundation fun fund gallery games global group guide
    guru hamburg health help host hosting house icu immo institute international jetzt kim koeln land law
    legal life link live llc london ltd management marketing market media moscow network news ninja nyc one
    online page paris partners party photo photography pizza plus press productions properties pub racing
    rest restaurant reviews rocks school science services shop show site social software solar solutions
    space store studio support swiss systems team tech technology tips today tools top tours town training
    university vegas video vip wales website wien wiki win work works world wtf xxx xyz yoga zone
"""
_TOP_LEVEL = frozenset(_GENERIC.split())
_SERVICES = frozenset({"git", "hg", "svn"})  # user names of clone addresses, as in git@github.com:owner/name


def emails(text: str) -> Iterator[Span]:
    """user@host.example of ASCII signs, where the last label has two letters or is a well-known top-level domain.

    So `x@self.weight` in Python is none. Clone addresses (git@…) stay; quoted local parts, non-ASCII ones and
    obfuscated addresses ("me at example dot com") are not found.
    """
    return spans(text, _AT_DOMAIN, _email) if "@" in text else iter(())


def _email(match: re.Match[str]) -> Span | None:
    text, at = match.string, match.start()
    start = at
    while start and at - start <= _MOST_LOCAL and text[start - 1] in _LOCAL:
        start -= 1
    local = text[start:at]
    start += len(local) - len(local.lstrip(".'-"))
    if not 0 < at - start <= _MOST_LOCAL or text[at - 1] == "." or text[start:at] in _SERVICES:
        return None
    labels = match[2].split(".")
    while len(labels) > 1 and not (len(labels[-1]) == 2 or labels[-1].lower() in _TOP_LEVEL):
        labels.pop()  # "write to me@example.com.Then …"
    return (start, at + 1 + len(".".join(labels))) if len(labels) > 1 else None
