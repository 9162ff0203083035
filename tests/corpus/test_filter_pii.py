from __future__ import annotations

import json
import sysconfig
from pathlib import Path

import pytest

from gptcli.corpus.filters.pii import PiiFilter
from gptcli.corpus.filters.view import View
from gptcli.errors import SpecError
from gptcli.spec import resolve

LETTERS = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7"  # put together here: no key stands whole in this file
LONG = LETTERS * 4
FOUND = {
    "email": {
        "plain": "write to jane.doe+news@mail.example.co.uk.",
        "upper": "JANE@EXAMPLE.ORG",
        "among Japanese": "メールはjane@example.comまで",
        "two": "a@example.com,b@example.com",
        "before a sentence": "me@example.com.Then he left",
        "in brackets": "<mailto:jane@example.museum>",
    },
    "ip": {
        "public": "from 93.184.216.34 at noon",
        "network": "93.184.216.0/24 is blocked",
        "in a URL": "http://93.184.216.34:8080/",
        "v6": "at 2606:2800:220:1:248:1893:25c8:1946.",
        "v6 short": "host [2a00:1450:4001::200e]:443",
    },
    "phone": {
        "grouped": "+44 20 7946 0958",
        "area in brackets": "+49 (0)30 901820, daily",
        "in one": "tel:+4915112345678",
        "two zeros": "Tel.: 0049 30 901820",
        "North America": "(212) 736-5000 or 212-736-5001; 212.736.5002; 1-800-736-5003",
    },
    "iban": {
        "German": "to DE89370400440532013000, please",
        "in fours": "GB82 WEST 1234 5698 7654 32 AND MORE",
        "letters inside": "FR14 2004 1010 0505 0001 3M02 606",
        "two": "DE89 3704 0044 0532 0130 00 DE89 3704 0044 0532 0130 00",
    },
    "card": {
        "Visa": "4111 1111 1111 1111",
        "American Express": "3782-822463-10005 or 378282246310005",
        "Mastercard": "5555-5555-5555-4444",
        "Diners Club": "30569309025904",
        "Discover and JCB": "6011111111111117, 3530111333300000",
    },
    "key": {
        "AWS": "id = AKIA" + "IOSFODNN7EXAMPLE",
        "GitHub": '"ghp_' + LONG[:36] + '"',
        "GitHub, fine-grained": "github_pat_" + LONG[:22] + "_" + LONG[:59],
        "OpenAI": "sk-" + LONG[:48],
        "OpenAI, project": "sk-proj-" + LONG,
        "Anthropic": "sk-ant-api03-" + LONG[:93] + "-AA",
        "Google": "key=AIza" + LONG[:35] + "&q=1",
        "Slack": "xoxb-" + "123456789012-" + LETTERS,
        "Stripe": "sk_live_" + LETTERS,
        "web token": "Bearer eyJ" + LETTERS + ".eyJ" + LONG + "." + LONG[:43],
        "private key": "-----BEGIN RSA PRIVATE KEY-----\n" + LONG + "\n-----END RSA PRIVATE KEY-----\n",
    },
}
LEFT = {
    "matrix product": "y = x@self.weight + a@b.T",
    "decorator": "\n@pytest.mark.parametrize\n@app.route",
    "handle": "ask @jane.doe or me@home",
    "clone address": "git@github.com:owner/name.git",
    "local part too long": "a" * 70 + "@example.com",
    "version": "version 1.2.3.4, v10.0.0.150, chrome-91.0.210.12, package==3.14.0.101",
    "section": "see 2.3.4.1 and 5.1.2.3.4.150",
    "not public": "127.0.0.1 10.1.2.130 192.168.1.100 172.16.200.1 203.0.113.5 255.255.255.0",
    "out of range": "300.1.2.3 1.2.3.400 093.184.216.34",
    "local v6": "fe80::1 ::1 2001:db8::1:2:3 fd00:1:2:3::1",
    "code": "std::vector<abc::def> x[2000::3] 20:30:40 2024:01:02",
    "dates and times": "2024-01-15T10:20:30+00:00, 15.01.2024 10:20, 1999-2005",
    "arithmetic": "n = +4294967296; 1+1234567890; y += 10000000000",
    "numbers": "1234567890 3.14159265358979 1,234,567,890 0x1234567890 00123 4567 8901",
    "too short": "+1 234 567",
    "serial": "222-333-4444-5 3.222.333.4444 a222-333-4444",
    "wrong check digits": "DE88370400440532013000 GB82 WEST 1234 5698 7654 33",
    "wrong length": "DE8937040044053201300 XX89370400440532013000",
    "wrong spaces": "DE89 37 0400 44 0532 0130 00",
    "Luhn fails": "4111 1111 1111 1112, 5555555555554445",
    "no issuer": "1234567812345670, 9999999999999995",
    "part of a longer number": "41111111111111111111111, 0.4111111111111111",
    "class names": "sk-toggleable__content sk-estimator-doc-link-that-is-very-long-indeed-yes",
    "words": "an xox-game; AIza; eyJ; AKIA; ghp_short; sk_live_abc",
    "public key": "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
    "key without an end": "-----BEGIN PRIVATE KEY-----\n" + "a" * 50,
}


