"""Which text codec a file is in: a byte order mark, what is declared, or detection; and what each codec can do."""

from __future__ import annotations

import codecs
import re
from functools import cache
from itertools import chain

from gptcli.errors import SpecError

AUTO = "auto"
SAMPLE = 1 << 18  # bytes, from the first that is not ASCII, that detection looks at
_GUESSED = 1 << 16  # bytes of lines with non-ASCII characters that are guessed from; guessing is slow
_VALID_SHARE = 0.9  # of the non-ASCII sequences: text that is UTF-8 but for some damage
_CLOSE = 0.01  # two guesses are equally good whose coherence with a language differs by less,
_CLOSE_MESS = 0.03  # or whose mess does
_MESS = 0.08  # a guess that looks worse than this is none

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins as UTF-16's does
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
LONGEST_BOM = 4
_ALIASES = {
    "utf-8-sig": "utf-8",
    "utf-16": "utf-16-le",
    "utf-32": "utf-32-le",
    "iso8859-1": "latin-1",
    "ascii": "utf-8",
}
_NO_TEXT = ("idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "oem")
# Codecs of text as it is found (the web's list, https://encoding.spec.whatwg.org), by their names in Python.
_CANDIDATES = [
    *(f"cp125{number}" for number in range(9)),
    *("cp866", "cp874", "iso8859_2", "iso8859_4", "iso8859_5", "iso8859_6", "iso8859_7", "iso8859_8", "iso8859_13"),
    *("iso8859_15", "iso8859_16", "koi8_r", "koi8_u", "mac_roman", "mac_cyrillic"),
    *("cp932", "euc_jp", "gb18030", "big5", "big5hkscs", "cp949"),
]
# What is neither a letter, nor a digit, nor a mark of the printer: seldom meant, where something else is as likely.
_SYMBOLS = re.compile(r"[^\w\s\x00-\x7f“”„‘’‚–—…«»‹›¿¡°§€£©®·•、。，！？「」『』（）：；]|[ªº¹²³]")
_NOT_ASCII = re.compile(rb"[\x80-\xff]")


@cache
def require_known(encoding: str) -> str:
    """The codec's name in Python ("auto" stays), or SpecError naming some that there are."""
    if encoding == AUTO:
        return AUTO
    try:
        found = codecs.lookup(encoding)
        if not found._is_text_encoding or found.name.replace("-", "_") in _NO_TEXT:
            raise LookupError(encoding)
    except (LookupError, ValueError) as error:
        raise SpecError(
            f"unknown encoding {encoding}",
            "choose auto, utf-8, latin-1, cp1252, cp1251, shift_jis, gb18030 or another text codec of Python",
        ) from error
    return _ALIASES.get(found.name, found.name)


def bom_of(head: bytes) -> tuple[str, int]:
    """The codec and length in bytes of a byte order mark, or ("", 0)."""
    return next(((codec, len(mark)) for mark, codec in _BOMS if head.startswith(mark)), ("", 0))


@cache
def is_stateless(codec: str) -> bool:
    """Whether a character's bytes are the same wherever it stands (not so in UTF-7, ISO-2022 and HZ)."""
    return codec.startswith(("utf-16", "utf-32")) or not re.match(r"utf-?7|iso2022|hz", codec)


@cache
def is_single_byte(codec: str) -> bool:
    """Whether every byte is one character."""
    decoder = codecs.getincrementaldecoder(codec)("surrogateescape")
    try:
        return is_stateless(codec) and all(len(decoder.decode(bytes([byte]))) == 1 for byte in range(256))
    except UnicodeDecodeError:
        return False


@cache
def is_cuttable(codec: str) -> bool:
    """Whether a newline, comma or quote byte is that character wherever it stands, so that bytes can be cut there."""
    try:
        return is_stateless(codec) and bytes(range(128)).decode(codec) == "".join(map(chr, range(128)))
    except UnicodeDecodeError:
        return False


class Detector:
    """Finds the codec of a stream that is fed block by block (without a BOM); holds at most a sample of it.

    `codec` is "" until enough has been seen. ASCII says nothing, so the sample begins at the first byte that is none.
    """

    def __init__(self) -> None:
        self.codec = ""
        self._sample = bytearray()

    @property
    def begun(self) -> bool:
        """Whether anything but ASCII was met."""
        return bool(self._sample)

    def feed(self, block: bytes) -> None:
        if self.codec or (not self._sample and block.isascii()):
            return
        if not self._sample:
            found = _NOT_ASCII.search(block)
            block = block[found.start() :] if found else b""
        self._sample += block[: SAMPLE - len(self._sample)]
        if len(self._sample) >= SAMPLE:
            self.codec = detect(bytes(self._sample))

    def finish(self) -> str:
        """The codec once there is nothing more to feed; UTF-8 for what is ASCII throughout."""
        self.codec = self.codec or (detect(bytes(self._sample)) if self._sample else "utf-8")
        return self.codec


def detect(sample: bytes) -> str:
    """The codec of a sample that may be cut off inside a character, deterministic.

    UTF-8 where it is that, or at least nine of ten non-ASCII sequences are; else the best guess of charset-normalizer
    among the encodings of the web, Windows-1252 among equals; where that finds none Windows-1252, or Latin-1 where a
    byte has no meaning in it.
    """
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
        return "utf-8"
    except UnicodeDecodeError:
        pass
    text = sample.decode("utf-8", "replace")
    wrong = text.count("\ufffd") - sample.count("\ufffd".encode())
    good = len(text) - wrong - sum(map(text.count, map(chr, range(128))))
    if good >= _VALID_SHARE * (good + wrong):
        return "utf-8"
    return _guess(sample) or _western(sample)


def _western(sample: bytes) -> str:
    try:
        sample.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def _guess(sample: bytes) -> str:
    """Of the lines with non-ASCII characters, which alone tell encodings apart; "" where nothing fits."""
    try:
        from charset_normalizer import from_bytes
    except ImportError as error:
        raise SpecError(
            "an encoding must be guessed, which takes charset-normalizer",
            "pip install charset-normalizer, or name the encoding (--set encoding=cp1252)",
        ) from error
    lines = sample.splitlines(keepends=True)
    if len(lines) > 1 and len(sample) >= SAMPLE:
        lines.pop()  # it may end inside a character
    taken: list[bytes] = []
    size = 0
    for line in chain(line for line in lines if not line.isascii()):
        if size + len(line) > _GUESSED and taken:
            break
        taken.append(line)
        size += len(line)
    matches = from_bytes(b"".join(taken)[: 4 * _GUESSED], cp_isolation=_CANDIDATES)
    best = matches.best()
    if best is None or best.chaos > _MESS:
        return ""
    close = [match for match in matches if match.chaos <= best.chaos + _CLOSE_MESS]
    symbols = [len(_SYMBOLS.findall(str(match))) for match in close]
    close = [match for match, count in zip(close, symbols, strict=True) if count == min(symbols)]
    found = max(close, key=lambda match: match.coherence)  # the first of equals
    for match in close:
        if "cp1252" in match.could_be_from_charset and match.coherence + _CLOSE >= found.coherence:
            return "cp1252"
    return require_known(found.encoding)
