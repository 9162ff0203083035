"""encodings and decoding: which codec a file is in, and that byte counts hold in every one."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptcli.errors import SpecError
from gptcli.records import encodings
from gptcli.records.decoding import Characters, codec_of
from gptcli.records.encodings import detect, is_cuttable, is_single_byte, require_known
from gptcli.records.opening import BLOCK, Blocks, Held
from gptcli.records.text import TextFile, separator_pattern

RUSSIAN = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему.\n"
GREEK = "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.\n"
TURKISH = (
    "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana sahiptirler ve "
    "birbirlerine karşı kardeşlik zihniyeti ile hareket etmelidirler.\n"
)
POLISH = "Litwo! Ojczyzno moja! ty jesteś jak zdrowie. Ile cię trzeba cenić, ten tylko się dowie, kto cię stracił.\n"
DANISH = "Alle mennesker er født frie og lige i værdighed og rettigheder; de bør handle i en broderskabets ånd.\n"
FRENCH = "Tous les êtres humains naissent libres et égaux en dignité; où l’on ira « cœur » là-bas à Noël.\n"
CHINESE = "我们都是中国人,今天天气很好。人工智能正在改变世界。\n"
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。\n"
KOREAN = "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.\n"


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8-r"),
        (GREEK, "cp1253"),
        (TURKISH, "cp1254"),
        (POLISH, "cp1250"),
        (POLISH, "iso8859-2"),
        (DANISH, "cp1252"),
        (FRENCH, "cp1252"),
        (CHINESE, "gb18030"),
        (CHINESE, "big5"),
        (JAPANESE, "shift_jis"),
        (JAPANESE, "euc_jp"),
        (KOREAN, "euc_kr"),
    ],
)
@pytest.mark.parametrize("ascii_before", [0, 300_000])
def test_detected_codecs_read_the_text(text: str, codec: str, ascii_before: int) -> None:
    data = b"x" * ascii_before + b"\n" + (text * 20).encode(codec, "ignore")
    wanted = data.decode(codec)
    assert "".join(Characters(Held(data, "a"), "auto")) == wanted
    assert data.decode(codec_of(Held(data, "a"), "auto")) == wanted


def test_utf8_stays_utf8() -> None:
    text = (JAPANESE * 200).encode()
    assert detect(text[:-1]) == "utf-8"  # cut inside a character
    assert detect(text.replace("猫".encode(), b"\xe7\xff", 1)) == "utf-8"  # some damage
    assert detect(b"\xe9t\xe9 \xe0 la plage") == "cp1252"
    assert detect(bytes(range(128, 256))) in ("latin-1", "cp1252")
    assert codec_of(Held(b"plain", "a"), "auto") == "utf-8"
    assert codec_of(Held(b"", "a"), "auto") == "utf-8"
    damaged = TextFile(Held(text + b"\xff", "a"), None, "auto")
    [document] = damaged
    assert document.invalid_bytes == 1 and document.text.endswith("\n\ufffd")


@pytest.mark.parametrize("codec", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("asked", ["auto", "utf-8", "latin-1"])
def test_byte_order_mark_wins(tmp_path: Path, codec: str, asked: str) -> None:
    mark = {"utf-8": codecs.BOM_UTF8}.get(codec) or "\ufeff".encode(codec)
    path = tmp_path / "a.txt"
    path.write_bytes(mark + "é\r\n猫𝄞".encode(codec))
    [first, second] = TextFile(Blocks(path, "a.txt"), separator_pattern("line"), asked)
    assert (first.text, second.text) == ("é", "猫𝄞")
    assert first.offset == len(mark) and second.offset == len(mark + "é\r\n".encode(codec))
    assert second.size == len("猫𝄞".encode(codec))


def test_declared_charset_goes_before_detection() -> None:
    data = GREEK.encode("iso8859-7")
    assert "".join(Characters(Held(data, "a"), "auto", charset="ISO-8859-7")) == GREEK
    assert "".join(Characters(Held(data, "a"), "iso8859-7", charset="latin-1")) == GREEK
    assert "".join(Characters(Held("é".encode(), "a"), "auto", charset="x-none")) == "é"


def test_names_of_encodings() -> None:
    assert require_known("UTF8") == "utf-8" and require_known("utf_8_sig") == "utf-8"
    assert require_known("latin1") == "latin-1" and require_known("auto") == "auto"
    for name in ("klingon", "rot13", "base64", "idna", "undefined", "unicode_escape", "a\0b"):
        with pytest.raises(SpecError, match="unknown encoding"):
            require_known(name)
    assert is_single_byte("cp1252") and is_single_byte("koi8-r") and not is_single_byte("shift_jis")
    assert not is_single_byte("utf-8")
    assert all(map(is_cuttable, ("utf-8", "cp1252", "shift_jis", "gb18030", "big5")))
    assert not any(map(is_cuttable, ("utf-16-le", "utf-32-be", "utf-7", "iso2022_jp", "hz", "cp037")))


PIECES = st.lists(st.sampled_from(["a", "é", "ш", "猫", "名前", "\r", "\n", "\r\n", "~", "+", "ｶ", "か゚"]), max_size=40)


@settings(max_examples=200, deadline=None)
@given(
    PIECES,
    st.sampled_from(
        ["cp1252", "koi8-r", "shift_jis", "euc_jp", "gb18030", "big5hkscs", "euc_jis_2004", "iso2022_jp", "hz", "utf-7"]
    ),
    st.integers(1, 9),
    st.booleans(),
)
def test_byte_ranges_hold_in_every_codec(drawn: list[str], codec: str, block: int, damaged: bool) -> None:
    """The byte range of every line, decoded alone, is the line; ranges follow each other."""
    data = "".join(drawn).encode(codec, "ignore")
    if damaged and is_cuttable(codec):
        data = data + b"\n\x81\xff\nb\x81"
    blocks = Held(data, "a")
    patch = pytest.MonkeyPatch()
    patch.setattr("gptcli.records.opening.BLOCK", block)
    try:
        found = list(TextFile(blocks, separator_pattern("line"), codec))
    finally:
        patch.undo()
    whole = data.decode(codec, "surrogateescape" if is_cuttable(codec) else "strict")
    wanted = [line for line in whole.replace("\r\n", "\n").replace("\r", "\n").split("\n") if line]
    assert [len(document.text) for document in found if not document.problem] == [len(line) for line in wanted]
    if is_cuttable(codec) and codec not in ("euc_jis_2004", "big5hkscs"):
        for document, line in zip(found, wanted, strict=False):
            raw = data[document.offset : document.offset + document.size]
            assert raw.decode(codec, "surrogateescape") == line


def test_detection_holds_no_more_than_its_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = encodings.detect
    monkeypatch.setattr(encodings, "detect", lambda sample: seen.append(len(sample)) or real(sample))
    data = b"a" * (3 * BLOCK) + "é".encode() * (2 * BLOCK)
    assert sum(map(len, Characters(Held(data, "a"), "auto"))) == 5 * BLOCK
    assert seen == [encodings.SAMPLE]


def test_real_books(data_dir: Path) -> None:
    folder = data_dir / "multilingual-dev"
    for name in ("22367-8.txt", "19942-8.txt"):
        data = (folder / name).read_bytes()
        [book] = TextFile(Blocks(folder / name, name), None, "auto")
        assert book.text == data.decode("latin-1").replace("\r\n", "\n") and book.invalid_bytes == 0
    novel = folder / "wagahaiwa_nekodearu.txt"
    assert codec_of(Blocks(novel, "a"), "auto") == "utf-8"
