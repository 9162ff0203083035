"""Where words end, for the patterns of byte-level tokenizers: loops over UTF-8 instead of regular expressions.

Each character is read once, or a few times where a pattern gives some back: linear in the text whatever it holds.
"""

from __future__ import annotations

import numpy as np

from gptcli.runtime.compiled import compiled
from gptcli.tokenize.encoding.characters import (
    ALONE,
    BLANK,
    CASELESS,
    LETTERS,
    LOWER,
    MARK,
    NEWLINE,
    NUMBER,
    OTHER,
    UPPER,
    Classes,
    character_at,
)
from gptcli.tokenize.encoding.chunks import Bytes, Offsets

GPT2, CL100K, O200K = 0, 1, 2  # families of patterns

_SPACE, _APOSTROPHE, _SLASH = 0x20, 0x27, 0x2F
_LF, _CR = 0x0A, 0x0D
_LONG_S = (0xC5, 0xBF)  # U+017F, an s where case is ignored; no other character outside ASCII folds into one here
_UPPERS = UPPER | CASELESS | MARK
_LOWERS = LOWER | CASELESS | MARK


@compiled
def scan_words(
    data: Bytes,
    offsets: Offsets,
    start: int,
    bounds: Offsets,
    classes: Classes,
    family: int,
    letters: int,
    digits: int,
    contractions: bool,
) -> tuple[int, int]:
    """Fill bounds[1:] with the ends of the words from byte `start` on: how many, and the byte reached.

    data: uint8, UTF-8; offsets: int64 [documents + 1]; bounds: int64, at least 2; classes: uint8 by code point;
    letters: the classes that count as such (family CL100K); digits: most numeric characters of a word (not GPT2);
    contractions: whether 's, 't … stay with the word before them (O200K).
    """
    low, high = 0, len(offsets)  # the first document that ends after `start`
    while low < high:
        middle = (low + high) // 2
        if offsets[middle] <= start:
            low = middle + 1
        else:
            high = middle
    count, place, limit = 0, start, len(bounds) - 1
    ascii_classes = np.zeros(256, np.uint8)
    ascii_classes[:128] = classes[:128]
    bounds[0] = start
    for document in range(low, len(offsets)):
        stop = offsets[document]
        while place < stop:
            if count == limit:
                return count, place
            count, place = _plain_words(data, place, stop, bounds, count, ascii_classes, family, digits)
            if place == stop or count == limit:
                continue
            if family == GPT2:
                place = _gpt2_word(data, place, stop, classes)
            elif family == CL100K:
                place = _cl100k_word(data, place, stop, classes, letters, digits)
            else:
                place = _o200k_word(data, place, stop, classes, digits, contractions)
            count += 1
            bounds[count] = place
    return count, place


@compiled
def _plain_words(
    data: Bytes, place: int, stop: int, bounds: Offsets, count: int, classes: Classes, family: int, digits: int
) -> tuple[int, int]:
    """Words from `place` on as long as they are plain ASCII without an apostrophe: the new count and the byte reached.

    classes: of single bytes, 0 from 0x80 up. What is left out here the loops for one word find, only slower.
    """
    limit = len(bounds) - 1
    while place < stop and count < limit:
        first = place + 1 if data[place] == _SPACE and place + 1 < stop else place
        kind = classes[data[first]]
        if kind == 0 or data[first] == _APOSTROPHE:
            break
        prefixed = family != GPT2 and first == place and kind & (OTHER | BLANK) and first + 1 < stop
        if prefixed and classes[data[first + 1]] & LETTERS:
            first += 1
            kind = classes[data[first]]
        end = first
        if kind & LETTERS:
            if family == O200K:
                while end < stop and classes[data[end]] & UPPER:
                    end += 1
                while end < stop and classes[data[end]] & LOWER:
                    end += 1
            else:
                while end < stop and classes[data[end]] & LETTERS:
                    end += 1
        elif kind & OTHER:
            while end < stop and classes[data[end]] & OTHER:
                end += 1
            if family != GPT2:
                end = _line_ends(data, end, stop, family == O200K)
        elif kind & NUMBER and (family == GPT2 or first == place):
            most = min(stop, first + digits)
            while end < most and classes[data[end]] & NUMBER:
                end += 1
        else:
            end = _plain_blanks(data, place, stop, classes, family != GPT2)
        if end < stop and (data[end] >= 0x80 or (family == O200K and data[end] == _APOSTROPHE)):
            break
        place = end
        count += 1
        bounds[count] = place
    return count, place


