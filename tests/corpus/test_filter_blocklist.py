from __future__ import annotations

import os
from pathlib import Path

import pytest

from gptcli.corpus.filters.blocked import split_url
from gptcli.corpus.filters.blocklist import BlocklistFilter
from gptcli.corpus.filters.verdict import Verdict
from gptcli.corpus.filters.view import View
from gptcli.errors import SpecError
from gptcli.spec import resolve

URLS = """\
# a list, with comments
spam.example
https://www.Forum.example/boards/
*.ads.example
shop.example?id=
"""
WORDS = "\ufeff# words\nDamn\nvery  bad thing\nvery bad\n.net core\nc++\nStraße\n悪い\n***\n"


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    (tmp_path / "urls.txt").write_text(URLS, encoding="utf-8")
    (tmp_path / "words.txt").write_text(WORDS, encoding="utf-8")
    return tmp_path


def view(text: str = "", url: str = "") -> View:
    made = View(text)
    made.url = url  # type: ignore[attr-defined]
    return made


@pytest.mark.parametrize(
    ("url", "entry"),
    [
        ("http://spam.example", "spam.example"),
        ("https://user:word@A.B.SPAM.example:8080/page?x=1#part", "spam.example"),
        ("//spam.example.", "spam.example"),
        ("spam.example:80/page", "spam.example"),
        ("https://notspam.example/", ""),
        ("https://spam.example.org/", ""),
        ("https://other.example/?to=spam.example", ""),
        ("https://www.forum.example/boards/1", "www.forum.example/boards/"),
        ("https://de.www.forum.example/boards/1", "www.forum.example/boards/"),
        ("https://www.forum.example/about", ""),
        ("https://www.forum.example/Boards/1", ""),
        ("https://forum.example/boards/1", ""),
        ("http://ads.example/x", "ads.example"),
        ("http://shop.example?id=7", "shop.example?id="),
        ("http://shop.example/", ""),
        ("", ""),
    ],
)
def test_addresses(lists: Path, url: str, entry: str) -> None:
    chosen = BlocklistFilter(urls=str(lists / "urls.txt"))
    assert chosen.verdict(view(url=url)) == (Verdict("blocked_url", entry) if entry else Verdict())


def test_a_document_without_an_address_passes(lists: Path) -> None:
    assert BlocklistFilter(urls=str(lists / "urls.txt")).verdict(View("spam.example")).keep


def test_split_url() -> None:
    assert split_url("https://Me@WWW.Example.com:80/a?b#c") == ("www.example.com", "/a?b")
    assert split_url("example.com/") == ("example.com", "")
    assert split_url("http://[2001:db8::1]:80/x") == ("[2001:db8::1]", "/x")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Well, DAMN it.", "1: damn"),
        ("Damned if I know; a dam n", ""),
        ("A very\n bad\tthing, and damn, a VERY BAD THING", "3: damn, very bad thing"),
        ("every bad thing; very-bad things", ""),
        ("very bad things, very bad thing", "2: very bad, very bad thing"),
        ("on .NET  Core, not net core", "1: .net core"),
        ("In C++, or c++17? obj-c+", "2: c++"),
        ("in c", ""),
        ("die STRASSE", "1: strasse"),
        ("とても悪いことだ", "1: 悪い"),
        ("f*** it ****", "2: ***"),
        ("", ""),
    ],
)
def test_words(lists: Path, text: str, value: str) -> None:
    chosen = BlocklistFilter(words=str(lists / "words.txt"))
    assert list(chosen.measures(view(text))) == [("blocked_words", value)]
    assert chosen.verdict(view(text)) == (Verdict("blocked_words", value) if value else Verdict())


def test_max_hits_counts_every_occurrence(lists: Path) -> None:
    words = str(lists / "words.txt")
    assert BlocklistFilter(words=words, max_hits=2).verdict(view("damn damn")).keep
    assert not BlocklistFilter(words=words, max_hits=2).verdict(view("damn damn damn")).keep


def test_a_changed_list_is_read_again(lists: Path) -> None:
    path = lists / "words.txt"
    chosen = BlocklistFilter(words=str(path))
    assert not chosen.verdict(view("damn")).keep
    path.write_text("other\n", encoding="utf-8")
    os.utime(path, ns=(1, 1))
    assert chosen.verdict(view("damn")).keep
    assert not chosen.verdict(view("other")).keep


def test_several_lists_are_one(lists: Path) -> None:
    (lists / "more.txt").write_text("further\n", encoding="utf-8")
    chosen = BlocklistFilter(words=[str(lists / "words.txt"), str(lists / "more.txt")])
    assert list(chosen.measures(view("damn, further"))) == [("blocked_words", "2: damn, further")]
    assert chosen.files() == [str(lists / "words.txt"), str(lists / "more.txt")]


@pytest.mark.parametrize(("content", "said"), [(b"# none\n\n", "holds no entry"), (b"\xff\xfe", "not UTF-8")])
def test_a_list_that_says_nothing(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(SpecError, match=said):
        BlocklistFilter(words=str(tmp_path / "list.txt")).verdict(view("text"))


def test_a_list_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"list\.txt can't be read"):
        BlocklistFilter(urls=str(tmp_path / "list.txt")).verdict(view(url="a.example"))


def test_a_blocklist_without_lists_is_refused() -> None:
    with pytest.raises(SpecError, match="needs urls or words"):
        resolve(BlocklistFilter, [("test", {})])
