"""Where sentences end."""

from __future__ import annotations

import re
from functools import cache

# Unicode's property Sentence_Terminal (PropList.txt), as ranges of hexadecimal code points.
_RANGES = """
21 2E 3F 589 61D-61F 6D4 700-702 7F9 837 839 83D-83E 964-965 104A-104B 1362 1367-1368 166E 1735-1736 17D4-17D5 1803 1809
1944-1945 1AA8-1AAB 1B4E-1B4F 1B5A-1B5B 1B5E-1B5F 1B7D-1B7F 1C3B-1C3C 1C7E-1C7F 2024 203C-203D 2047-2049 2CF9-2CFB 2E2E
2E3C 2E53-2E54 2E60-2E61 3002 A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF A92F A9C8-A9C9 AA5D-AA5F AAF0-AAF1 ABEB
FE12 FE15-FE16 FE52 FE56-FE57 FF01 FF0E FF1F FF61 10A56-10A57 10F55-10F59 10F86-10F89 11047-11048 110BE-110C1
11141-11143 111C5-111C6 111CD 111DE-111DF 11238-11239 1123B-1123C 112A9 113D4-113D5 1144B-1144C 115C2-115C3 115C9-115D7
11641-11642 1173C-1173E 11944 11946 11A42-11A43 11A9B-11A9C 11C41-11C42 11EF7-11EF8 11F43-11F44 16A6E-16A6F 16AF5
16B37-16B38 16B44 16D6E-16D6F 16E98 1BC9F 1DA88
"""
# Before a point they do not end a sentence, nor does a single capital letter.
_ABBREVIATIONS = """
Mr Mrs Ms Dr St Jr Sr Prof Rev Hon Gen Col Capt Lt Sgt Gov Sen Rep Messrs Mme Mlle vs etc e.g i.e cf al ca viz No Nos
Vol vol pp Fig fig Figs Eq Ch Sec Inc Ltd Co Corp Bros Ave Blvd Rd Mt Ft Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov
Dec
"""
_OPENING = "\"'“‘«(["
_LAST_CYRILLIC = 0x52F  # the first sign of _OTHERS stands behind it
_CLOSING = "\"'”’»)\\]"


def _characters(ranges: str) -> str:
    found = []
    for one in ranges.split():
        first, _, last = one.partition("-")
        found += [chr(code) for code in range(int(first, 16), int(last or first, 16) + 1)]
    return "".join(found)


SENTENCE_ENDS = frozenset(_characters(_RANGES))
_OTHERS = SENTENCE_ENDS - set(".!?")  # of scripts that may set no space after a sentence
_NO_ENDS = frozenset(_ABBREVIATIONS.split())
_LONGEST = max(map(len, _NO_ENDS))
_INNER_END = re.compile(rf"[.!?](?<=(.{{{_LONGEST + 1}}}).)[{_CLOSING}]*[^\S\n]+(?=\S)", re.DOTALL)


def count_sentences(text: str) -> int:
    """Sentences of a text, by rule: a filled line has one, and one more after each . ! or ? within it.

    The sign may be followed by closing quotes and brackets, and must be followed by a space. It ends none after an
    abbreviation, a single capital letter or another point. Terminators of other scripts need no space behind them.
    """
    count = sum(1 for line in text.split("\n") if line and not line.isspace())
    for before in _INNER_END.findall(" " * (_LONGEST + 1) + text):
        last = before[-1]
        if last != "." and not (last.isupper() and not before[-2].isalnum()):
            count += before.split()[-1].lstrip(_OPENING) not in _NO_ENDS if not last.isspace() else 1
    if not text.isascii() and not _OTHERS.isdisjoint(_rare_characters(text)):
        count += len(_other_inner_end().findall(text))
    return count


@cache
def _other_inner_end() -> re.Pattern[str]:
    return re.compile(rf"[{''.join(sorted(_OTHERS))}][{_CLOSING}]*[^\S\n]*(?=[^\W_])")


def _rare_characters(text: str) -> set[str]:
    """The distinct characters of a text that are neither Latin, Greek nor Cyrillic."""
    import numpy as np

    from gptcli.records.ngrams import distinct

    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    return set(map(chr, distinct(np.sort(codes[codes > _LAST_CYRILLIC])).tolist()))
