"""What kind each Unicode character is to the regular expressions of the tokenizers package, asked of the package.

Its engine carries its own version of Unicode, not Python's, and a letter of one version is an unassigned code point of
another. So the tables are made at run time by splitting a text of all characters, once a process.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from gptcli.runtime.compiled import compiled, readonly
from gptcli.tokenize.encoding.chunks import Bytes, Offsets

Classes = npt.NDArray[np.uint8]

# One bit a class, so that a set of classes is an integer. A character of class 0 stands alone.
ALONE, OTHER, BLANK, NEWLINE, NUMBER, UPPER, LOWER, CASELESS, MARK = 0, 1, 2, 4, 8, 16, 32, 64, 128
LETTERS = UPPER | LOWER | CASELESS
CODE_POINTS = 0x110000

_PATTERNS = {  # each inside a bracket
    BLANK: r"\s",
    NUMBER: r"\p{N}",
    UPPER: r"\p{Lu}\p{Lt}",
    LOWER: r"\p{Ll}",
    CASELESS: r"\p{Lm}\p{Lo}",
    MARK: r"\p{M}",
}
# Planes 4 to 13 hold no character and 15 and 16 private ones only, by Unicode's own promise; the others are asked for.
_PLANES = (0, 1, 2, 3, 14)
_SURROGATES = range(0xD800, 0xE000)
_HIGHEST_COMBINING = "\u0345"  # the one character of combining class 240; all others are sorted before it


@cache
def character_classes() -> Classes:
    """The class of every code point as the package's regular expressions see it, uint8 [0x110000]; do not write to it.

    BLANK is white space but CR and LF, which are NEWLINE; UPPER, LOWER and CASELESS are all letters; OTHER is the rest.
    """
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import Split

    points, text = _all_characters()
    runs = Split(Regex("|".join(f"[{pattern}]+" for pattern in _PATTERNS.values())), "isolated").pre_tokenize_str(text)
    starts = np.array([start for _, (start, _) in runs])
    firsts = "".join(run[0] for run, _ in runs)
    kinds = np.full(len(runs), OTHER, np.uint8)
    for kind, pattern in _PATTERNS.items():
        kinds[_matched(Split(Regex(f"[{pattern}]"), "removed"), firsts)] = kind
    classes = np.full(CODE_POINTS, OTHER, np.uint8)
    classes[points] = np.repeat(kinds, np.diff(starts, append=len(text)))
    classes[[0x0A, 0x0D]] = NEWLINE
    classes.flags.writeable = False
    return classes


@cache
def classes_with_digits_alone() -> Classes:
    """`character_classes` with class ALONE for what the package's `Digits` step sets apart (not quite \\p{N})."""
    from tokenizers.pre_tokenizers import Digits

    points, text = _all_characters()
    runs = Digits(individual_digits=False).pre_tokenize_str(text)  # by turns: U+0000 begins the first, of no digits
    starts = np.array([start for _, (start, _) in runs])
    classes = character_classes().copy()
    classes[points[np.repeat(np.arange(len(runs)) % 2 == 1, np.diff(starts, append=len(text)))]] = ALONE
    classes.flags.writeable = False
    return classes


@cache
def unsettled_characters() -> Classes:
    """1 for every code point that normalisation form C may change, move, or join with one before it, uint8 [0x110000].

    A text without such characters is in form C as the tokenizers package makes it (the quick check of Unicode Standard
    Annex #15, section 9, with the package's own decompositions); a text that has some may or may not be.
    """
    from tokenizers.normalizers import NFC, NFD

    points, text = _all_characters()
    lines = "\n".join(text.replace("\n", " "))
    composed = NFC().normalize_str(lines).split("\n")
    decomposed = NFD().normalize_str(lines).split("\n")
    moved = NFD().normalize_str(lines.replace("\n", "\n" + _HIGHEST_COMBINING)).split("\n")
    unsettled = np.zeros(CODE_POINTS, np.uint8)
    unsettled[ord(_HIGHEST_COMBINING)] = 1
    rows = zip(points.tolist(), text, composed, decomposed, moved, strict=True)
    for point, character, form_c, parts, behind in rows:
        if form_c != character and character != "\n":
            unsettled[point] = 1
        if behind[:1] != _HIGHEST_COMBINING:
            unsettled[point] = 1
        for part in parts[1:]:
            unsettled[ord(part)] = 1
    unsettled[0] = 0  # stands first, behind no other
    unsettled.flags.writeable = False
    return unsettled


def maybe_not_composed(data: Bytes, offsets: Offsets) -> npt.NDArray[np.bool_]:
    """Which documents hold a character that normalisation to form C might act on, bool [documents].

    data: uint8, UTF-8; offsets: int64 [documents + 1], where each begins and ends in it. The other documents are in
    form C already.
    """
    found = np.zeros(max(0, len(offsets) - 1), np.bool_)
    _mark_documents(readonly(data), readonly(offsets), unsettled_characters(), found)
    return found


@compiled
def character_at(data: Bytes, place: int, classes: Classes) -> tuple[Any, int]:
    """The entry in a table of code points, and the number of bytes, of the character that begins at `place`."""
    lead = np.int64(data[place])
    if lead < 0x80:
        return np.int64(classes[lead]), 1
    second = np.int64(data[place + 1]) & 0x3F
    if lead < 0xE0:
        return np.int64(classes[(lead & 0x1F) << 6 | second]), 2
    third = np.int64(data[place + 2]) & 0x3F
    if lead < 0xF0:
        return np.int64(classes[(lead & 0x0F) << 12 | second << 6 | third]), 3
    fourth = np.int64(data[place + 3]) & 0x3F
    return np.int64(classes[(lead & 0x07) << 18 | second << 12 | third << 6 | fourth]), 4


@compiled
def _mark_documents(data: Bytes, offsets: Offsets, table: Classes, found: Any) -> None:
    """Set found[i] where a character of document i has an entry other than 0."""
    for document in range(len(offsets) - 1):
        place, stop = offsets[document], offsets[document + 1]
        while place < stop:
            entry, size = character_at(data, place, table)
            if entry != 0:
                found[document] = True
                break
            place += size


@cache
def _all_characters() -> tuple[npt.NDArray[np.int64], str]:
    """Code points that may have been given a meaning, int64 [n], and the text of their characters in that order."""
    points = np.concatenate([np.arange(plane << 16, (plane + 1) << 16) for plane in _PLANES])
    points = points[(points < _SURROGATES.start) | (points >= _SURROGATES.stop)]
    return points, points.astype("<u4").tobytes().decode("utf-32-le")


def _matched(removing: Any, text: str) -> npt.NDArray[np.bool_]:
    """Which characters of `text` a split that removes its matches leaves out, bool [len(text)]."""
    matched = np.ones(len(text), bool)
    for _, (start, end) in removing.pre_tokenize_str(text):
        matched[start:end] = False
    return matched