@compiled
def _plain_blanks(data: Bytes, place: int, stop: int, classes: Classes, to_newline: bool) -> int:
    """`_blanks` of ASCII, or where a byte of another character stands."""
    end, behind_newline = place, 0
    while end < stop and classes[data[end]] & (BLANK | NEWLINE):
        if classes[data[end]] == NEWLINE:
            behind_newline = end + 1
        end += 1
    if end < stop and data[end] >= 0x80:
        return end
    if to_newline and behind_newline:
        return behind_newline
    return end - 1 if end < stop and classes[data[end]] and end - place > 1 else end


@compiled
def _line_ends(data: Bytes, place: int, stop: int, slashes: bool) -> int:
    """Where CR and LF (and slashes) end that begin at `place`."""
    while place < stop and (data[place] == _LF or data[place] == _CR or (slashes and data[place] == _SLASH)):
        place += 1
    return place


@compiled
def _gpt2_word(data: Bytes, place: int, stop: int, classes: Classes) -> int:
    """Where a word that begins at `place` ends, for GPT-2's pattern."""
    kind, size = character_at(data, place, classes)
    if data[place] == _APOSTROPHE:
        contracted = _contraction(data, place, stop, False)
        if contracted:
            return place + contracted
    first = place + size
    if data[place] == _SPACE and first < stop:
        following, size = character_at(data, first, classes)
        if following & (BLANK | NEWLINE) == 0 and following != ALONE:
            kind = following
            first += size
    if kind & LETTERS:
        return _run(data, first, stop, classes, LETTERS)
    if kind & NUMBER:
        return _run(data, first, stop, classes, NUMBER)
    if kind & (OTHER | MARK):
        return _run(data, first, stop, classes, OTHER | MARK)
    if kind == ALONE:
        return first
    return _blanks(data, place, stop, classes, False)


@compiled
def _cl100k_word(data: Bytes, place: int, stop: int, classes: Classes, letters: int, digits: int) -> int:
    """The same for cl100k's pattern and its kin, where `letters` are the classes that count as letters."""
    kind, size = character_at(data, place, classes)
    if data[place] == _APOSTROPHE:
        contracted = _contraction(data, place, stop, True)
        if contracted:
            return place + contracted
    first = place + size
    if kind & letters:
        return _run(data, first, stop, classes, letters)
    following = 0
    if first < stop and kind & (NUMBER | NEWLINE) == 0:
        following, size = character_at(data, first, classes)
        if following & letters:
            return _run(data, first + size, stop, classes, letters)
    return _rest(data, place, first, stop, classes, kind, following, (OTHER | MARK) & ~letters, digits, False)


@compiled
def _o200k_word(data: Bytes, place: int, stop: int, classes: Classes, digits: int, contractions: bool) -> int:
    """The same for o200k's pattern and its kin: words of letters end before an upper-case letter inside them.

    The pattern's first two branches in the order in which they are tried: a word that ends in a lower-case letter (or
    one of those that are both cases), behind one character that is no letter, then without it; an upper-case word.
    """
    kind, size = character_at(data, place, classes)
    first = place + size
    following, end, upper, upper_behind = 0, 0, place, first
    prefixed = kind & (LETTERS | NUMBER | NEWLINE) == 0 and first < stop
    if prefixed:
        following, _ = character_at(data, first, classes)
        if following & (LETTERS | MARK):
            end, upper_behind = _cased(data, first, stop, classes)
    if end == 0 and kind & (LETTERS | MARK):
        end, upper = _cased(data, place, stop, classes)
    if end == 0 and upper_behind > first:
        end = upper_behind
    if end == 0 and upper > place:
        end = upper
    if end == 0:
        return _rest(data, place, first, stop, classes, kind, following, OTHER | MARK, digits, True)
    if contractions and end < stop and data[end] == _APOSTROPHE:
        end += _contraction(data, end, stop, True)
    return end