@pytest.mark.parametrize(("kind", "case"), [(kind, case) for kind, cases in FOUND.items() for case in cases])
def test_found(kind: str, case: str) -> None:
    text, counts = PiiFilter().rewrite(View(FOUND[kind][case]))
    assert counts == {kind: text.count(f"[{kind.upper()}]")}
    assert counts[kind] >= 1
    other = [name for name in FOUND if name != kind]
    assert PiiFilter(kinds=kind).rewrite(View(FOUND[kind][case])) == (text, counts)
    if case != "in one":  # a phone number alone: no other finder takes it
        assert PiiFilter(kinds=other).rewrite(View(FOUND[kind][case])) == (FOUND[kind][case], {})


@pytest.mark.parametrize("case", LEFT)
def test_left(case: str) -> None:
    assert PiiFilter().rewrite(View(LEFT[case])) == (LEFT[case], {})


def test_what_stands_around_stays() -> None:
    text = "Jane (jane@example.com, +44 20 7946 0958) paid DE89 3704 0044 0532 0130 00 FROM 93.184.216.34."
    assert PiiFilter().rewrite(View(text)) == (
        "Jane ([EMAIL], [PHONE]) paid [IBAN] FROM [IP].",
        {"email": 1, "iban": 1, "ip": 1, "phone": 1},
    )
    five = "(212) 736-5000 or 212-736-5001; 212.736.5002; 1-800-736-5003"
    assert PiiFilter().rewrite(View(five)) == ("[PHONE] or [PHONE]; [PHONE]; [PHONE]", {"phone": 4})


def test_a_second_time_nothing_is_found() -> None:
    text = "\n".join(case for cases in FOUND.values() for case in cases.values())
    once, counts = PiiFilter().rewrite(View(text))
    assert set(counts) == set(FOUND)
    assert PiiFilter().rewrite(View(once)) == (once, {})


@pytest.mark.parametrize("kinds", [["name"], []])
def test_an_unknown_kind_is_refused(kinds: list[str]) -> None:
    with pytest.raises(SpecError, match="kinds"):
        resolve(PiiFilter, [("test", {"kinds": kinds})])


ADVERSARIES = """
a|a@|@a.|a.|@a.a.|@-a|a@a-|%@|1|1 |1.|1-|11-|+1|+1 |+1(|(|00|001 |2 2 |4111|4111 |4111-|AA00|AA00 |DE89 3704 0044 |
2001:|2000::|:|:0|sk-|sk-proj-|ghp_|xoxb-|eyJ|eyJaaaaaaaa.|eyJaaaaaaaa.eyJaaaaaaaa.|-----BEGIN |
-----BEGIN PRIVATE KEY-----|AKIA|AIza|sk_live_|222-222-|(222) 222-|tel 001 |100.1.1.1.
""".replace("\n", "").split("|")


@pytest.mark.parametrize("place", range(len(ADVERSARIES)))
def test_time_is_linear(place: int) -> None:
    """With anything quadratic a repeated beginning of 200,000 characters would take minutes, not a moment."""
    piece = ADVERSARIES[place]
    text = piece * (200_000 // len(piece))
    for tried in (text, "eyJ" + text, "x@example.com " + text):
        assert PiiFilter().rewrite(View(tried))[1].keys() <= {"email"}


def test_few_finds_in_source_code(data_dir: Path) -> None:
    """In the standard library no key, card or account, and no number that looks like a phone number."""
    library = Path(sysconfig.get_path("stdlib"))
    text = "\n".join(path.read_text("utf-8", "replace") for path in sorted(library.glob("*.py")))
    assert len(text) > 4_000_000
    assert PiiFilter(kinds=["key", "iban", "card", "phone"]).rewrite(View(text)) == (text, {})
    pages = [json.loads(line)["text"] for line in (data_dir / "c4-demo" / "c4_demo.jsonl").open(encoding="utf-8")]
    counts = PiiFilter().rewrite(View("\n".join(pages)))[1]
    assert counts == {"email": 7, "phone": 23}, "each was looked at: all are addresses and numbers of persons or firms"
