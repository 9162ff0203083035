"""Lists of blocked addresses and words, made ready for looking up."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from gptcli.errors import SpecError

_WORD = re.compile(r"\w+")
_SIGNS = {place: " " for place in range(128) if not _WORD.match(chr(place))}  # in ASCII: what no word holds
_SCHEME = re.compile(r"^(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
# Hiragana to CJK ideographs, compatibility ideographs, Thai, Lao, Khmer, Myanmar: no spaces between words
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


class Urls:
    """Domains and beginnings of paths under them; an address is found in steps of its host's labels."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._paths: dict[str, list[str]] = {}
        for entry in entries:
            host, path = split_url(entry.removeprefix("*."))
            if host:
                self._paths.setdefault(host, []).append(path)
        for paths in self._paths.values():
            paths.sort(key=lambda path: (len(path), path))

    def match(self, url: str) -> str:
        """The entry that blocks `url`, the widest where several do, or ""."""
        host, path = split_url(url)
        labels = host.split(".")
        for first in reversed(range(len(labels))):
            domain = ".".join(labels[first:])
            for begun in self._paths.get(domain, ()):
                if path.startswith(begun):
                    return domain + begun
        return ""


def split_url(url: str) -> tuple[str, str]:
    """(host, path with its query), without scheme, user, port and fragment; the host in lower case, the path as it is.

    "https://Me@WWW.Example.com:80/a?b#c" → ("www.example.com", "/a?b"); a domain's own page has the path "".
    """
    bare = _SCHEME.sub("", url.strip(), count=1).partition("#")[0]
    cut = min((place for place in map(bare.find, "/?") if place >= 0), default=len(bare))
    host = bare[:cut].rpartition("@")[2]
    path = bare[cut:]
    port = host.rpartition(":")
    if port[1] and port[2].isdigit():
        host = port[0]
    return host.casefold().strip("."), "" if path == "/" else path


class Words:
    """Words are found as sets of tokens; what holds other signs by a pattern, tried where its first token stands."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._plain: set[str] = set()
        self._signs: list[tuple[str, str, re.Pattern[str]]] = []  # first token, entry, how to find it
        self._anywhere: list[str] = []
        begun: dict[str, list[str]] = {}
        for entry in sorted({" ".join(entry.casefold().split()) for entry in entries}):
            first = _WORD.search(entry)
            if first is None or _UNSPACED.search(entry):
                self._anywhere.append(entry)
            elif first.group() == entry:
                self._plain.add(entry)
            elif first.start():
                self._signs.append((first.group(), entry, re.compile(_whole(entry))))
            else:
                begun.setdefault(first.group(), []).append(entry)
        self._begun = {token: _any_of(group) for token, group in begun.items()}

    def hits(self, text: str) -> Counter[str]:
        """The entries that stand in `text`, and how often; of phrases that begin with the same words the longest."""
        folded = text.casefold()
        tokens = folded.translate(_SIGNS).split() if folded.isascii() else _WORD.findall(folded)
        found: Counter[str] = Counter()
        different = set(tokens)
        if not self._plain.isdisjoint(different):
            found.update(filter(self._plain.__contains__, tokens))
        for token in self._begun.keys() & different:
            found.update(_phrases(folded, token, self._begun[token]))
        for token, entry, pattern in self._signs:
            if token in different:
                found[entry] = sum(1 for _ in pattern.finditer(folded))
        for entry in self._anywhere:
            found[entry] = folded.count(entry)
        return +found


def _phrases(folded: str, token: str, pattern: re.Pattern[str]) -> Iterator[str]:
    place = folded.find(token)
    while place >= 0:
        match = pattern.match(folded, place)
        if match:
            yield " ".join(match.group().split())
        place = folded.find(token, match.end() if match else place + 1)


def _any_of(entries: list[str]) -> re.Pattern[str]:
    return re.compile("|".join(_whole(entry) for entry in sorted(entries, key=len, reverse=True)))


def _whole(entry: str) -> str:
    """A pattern of `entry` with no letter or digit joined to it, and any whitespace for its spaces."""
    before = r"(?<!\w)" if _WORD.match(entry[0]) else ""
    after = r"(?!\w)" if _WORD.match(entry[-1]) else ""
    return before + r"\s+".join(map(re.escape, entry.split(" "))) + after


def urls_of(paths: Iterable[str]) -> Urls:
    """The files' addresses as one list, read once a process, and again where a file changed.

    SpecError where a file can't be read, isn't UTF-8 or holds no entry.
    """
    return _urls(_stamped(paths))


def words_of(paths: Iterable[str]) -> Words:
    """The files' words as one list; otherwise as `urls_of`."""
    return _words(_stamped(paths))


Stamped = tuple[tuple[str, int, int], ...]  # path, mtime_ns, bytes


def _stamped(paths: Iterable[str]) -> Stamped:
    try:
        return tuple((path, stat.st_mtime_ns, stat.st_size) for path in paths for stat in [Path(path).stat()])
    except OSError as error:
        raise SpecError(
            f"blocklist: {error.filename} can't be read ({error.strerror})", "name files of one entry a line"
        ) from error


@lru_cache(maxsize=8)
def _urls(files: Stamped) -> Urls:
    return Urls(entry for path, _, _ in files for entry in _entries(path))


@lru_cache(maxsize=8)
def _words(files: Stamped) -> Words:
    return Words(entry for path, _, _ in files for entry in _entries(path))


def _entries(path: str) -> list[str]:
    try:
        lines = Path(path).read_bytes().decode("utf-8-sig").splitlines()
    except OSError as error:
        raise SpecError(
            f"blocklist: {path} can't be read ({error.strerror})", "name files of one entry a line"
        ) from error
    except UnicodeDecodeError as error:
        raise SpecError(f"blocklist: {path} is not UTF-8 (byte {error.start})", "save it as UTF-8") from error
    found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not found:
        raise SpecError(f"blocklist: {path} holds no entry", "one domain, URL prefix, word or phrase a line")
    return found