@compiled
def _cased(data: Bytes, place: int, stop: int, classes: Classes) -> tuple[int, int]:
    """Where upper-case letters, then at least one lower-case one end (0: there is none), and where the upper-case end.

    Marks and letters without case are both. The upper-case part takes all it can, and gives back what is both at its
    end where no lower-case letter follows it.
    """
    both = 0
    while place < stop:
        kind, size = character_at(data, place, classes)
        if kind & _UPPERS == 0:
            if kind & LOWER:
                return _run(data, place + size, stop, classes, _LOWERS), place
            break
        place += size
        if kind & _LOWERS:
            both = place
    return both, place


@compiled
def _rest(
    data: Bytes,
    place: int,
    first: int,
    stop: int,
    classes: Classes,
    kind: int,
    following: int,
    others: int,
    digits: int,
    slashes: bool,
) -> int:
    """The branches for no letters: a few digits; other characters and the newlines behind; blanks up to a newline.

    kind: class of the character at `place`; first: where the next one begins; following: its class, 0 at the end.
    """
    if kind == NUMBER:
        for _ in range(digits - 1):
            if first == stop:
                break
            kind, size = character_at(data, first, classes)
            if kind != NUMBER:
                break
            first += size
        return first
    if kind & others == 0 and (data[place] != _SPACE or following & others == 0):
        return _blanks(data, place, stop, classes, True)
    end = _run(data, first, stop, classes, others)
    return _line_ends(data, end, stop, slashes)


@compiled
def _run(data: Bytes, place: int, stop: int, classes: Classes, wanted: int) -> int:
    """Where the characters of the `wanted` classes end that begin at `place`."""
    while place < stop:
        lead = data[place]
        if lead < 0x80:
            if classes[lead] & wanted == 0:
                break
            place += 1
        else:
            kind, size = character_at(data, place, classes)
            if kind & wanted == 0:
                break
            place += size
    return place


@compiled
def _blanks(data: Bytes, place: int, stop: int, classes: Classes, to_newline: bool) -> int:
    """White space from `place`: up to its last newline if wanted and there is one, else without its last character.

    The last is left to the word behind it, unless none follows or there is just one.
    """
    last, end, behind_newline, more = place, place, 0, False
    while end < stop:
        kind, size = character_at(data, end, classes)
        if kind & (BLANK | NEWLINE) == 0:
            more = kind != ALONE
            break
        last = end
        end += size
        if kind == NEWLINE:
            behind_newline = end
    if to_newline and behind_newline:
        return behind_newline
    return last if more and last > place else end


@compiled
def _contraction(data: Bytes, place: int, stop: int, fold: bool) -> int:
    """Bytes of an English contraction ('s 't 'm 'd 're 've 'll, in either case if `fold`) at `place`, 0 for none."""
    if place + 1 >= stop:
        return 0
    first = data[place + 1]
    second = data[place + 2] if place + 2 < stop else 0
    if fold:
        if first == _LONG_S[0] and second == _LONG_S[1]:
            return 3
        first, second = first | 0x20, second | 0x20
    if first == ord("s") or first == ord("t") or first == ord("m") or first == ord("d"):
        return 2
    if (first == ord("r") or first == ord("v")) and second == ord("e"):
        return 3
    return 3 if first == ord("l") and second == ord("l") else 0
